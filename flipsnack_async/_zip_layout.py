"""
Where everything in a zip archive is, so that any two readers would find the same there.

`zipfile` trusts too much for an archive from a stranger. It takes in a
directory of any length, passes over bytes that belong to nothing and local
headers that say otherwise, and cuts off what is longer than declared. Here an
archive is an unbroken row of members, then the directory, then its end.

A member is held to its declared size while it is inflated, so that whoever has
looked at those sizes knows how much can come out.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, NoReturn

from attrs import frozen

CHUNK: Final = 256 * 1024

# https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7 to 4.3.16
_HEADER: Final = struct.Struct("<4s5H3L2H")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_WIDE_END: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_ZIP64: Final = 0x0001
_WITH_DISK: Final = 28  # bytes of a field that tells three numbers and a disk's
_SECOND_NAME: Final = 0x7075
_TOO_WIDE: Final = 2**32 - 1

_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_DEFERRED: Final = 1 << 3
_UTF_8: Final = 1 << 11
_KNOWN_FLAGS: Final = _ENCRYPTED | _DEFERRED | _UTF_8 | 0b110  # these two tell how hard it tried
# Info-ZIP on these does not mark its names, which are UTF-8 all the same.
_UNIX: Final = (3, 19)
_NEWEST: Final = 63  # the format's version 6.3
_STORED: Final = 0
_DEFLATED: Final = 8

_LONGEST_COMMENT: Final = 2**16 - 1
_LONGEST_DIRECTORY: Final = 32 * 2**20  # as much of it as may have to be kept in memory
_SHOWN: Final = 80


class RefusedError(Exception):
    """Say why a package is refused, in words that go on from "the package"."""


@frozen
class Member:
    """
    Hold what the directory says of a member; the *name* of a folder ends with a slash.

    What cannot be decoded is in a name as `os.fsdecode` would put it there.
    """

    raw_name: bytes
    name: str
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    attributes: int
    header_at: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


def refuse(name: str, reason: str) -> NoReturn:
    raise RefusedError(f"holds {name[:_SHOWN]!r}, which {reason}")


@contextmanager
def reading() -> Iterator[None]:
    """Turn what the system says of a file that is read into a `RefusedError`."""
    try:
        yield
    except OSError as error:
        problem = error.strerror or "disk error"
        raise RefusedError(f"could not be read: {problem}") from error


def members(file: BinaryIO, most: float) -> Generator[None, None, list[Member]]:
    """
    List what an archive holds, in the order of its bytes; raises `RefusedError`.

    Yields after each step on the way.
    """
    count, directory_at, directory_end = _directory(file)
    if count > most:
        raise RefusedError(f"holds {count} members, more than {most}")
    if directory_end - directory_at > _LONGEST_DIRECTORY:
        raise RefusedError(f"has a directory of more than {_LONGEST_DIRECTORY} bytes")
    file.seek(directory_at)
    found: list[Member] = []
    for _ in range(count):
        member = _entry(file)
        if member.header_at + _HEADER.size + member.packed_size > directory_at:
            refuse(member.name, "does not end before the directory")
        found.append(member)
        yield
    if file.tell() != directory_end:
        raise RefusedError("has a directory of another length than it says")
    found.sort(key=lambda member: member.header_at)
    starts = [*(member.header_at for member in found), directory_at]
    if starts[0] != 0:
        raise RefusedError("has bytes before its first member")
    for member, end in zip(found, starts[1:], strict=True):
        _check_packing(member)
        _check_header(file, member)
        _check_end(file, member, end)
        yield
    return found


def contents(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Read a member, a chunk at a time; raises `RefusedError` where it is not as declared."""
    packed = _packed(file, member)
    size = crc = 0
    for chunk in _inflated(packed, member) if member.method == _DEFLATED else packed:
        size += len(chunk)
        if size > member.size:
            refuse(member.name, "is longer than it says")
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if (size, crc) != (member.size, member.crc):
        refuse(member.name, "is damaged")


def _packed(file: BinaryIO, member: Member) -> Iterator[bytes]:
    file.seek(_data_at(file, member))
    left = member.packed_size
    while left:
        chunk = _read(file, min(left, CHUNK))
        left -= len(chunk)
        yield chunk


def _inflated(packed: Iterator[bytes], member: Member) -> Iterator[bytes]:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for chunk in packed:
            while chunk and not stream.eof:
                yield stream.decompress(chunk, CHUNK)
                chunk = stream.unconsumed_tail
            if chunk or stream.unused_data:
                refuse(member.name, "has bytes after its end")
        yield stream.flush()
    except zlib.error:
        refuse(member.name, "is damaged")
    if not stream.eof:
        refuse(member.name, "is cut off")


def _data_at(file: BinaryIO, member: Member) -> int:
    *_, name_length, extra_length = _HEADER.unpack(_read_at(file, member.header_at, _HEADER.size))
    return member.header_at + _HEADER.size + int(name_length) + int(extra_length)


def _read(file: BinaryIO, size: int) -> bytes:
    with reading():
        data = file.read(size)
    if len(data) != size:
        raise RefusedError("is cut off")
    return data


def _read_at(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return _read(file, size)


def _directory(file: BinaryIO) -> tuple[int, int, int]:
    """Tell how many entries the directory has, and where it begins and ends."""
    size = file.seek(0, os.SEEK_END)
    most = min(size, _END.size + _LONGEST_COMMENT)
    tail = _read_at(file, size - most, most)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + _END.size:
        raise RefusedError("is no whole zip archive")
    _, *told, comment_length = _END.unpack_from(tail, at)
    if len(tail) != at + _END.size + comment_length:
        raise RefusedError("has bytes after its end")
    end = size - len(tail) + at
    if wide := _wide_end(file, end):
        end -= _LOCATOR.size + _WIDE_END.size
        limits = (2**16 - 1,) * 4 + (_TOO_WIDE,) * 2
        if any(n not in (w, limit) for n, w, limit in zip(told, wide, limits, strict=True)):
            raise RefusedError("has two ends that contradict each other")
        told = wide
    disk, first_disk, here, count, length, start = told
    if disk or first_disk or here != count or start + length != end:
        raise RefusedError("has a directory that is not where its end says")
    return count, start, end


def _wide_end(file: BinaryIO, end: int) -> list[int] | None:
    """Read the numbers of zip64 that are before the *end* record, if there are any."""
    start = end - _LOCATOR.size - _WIDE_END.size
    if start < 0:
        return None
    mark, disk, at, disks = _LOCATOR.unpack(_read_at(file, end - _LOCATOR.size, _LOCATOR.size))
    if mark != b"PK\6\7":
        return None
    mark, size, _, _, *numbers = _WIDE_END.unpack(_read_at(file, start, _WIDE_END.size))
    if (disk, at, disks, mark, size) != (0, start, 1, b"PK\6\6", _WIDE_END.size - 12):
        raise RefusedError("has two ends that contradict each other")
    return numbers


def _entry(file: BinaryIO) -> Member:
    mark, made, needed, flags, method, _, _, crc, packed_size, size, *rest = _ENTRY.unpack(
        _read(file, _ENTRY.size)
    )
    *lengths, disk, _, attributes, header_at = rest
    if mark != b"PK\1\2":
        raise RefusedError("has a directory that cannot be read")
    raw_name, raw_extra, _ = [_read(file, length) for length in lengths]
    # What other systems write beyond ASCII without marking it, no two of them agree on.
    encoding = "utf-8" if flags & _UTF_8 or made >> 8 in _UNIX else "ascii"
    name = raw_name.decode(encoding, "surrogateescape")
    if disk or needed & 0xFF > _NEWEST:
        refuse(name, "needs another archive, or a newer reader")
    field = _zip64_field(name, raw_name, raw_extra)
    size, packed_size, header_at = _widened(name, field, size, packed_size, header_at)
    return Member(raw_name, name, flags, method, crc, packed_size, size, attributes, header_at)


def _zip64_field(name: str, raw_name: bytes, extra: bytes) -> bytes:
    """Pick out of extra fields the one that counts; raises `RefusedError` for a second name."""
    fields: dict[int, bytes] = {}
    rest = io.BytesIO(extra)
    while head := rest.read(4):
        if not any(head):
            continue  # zipalign fills up with zeros
        kind, length = struct.unpack("<2H", head.ljust(4, b"\xff"))  # half of one is too long
        field = rest.read(length)
        if len(field) < length or (kind in (_ZIP64, _SECOND_NAME) and kind in fields):
            refuse(name, "has broken extra fields")
        fields[kind] = field
    same = struct.pack("<BL", 1, zlib.crc32(raw_name)) + raw_name
    if fields.get(_SECOND_NAME, same) != same:
        refuse(name, "has a second name")
    return fields.get(_ZIP64, b"")


def _widened(name: str, field: bytes, *numbers: int) -> list[int]:
    """Put what zip64 says in the place of numbers that were too wide for theirs."""
    if len(field) == _WITH_DISK and field.endswith(bytes(4)):
        field = field[:-4]
    wide = [int.from_bytes(field[at : at + 8], "little") for at in range(0, len(field), 8)]
    rest = iter(wide)
    told = [next(rest, 0) if number == _TOO_WIDE else number for number in numbers]
    missing = numbers.count(_TOO_WIDE)
    # Some writers tell all, needed or not; what they tell twice must be the same.
    more = len(wide) > missing and wide == told[: len(wide)]
    if len(field) % 8 or not (more or len(wide) == missing):
        refuse(name, "has sizes that contradict each other")
    return told


def _check_packing(member: Member) -> None:
    if member.flags & _ENCRYPTED:
        refuse(member.name, "is encrypted")
    if member.flags & ~_KNOWN_FLAGS or member.method not in (_STORED, _DEFLATED):
        refuse(member.name, "is compressed in an unknown way")
    if member.method == _STORED and member.packed_size != member.size:
        refuse(member.name, "has sizes that contradict each other")


def _check_header(file: BinaryIO, member: Member) -> None:
    """Refuse a member whose own header is not what the directory says of it."""
    mark, _, flags, method, _, _, crc, packed_size, size, *lengths = _HEADER.unpack(
        _read_at(file, member.header_at, _HEADER.size)
    )
    raw_name, raw_extra = [_read(file, length) for length in lengths]
    field = _zip64_field(member.name, raw_name, raw_extra)
    told = [crc, *_widened(member.name, field, size, packed_size)]
    known = [member.crc, member.size, member.packed_size]
    if member.flags & _DEFERRED:
        # Each may be left out: Info-ZIP knows the size when it begins, and not the rest.
        known = [number and true for number, true in zip(told, known, strict=True)]
    same = [b"PK\3\4", member.flags, member.method, member.raw_name, *known]
    if [mark, flags, method, raw_name, *told] != same:
        refuse(member.name, "its own header describes otherwise")


def _check_end(file: BinaryIO, member: Member, end: int) -> None:
    """Refuse a member that does not go to *end*, but for a descriptor that says the same."""
    allowed = {b""}
    if member.flags & _DEFERRED:
        numbers = (member.crc, member.packed_size, member.size)
        kinds = ("<3L", "<L2Q") if max(numbers) <= _TOO_WIDE else ("<L2Q",)
        allowed = {mark + struct.pack(k, *numbers) for mark in (b"", b"PK\7\x08") for k in kinds}
    start = _data_at(file, member) + member.packed_size
    if end - start not in map(len, allowed) or _read_at(file, start, end - start) not in allowed:
        refuse(member.name, "does not end where the next one begins")
