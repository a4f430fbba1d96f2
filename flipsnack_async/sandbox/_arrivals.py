"""Calls as they come off the wire: parameters from the query, and from the body of a form."""

import re
from collections.abc import Iterator, Mapping
from email.message import Message
from urllib.parse import parse_qsl

import attrs
from starlette.requests import Request

_PART_NAME = re.compile(rb'; name="([^"]*)"')


@attrs.frozen
class Arrival:
    """A call at the moment it is counted."""

    at: float
    method: str
    params: Mapping[str, str] = attrs.field(repr=False)
    repeats_a_name: bool
    origin: str

    @property
    def action(self) -> str:
        return self.params.get("action", "")


def read_arrival(request: Request, body: bytes, at: float) -> Arrival:
    """Decode every parameter, leaving out the files of a multipart body."""
    query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    pairs = [*query, *_form_fields(request.headers.get("content-type", ""), body)]
    params = dict(pairs)
    return Arrival(
        at=at,
        method=request.method,
        params=params,
        repeats_a_name=len(params) < len(pairs),
        origin=str(request.base_url).rstrip("/"),
    )


def _form_fields(content_type: str, body: bytes) -> list[tuple[str, str]]:
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if boundary is not None:
        return list(_multipart_fields(boundary.encode(), body))
    if header.get_content_type() == "application/x-www-form-urlencoded":
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    return []


# Not Starlette's form(): that needs python-multipart, for files nobody here looks at.
def _multipart_fields(boundary: bytes, body: bytes) -> Iterator[tuple[str, str]]:
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = _PART_NAME.search(head)
        if name is not None and b"; filename=" not in head:
            yield _text(name[1]), _text(content.removesuffix(b"\r\n"))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
