"""
Forms as they stream in: of their fields the text is kept, of their file no byte.

A form never fails while it is written. One that cannot be read says so when it
has ended, since a body is read to its end before anything is answered.
"""

from typing import Protocol
from urllib.parse import parse_qsl

import attrs
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from ._documents import Document, DocumentReader

# Bytes for all that is kept of a form: names, values, and the headers of parts.
_ROOM = 2**18

# RFC 2046, section 5.1.1.
_LONGEST_BOUNDARY = 70

_PIECE = 2**16


@attrs.frozen
class Form:
    """What a body held. *document* is what came in the part that is named file."""

    fields: tuple[tuple[str, str], ...] = ()
    document: Document | None = None
    file_count: int = 0
    is_readable: bool = True


UNREADABLE = Form(is_readable=False)


class FormReader(Protocol):
    """Takes a body in, chunk by chunk."""

    def write(self, chunk: bytes) -> None: ...

    def form(self) -> Form:
        """Say what it held, once it has come to its end."""


def reader_of(content_type: str) -> FormReader:
    """Choose how to read a body. One that is no form holds nothing."""
    kind, options = parse_options_header(content_type.encode("latin-1"))
    if kind == b"application/x-www-form-urlencoded":
        return _Urlencoded()
    if kind != b"multipart/form-data":
        return _Ignored(Form())
    boundary = options.get(b"boundary", b"")
    return _Multipart(boundary) if 0 < len(boundary) <= _LONGEST_BOUNDARY else _Ignored(UNREADABLE)


@attrs.frozen
class _Ignored:
    whatever_comes: Form

    def write(self, chunk: bytes) -> None:
        pass

    def form(self) -> Form:
        return self.whatever_comes


class _Urlencoded:
    def __init__(self) -> None:
        self._body = bytearray()

    def write(self, chunk: bytes) -> None:
        # One byte more than there is room for, to know that there was more.
        self._body += chunk[: _ROOM + 1 - len(self._body)]

    def form(self) -> Form:
        if len(self._body) > _ROOM:
            return UNREADABLE
        text = self._body.decode("utf-8", "replace")
        return Form(tuple(parse_qsl(text, keep_blank_values=True)))


class _Multipart:
    def __init__(self, boundary: bytes) -> None:
        self._fields: list[tuple[str, str]] = []
        self._file_count = 0
        self._document: DocumentReader | None = None
        self._room = _ROOM
        self._has_ended = False
        self._is_broken = False
        self._begin_part()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        # In pieces, because the callbacks copy what they are given, and a chunk may be huge.
        for start in range(0, len(chunk), _PIECE):
            if self._is_broken:
                return
            try:
                self._parser.write(chunk[start : start + _PIECE])
            except FormParserError:
                self._is_broken = True

    def form(self) -> Form:
        if self._is_broken or not self._has_ended:
            return attrs.evolve(UNREADABLE, fields=tuple(self._fields))
        document = None if self._document is None else self._document.document()
        return Form(tuple(self._fields), document, self._file_count)

    def _begin_part(self) -> None:
        self._disposition = b""
        self._name = ""
        self._value: bytearray | None = None
        self._file: DocumentReader | None = None

    def _begin_header(self) -> None:
        self._header_name = bytearray()
        self._header_value = bytearray()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += self._kept(data, start, end)

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += self._kept(data, start, end)

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise FormParserError("a part has no name")
        self._name = _text(options[b"name"])
        if b"filename" not in options:
            self._value = bytearray()
            return
        self._file_count += 1
        if self._name == "file" and self._document is None:
            self._document = self._file = DocumentReader()

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._value is not None:
            self._value += self._kept(data, start, end)
        elif self._file is not None:
            self._file.write(data[start:end])

    def _end_part(self) -> None:
        if self._value is not None:
            self._fields.append((self._name, _text(self._value)))

    def _end(self) -> None:
        self._has_ended = True

    def _kept(self, data: bytes, start: int, end: int) -> bytes:
        self._room -= end - start
        if self._room < 0:
            raise FormParserError("more fields than there is room for")
        return data[start:end]


def _text(raw: bytes | bytearray) -> str:
    return raw.decode("utf-8", "replace")
