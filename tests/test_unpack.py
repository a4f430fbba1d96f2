"""Packages out of their archives: harmless ones byte for byte, all others not at all."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import shutil
import stat
import struct
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import IO, Any, cast

import anyio
import pytest
from attrs import field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flipsnack_async import DownloadError, InvalidArgumentError, _blocking, unpack_package
from flipsnack_async import _unpack as room
from flipsnack_async import _zip_layout as layout
from flipsnack_async._unpack import checking
from flipsnack_async._zip_layout import CHUNK, contents

pytestmark = pytest.mark.anyio

real_threads = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
# For thousands of archives, about which no event loop has a say.
one_backend = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)

Tree = dict[str, bytes | None]
PAGE = b"<!doctype html><title>Spring</title>" * 20
LARGEST = 2**32 - 1


@frozen
class Piece:
    """Hold a member to be, and what is to be wrong with it."""

    name: bytes
    data: bytes = b"some text"
    method: int = 8
    flags: int = 0x800
    attributes: int = 0
    crc: int | None = None
    size: int | None = None
    packed: bytes | None = None
    extra: bytes = b""
    descriptor: bytes = b""
    entry_extra: bytes = b""
    # By their places in the header and in the directory's entry.
    header: dict[int, Any] = field(factory=dict)
    entry: dict[int, Any] = field(factory=dict)


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


def packed(*pieces: Piece, end: bytes | None = None, between: bytes = b"") -> bytes:
    """Write an archive by hand."""
    rows = directory = b""
    for piece in pieces:
        data = piece.packed
        if data is None:
            data = deflated(piece.data) if piece.method == 8 else piece.data
        size = len(piece.data) if piece.size is None else piece.size
        crc = zlib.crc32(piece.data) if piece.crc is None else piece.crc
        known = [piece.flags, piece.method, 0, 0, crc, len(data), size, len(piece.name)]
        header = [b"PK\3\4", 20, *known, len(piece.extra)]
        entry = [b"PK\1\2", 0x314, 20, *known, len(piece.entry_extra), 0, 0, 0]
        entry += [piece.attributes, len(rows)]
        for values, changes in ((header, piece.header), (entry, piece.entry)):
            for place, value in changes.items():
                values[place] = value
        rows += struct.pack("<4s5H3L2H", *header) + piece.name + piece.extra
        rows += data + piece.descriptor + between
        directory += struct.pack("<4s6H3L5H2L", *entry) + piece.name + piece.entry_extra
    count = len(pieces)
    numbers = (0, 0, count, count, len(directory), len(rows), 0)
    return rows + directory + (end or struct.pack("<4s4H2LH", b"PK\5\6", *numbers))


def zipped(tree: Tree, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Write an archive with Python's own library; folders are None."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as writing:
        for name, data in tree.items():
            writing.writestr(name if data is not None else f"{name}/", data or b"")
    return archive.getvalue()


def on_disk(folder: Path) -> Tree:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


CAPS = room._Caps(100, 10**6, 200)
SITE: Tree = {
    "index.html": PAGE,
    "empty": None,
    "pages": None,
    "pages/1.jpg": bytes(range(256)) * 8,
    "pages/größe 日本語.txt": "naïve ✓".encode(),
    "empty.txt": b"",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path


async def unpacked(place: Path, data: bytes, **caps: Any) -> Tree:
    """Unpack to a folder that is not there yet."""
    (place / "in" / "spring.zip").write_bytes(data)
    folder = await unpack_package(place / "in" / "spring.zip", place / "out" / "site", **caps)
    assert ["site"] == os.listdir(place / "out")
    return on_disk(folder)


def check(path: Path, subject: str = "spring") -> None:
    """Read all of an archive, as is done before a package is published."""
    for _ in checking(path, subject):
        pass


async def refused(place: Path, data: bytes, **caps: Any) -> str:
    """Tell why an archive is refused, and see to it that nothing has come of it."""
    with pytest.raises(DownloadError) as caught:
        await unpacked(place, data, **caps)
    assert "spring.zip" == caught.value.subject
    assert caught.value.reason.isprintable()
    assert [] == os.listdir(place / "out")
    assert {"in", "out"} == set(os.listdir(place))
    return caught.value.reason


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_a_package_is_unpacked_byte_for_byte(place: Path, method: int) -> None:
    """
    Files, names beyond ASCII and empty folders come out as they went in.
    """
    assert await unpacked(place, zipped(SITE, method)) == SITE


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tree=st.recursive(
        st.binary(max_size=2000),
        lambda below: st.dictionaries(
            st.text("abxyz019éü日_- .", min_size=1, max_size=12).filter(
                lambda s: s[-1] not in ". "
            ),
            below,
            max_size=4,
        ),
        max_leaves=12,
    ).filter(lambda tree: isinstance(tree, dict)),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_any_tree_comes_out_as_it_went_in(
    tree: Any, method: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """
    Whatever the names and contents, as long as any system could hold them.
    """
    place = tmp_path_factory.mktemp("tree")
    for name in ("in", "out"):
        (place / name).mkdir()

    def flat(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, bytes | None]]:
        for name, below in tree.items():
            is_folder = isinstance(below, dict)
            yield above + name, None if is_folder else below
            yield from flat(below if is_folder else {}, f"{above}{name}/")

    whole = dict(flat(tree))

    assert whole == anyio.run(unpacked, place, zipped(whole, method))


async def test_folders_need_not_be_listed(place: Path) -> None:
    """
    A file brings the folders that it is in, which may be listed before, after or never.
    """
    names = [b"a/b/c.txt", b"a/", b"a/d/", b"a/d/e.txt"]
    tree = await unpacked(
        place, packed(*(Piece(n, b"" if n[-1:] == b"/" else b"x") for n in names))
    )

    assert {"a": None, "a/b": None, "a/b/c.txt": b"x", "a/d": None, "a/d/e.txt": b"x"} == tree


async def test_nothing_can_be_run(place: Path) -> None:
    """
    Files are plain ones, whatever their archive says of owners' bits; the folder is no secret.
    """
    await unpacked(place, packed(Piece(b"run.sh", attributes=(stat.S_IFREG | 0o7777) << 16)))

    mode = (place / "out" / "site" / "run.sh").stat().st_mode
    assert 0 == mode & 0o7111
    assert 0o700 != stat.S_IMODE((place / "out" / "site").stat().st_mode)


NAMES = [
    *("../evil.txt", "a/../b", "..", ".", "a/.", "./a", "a//b", "", "/", "a//"),
    *("/etc/passwd", "//server/share/a", "C:/a", "C:a", "a:stream"),
    *(
        "a\\b",
        "..\\evil.txt",
        "\\\\server\\share\\a",
        "a\0b",
        "a\nb",
        "a\x1b[2J",
        "a\x7f",
        "a\x85b",
    ),
    *("CON", "con.txt", "NUL.", "nul .txt", "a/Aux", "COM1", "lpt9.a.b", "COM¹", "CONIN$", "prn/a"),
    *("a.", "a ", "a./b", "a /b", "...", 'a"', "a<", "a>", "a|", "a?", "a*"),
    *("a\u202eb", "a\u2066b", "a\u2028b", "a\u2029b", "a\uf03ab"),
    *("a" * 256, "é" * 128, "/".join(["a" * 100] * 6), "/".join("a" * 65)),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_f15_names_that_lead_astray_are_refused(place: Path, name: str) -> None:
    """
    No name leaves the folder, means another thing elsewhere, or cannot be held by some system.
    """
    reason = await refused(place, packed(Piece(b"a.txt"), Piece(name.encode())))

    assert reason.startswith(f"holds {name[:80]!r}"[:-1])
    assert len(reason) < 200


@pytest.mark.parametrize(
    "name", ["CONTENT", "com.txt", "COM10", "nullable", "aux-1", ".a", "a..b", "a\u200db"]
)
async def test_f15_names_that_look_alike_are_not_refused(place: Path, name: str) -> None:
    """
    What only resembles a reserved name, or a way up, is as good as any.
    """
    assert {name: b"some text"} == await unpacked(place, packed(Piece(name.encode())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "a"),
        ("a/", "a/"),
        ("Index.html", "index.HTML"),
        ("caf\xe9", "cafe\u0301"),
        ("CAF\xc9", "cafe\u0301"),
        ("stra\xdfe", "STRASSE"),
        ("\ufb01n", "FIN"),
        ("\uff41/b", "A/c"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a", "a/"),
        ("a/b/c", "a/B/d"),
        ("A/", "a/b"),
    ],
    ids=ascii,
)
async def test_f15_names_that_collide_are_refused(place: Path, one: str, other: str) -> None:
    """
    Two members that some system would put in one place, or one inside the other, are one too many.
    """
    pieces = [Piece(n.encode(), b"" if n.endswith("/") else b"x") for n in (one, other)]
    reason = await refused(place, packed(*pieces))

    assert reason.startswith(f"holds {other!r}, which ")
    assert "twice" in reason or "collides" in reason


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        (b"a", stat.S_IFLNK << 16),
        (b"a", stat.S_IFCHR << 16),
        (b"a", stat.S_IFBLK << 16),
        (b"a", stat.S_IFIFO << 16),
        (b"a", stat.S_IFSOCK << 16),
        (b"a", stat.S_IFDIR << 16),
        (b"a", 0x10),
        (b"a", 0x08),
        (b"a", 0x40),
        (b"a", 0x400),
        (b"a/", stat.S_IFREG << 16),
        (b"a/", stat.S_IFLNK << 16 | 0x10),
    ],
)
async def test_f15_only_plain_files_and_folders_come_out(
    place: Path, name: bytes, attributes: int
) -> None:
    """
    Links, devices and whatever else attributes may call a member are refused.
    """
    reason = await refused(place, packed(Piece(name, b"", attributes=attributes)))

    assert f"holds {name.decode()!r}, which is neither a plain file nor a folder" == reason


@pytest.mark.parametrize(
    "piece",
    [
        Piece(b"caf\xe9", flags=0),
        Piece(b"caf\xe9"),
        Piece(b"caf\xc3\xa9", flags=0, entry={1: 20}),
        Piece(b"a\xed\xa0\x80"),
        Piece(b"a", entry_extra=struct.pack("<2HBL", 0x7075, 6, 1, zlib.crc32(b"a")) + b"b"),
        Piece(b"a", extra=struct.pack("<2HBL", 0x7075, 6, 1, zlib.crc32(b"a")) + b"b"),
    ],
)
async def test_f15_names_that_readers_decode_differently_are_refused(
    place: Path, piece: Piece
) -> None:
    """
    A name is ASCII or marked as UTF-8, and there is no other one beside it.
    """
    assert "name" in await refused(place, packed(piece))


async def test_f15_names_from_unix_need_no_mark(place: Path) -> None:
    """
    Info-ZIP writes UTF-8 there and does not say so.
    """
    name = "größe".encode()

    assert {"größe": b"some text"} == await unpacked(place, packed(Piece(name, flags=0)))


async def test_f15_names_may_be_as_deep_as_any_system_takes(place: Path) -> None:
    """
    A file may be sixty-three folders down.
    """
    deep = "/".join("a" * 64)

    assert b"some text" == (await unpacked(place, packed(Piece(deep.encode()))))[deep]


async def test_f16_too_much_is_refused(place: Path) -> None:
    """
    Members, folders that they bring, bytes and growth are all capped, each cap taken exactly.
    """
    three = packed(*(Piece(b"%d" % n, b"x" * 100) for n in range(3)))
    deep = packed(Piece(b"a/b/c"))
    blank = packed(Piece(b"blank", bytes(2**20 + 1)))
    blanks = [Piece(b"%d" % n, bytes(2**20)) for n in range(17)]

    assert "holds 3 members, more than 2" == await refused(place, three, most_members=2)
    assert "more than 2 files and folders" in await refused(place, deep, most_members=2)
    assert "more than 299 bytes" in await refused(place, three, most_bytes=299)
    assert "more than 200 times" in await refused(place, blank)
    assert "would grow more than 200 times" == await refused(place, packed(*blanks))
    assert len(await unpacked(place, three, most_members=3, most_bytes=300)) == 3
    shutil.rmtree(place / "out" / "site")
    assert len(await unpacked(place, packed(*blanks[1:]))) == 16
    for kept in (deep, blank):
        shutil.rmtree(place / "out" / "site")
        await unpacked(place, kept, most_members=3, most_ratio=2000)


@pytest.mark.parametrize("size", [0, 10, 2**20])
async def test_f16_a_member_that_lies_about_its_size_stops_at_once(place: Path, size: int) -> None:
    """
    A bomb that says it is small is refused when it has shown to be none, and fills no memory.
    """
    bomb = packed(Piece(b"a", size=size, packed=deflated(bytes(50 * 2**20))))
    tracemalloc.start()
    try:
        reason = await refused(place, bomb)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "holds 'a', which is longer than it says" == reason
    assert most < 12 * CHUNK


async def test_f16_overlapping_members_are_refused(place: Path) -> None:
    """
    No two members share a byte, be it a whole one or one quoted inside the other.
    """
    one = Piece(b"a", b"x" * 50, method=0)
    inner = packed(Piece(b"a", b"y"))[: 30 + 1 + len(deflated(b"y"))]
    quoted = Piece(b"b", inner, method=0)
    again = packed(one, Piece(b"b", entry={16: 0}))
    within = packed(quoted, Piece(b"a", b"y", entry={16: 31}))

    assert "does not end where the next one begins" in await refused(place, again)
    assert "does not end where the next one begins" in await refused(place, within)


async def test_f16_memory_does_not_grow_with_the_package(place: Path) -> None:
    """
    A member of some megabytes is inflated and written a piece at a time.
    """
    data = os.urandom(2**20) * 6
    packed_data = zipped({"a": data})
    (place / "in" / "spring.zip").write_bytes(packed_data)
    tracemalloc.start()
    try:
        await unpack_package(place / "in" / "spring.zip", place / "out" / "site")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert data == (place / "out" / "site" / "a").read_bytes()
    assert most < 12 * CHUNK


@pytest.mark.parametrize(
    ("place_in_header", "value"),
    [(0, b"PK\3\5"), (2, 0x802), (2, 0x808), (3, 0), (6, 7), (7, 3), (8, 3)],
)
async def test_f17_two_headers_that_differ_are_refused(
    place: Path, place_in_header: int, value: Any
) -> None:
    """
    A member's own header repeats what the directory says of it.
    """
    bad = packed(Piece(b"b"), Piece(b"a", header={place_in_header: value}))

    assert "holds 'a', which its own header describes otherwise" == await refused(place, bad)


async def test_f17_two_names_for_one_member_are_refused(place: Path) -> None:
    """
    A streaming reader, which believes the header, would find the same name.
    """
    whole = packed(Piece(b"index.html"))
    bad = whole.replace(b"index.html", b"other.html", 1)

    assert "its own header describes otherwise" in await refused(place, bad)


CRC = zlib.crc32(b"some text")
SIZES = (len(deflated(b"some text")), 9)
LATER: dict[int, Any] = {6: 0, 7: 0, 8: 0}
ZIP64 = struct.pack("<2H2Q", 1, 16, 9, SIZES[0])


def wide(start: int, disk: int | None = None) -> bytes:
    """Tell a small member's sizes and its *start* as zip64 does, and a *disk* if there is one."""
    tail = b"" if disk is None else struct.pack("<L", disk)
    return struct.pack("<2H3Q", 1, 24 + len(tail), 9, SIZES[0], start) + tail


def second_name(name: bytes, version: int = 1, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name) if crc is None else crc
    return struct.pack("<2HBL", 0x7075, 5 + len(name), version, crc) + name


@pytest.mark.parametrize("header", [LATER, {}, {6: 0, 7: 0}])
@pytest.mark.parametrize("mark", [b"PK\7\x08", b""])
@pytest.mark.parametrize("sizes", ["<3L", "<L2Q"])
async def test_f17_descriptors_that_agree_are_taken(
    place: Path, header: dict[int, Any], mark: bytes, sizes: str
) -> None:
    """
    Sizes may stand behind a member that was written as a stream.
    """
    descriptor = mark + struct.pack(sizes, CRC, *SIZES)
    piece = Piece(b"a", flags=0x808, header=header, descriptor=descriptor)

    assert {"a": b"some text", "b": b"some text"} == await unpacked(
        place, packed(piece, Piece(b"b"))
    )


@pytest.mark.parametrize(
    "piece",
    [
        Piece(b"a", flags=0x808, header=LATER, descriptor=struct.pack("<3L", CRC, *SIZES[::-1])),
        Piece(b"a", flags=0x808, header=LATER, descriptor=struct.pack("<3L", 0, *SIZES)),
        Piece(b"a", flags=0x808, header=LATER, descriptor=b"x" * 12),
        Piece(b"a", flags=0x808, header=LATER),
        Piece(b"a", descriptor=struct.pack("<3L", CRC, *SIZES)),
        Piece(b"a", header=LATER),
        *(
            Piece(b"a", flags=0x808, header=header, descriptor=struct.pack("<3L", CRC, *SIZES))
            for header in ({6: 1}, {**LATER, 7: 1}, {**LATER, 8: 1})
        ),
    ],
)
async def test_f17_descriptors_that_do_not_agree_are_refused(place: Path, piece: Piece) -> None:
    """
    What stands behind a member is what the directory says, or nothing.
    """
    await refused(place, packed(piece, Piece(b"b")))


def wide_end(data: bytes, **wrong: int) -> bytes:
    """Give an archive the end records of zip64, with some of their numbers wrong."""
    _, _, _, here, count, length, start, _ = struct.unpack("<4s4H2LH", data[-22:])
    said = {"size": 44, "count": count, "start": start, "at": start + length, "disks": 1} | wrong
    record = struct.pack(
        "<4sQ2H2L4Q",
        b"PK\6\6",
        said["size"],
        45,
        45,
        0,
        0,
        here,
        said["count"],
        length,
        said["start"],
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", wrong.get("disk", 0), said["at"], said["disks"])
    small = wrong.get("small", start)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, here, count, length, small, 0)
    return data[:-22] + record + locator + end


async def test_f17_zip64_that_agrees_is_taken(place: Path) -> None:
    """
    The wide numbers may be there, needed or not, as long as there is one truth.
    """
    tree = {"a": b"some text"}
    told = {7: LARGEST, 8: LARGEST}
    for data in (
        packed(Piece(b"a", extra=ZIP64, header=told)),
        packed(Piece(b"a", extra=ZIP64)),
        packed(Piece(b"a", entry_extra=ZIP64, entry={8: LARGEST, 9: LARGEST})),
        wide_end(packed(Piece(b"a"))),
        wide_end(packed(Piece(b"a")), small=LARGEST),
    ):
        assert tree == await unpacked(place, data)
        shutil.rmtree(place / "out" / "site")


@pytest.mark.parametrize(
    "data",
    [
        packed(Piece(b"a", extra=struct.pack("<2H2Q", 1, 16, 9, 12))),
        packed(Piece(b"a", extra=ZIP64, header={7: LARGEST})),
        packed(Piece(b"a", entry_extra=struct.pack("<2H2Q", 1, 16, 9, 12))),
        packed(Piece(b"a", entry_extra=ZIP64, entry={8: LARGEST})),
        packed(Piece(b"a", entry_extra=wide(0, 1), entry={8: LARGEST, 9: LARGEST})),
        packed(Piece(b"a", entry_extra=wide(1), entry={8: LARGEST, 9: LARGEST})),
        packed(
            Piece(
                b"a",
                b"",
                method=0,
                entry_extra=struct.pack("<2HQ", 1, 8, 0),
                entry={8: LARGEST, 9: LARGEST},
            )
        ),
        packed(Piece(b"a", entry={9: LARGEST})),
        packed(Piece(b"a", entry_extra=ZIP64 + ZIP64, entry={8: LARGEST, 9: LARGEST})),
        packed(Piece(b"a", entry_extra=b"\1\0\7\0\x09" + bytes(6))),
        packed(
            Piece(b"a", entry_extra=struct.pack("<2H3Q", 1, 24, 2**64 - 1, 2**64 - 1, 2**64 - 1))
        ),
        packed(
            Piece(
                b"a",
                entry_extra=struct.pack("<2HQ", 1, 8, 2**64 - 1),
                entry={16: LARGEST},
            )
        ),
        packed(Piece(b"a", entry_extra=struct.pack("<2HQ", 1, 8, 2**64 - 1), entry={8: LARGEST})),
        *(
            wide_end(packed(Piece(b"a")), **wrong)
            for wrong in (
                {"size": 45},
                {"count": 2},
                {"start": 1},
                {"start": 1, "small": LARGEST},
                {"small": 0},
                {"at": 0},
                {"disks": 2},
                {"disk": 1},
            )
        ),
    ],
)
async def test_f17_zip64_that_contradicts_is_refused(place: Path, data: bytes) -> None:
    """
    Of two numbers for one thing none is chosen.
    """
    await refused(place, data)


def stored_blocks(size: int) -> bytes:
    """Write so many bytes of deflated data that are a whole."""
    blocks = b""
    while left := size - len(blocks):
        length = min(left, 65540) - 5
        blocks += struct.pack("<B2H", left <= 65540, length, 65535 - length) + bytes(length)
    return blocks


WHOLE = packed(Piece(b"a"), Piece(b"b"))
BEGINS, ENDS = WHOLE.index(b"PK\1\2"), len(WHOLE) - 22


def ending(*numbers: int) -> bytes:
    return WHOLE[:ENDS] + struct.pack("<4s4H2LH", b"PK\5\6", *numbers)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is no whole zip archive"),
        (b"<html>not yours</html>" * 9, "is no whole zip archive"),
        (b"PK\5\6", "is no whole zip archive"),
        (b"MZ" + WHOLE, "not where its end says"),
        (WHOLE + b"\n", "bytes after its end"),
        (WHOLE + WHOLE, "not where its end says"),
        (WHOLE + b"x" * 70000, "no whole zip archive"),
        (WHOLE[:-2] + b"\xff\xff" + b"c" * 65534, "bytes after its end"),
        (WHOLE[:-2] + b"\xff\xff" + b"c" * 65536, "no whole zip archive"),
        (WHOLE[:-2] + b"\x16\0" + WHOLE[-22:], "not where its end says"),
        (ending(0, 0, 2, 2, ENDS - BEGINS, BEGINS + 1, 0), "not where its end says"),
        (ending(0, 0, 2, 2, ENDS - BEGINS - 1, BEGINS + 1, 0), "cannot be read"),
        (ending(0, 0, 1, 1, ENDS - BEGINS, BEGINS, 0), "another length"),
        (ending(0, 0, 3, 3, ENDS - BEGINS, BEGINS, 0), "is cut off"),
        (ending(0, 0, 1, 2, ENDS - BEGINS, BEGINS, 0), "not where its end says"),
        (ending(1, 1, 2, 2, ENDS - BEGINS, BEGINS, 0), "not where its end says"),
        (ending(0, 1, 2, 2, ENDS - BEGINS, BEGINS, 0), "not where its end says"),
        (packed(Piece(b"a"), Piece(b"b"), between=b"x"), "does not end where the next"),
        (packed(Piece(b"a", entry={16: 1})), "bytes before its first"),
        (packed(Piece(b"a", entry={13: 1})), "another archive"),
        (packed(Piece(b"a", entry={12: 9})), "another length"),
        (packed(Piece(b"a", entry={12: 99})), "is cut off"),
        (packed(Piece(b"a", entry={2: 64})), "a newer reader"),
        (packed(Piece(b"a", flags=0x801)), "encrypted"),
        (packed(Piece(b"a", flags=0x840)), "encrypted"),
        (packed(Piece(b"a", flags=0x2800)), "encrypted"),
        (packed(Piece(b"a", flags=0x820)), "an unknown way"),
        (packed(Piece(b"a", flags=0x8800)), "an unknown way"),
        (packed(Piece(b"a", method=12)), "an unknown way"),
        (packed(Piece(b"a", method=14)), "an unknown way"),
        (packed(Piece(b"a", crc=1)), "holds 'a', which is damaged"),
        (packed(Piece(b"a", method=0, crc=1)), "holds 'a', which is damaged"),
        (packed(Piece(b"a", size=10)), "holds 'a', which is damaged"),
        (packed(Piece(b"a", size=8)), "longer than it says"),
        (packed(Piece(b"a", method=0, size=8)), "contradict"),
        (packed(Piece(b"a", packed=deflated(b"some text")[:-1])), "is cut off"),
        (packed(Piece(b"a", packed=deflated(b"some text") + b"x")), "bytes after its end"),
        (packed(Piece(b"a", packed=deflated(b"some text") + b"x" * 2**20)), "bytes after its end"),
        (
            packed(Piece(b"a", bytes(CHUNK - 20), packed=stored_blocks(CHUNK) + b"x")),
            "bytes after its end",
        ),
        (packed(Piece(b"a", packed=b"\xff" * 9)), "is damaged"),
        (packed(Piece(b"a", packed=b"")), "is cut off"),
        (packed(Piece(b"a/", b"x")), "a folder with contents"),
        (packed(Piece(b"a/", b"", packed=deflated(b"x"))), "longer than it says"),
        (packed(Piece(b"a", extra=b"\1")), "broken extra fields"),
        (packed(Piece(b"a", entry_extra=b"ab\xff\0c")), "broken extra fields"),
    ],
)
async def test_f17_what_two_readers_could_take_differently_is_refused(
    place: Path, data: bytes, reason: str
) -> None:
    """
    Every byte belongs to a member, the directory or its end; what a member holds is all there.
    """
    assert reason in await refused(place, data)


STAMP = struct.pack("<2HBL", 0x5455, 5, 1, 1_700_000_000)
UMLAUT = "größe".encode()


@pytest.mark.parametrize(
    ("data", "names"),
    [
        pytest.param(
            packed(
                Piece(
                    b"a",
                    flags=8,
                    header={6: 0, 7: 0},
                    descriptor=b"PK\7\x08" + struct.pack("<3L", CRC, *SIZES),
                )
            ),
            "a",
            id="Info-ZIP to a pipe",
        ),
        pytest.param(
            packed(Piece(UMLAUT, extra=second_name(UMLAUT), entry_extra=second_name(UMLAUT))),
            "größe",
            id="JSZip",
        ),
        pytest.param(
            packed(Piece(b"a", entry_extra=wide(0), entry={8: LARGEST, 9: LARGEST})),
            "a",
            id="Go",
        ),
        pytest.param(
            packed(
                Piece(
                    b"a",
                    entry_extra=wide(0, disk=0),
                    entry={8: LARGEST, 9: LARGEST, 16: LARGEST},
                )
            ),
            "a",
            id="zip64 that tells the disk",
        ),
        pytest.param(
            packed(Piece(b"a", extra=STAMP * 2, entry_extra=STAMP * 2)), "a", id="two timestamps"
        ),
        *(
            pytest.param(
                packed(Piece(b"a", method=0, extra=STAMP + bytes(n))), "a", id=f"zipalign, {n}"
            )
            for n in (1, 3, 4, 7)
        ),
        pytest.param(packed(Piece(b"a", entry={2: 0x314})), "a", id="a system beside the version"),
        pytest.param(WHOLE[:-2] + b"\5\0hello", "ab", id="a comment"),
        pytest.param(WHOLE[:-2] + b"\xff\xff" + b"c" * 65535, "ab", id="a long comment"),
        pytest.param(packed(), "", id="nothing"),
    ],
)
@one_backend
async def test_what_ordinary_writers_write_is_taken(place: Path, data: bytes, names: str) -> None:
    """
    What is unusual and has one meaning only comes out.
    """
    known = [names] if len(names) > 2 else names

    assert dict.fromkeys(known, b"some text") == await unpacked(place, data)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (second_name(b"b"), "a second name"),
        (second_name(b"a", version=2), "a second name"),
        (second_name(b"a", crc=1), "a second name"),
        (second_name(b"a") * 2, "broken extra fields"),
        (bytes(3) + b"\1", "broken extra fields"),
    ],
)
@one_backend
async def test_f17_fields_that_others_may_read_are_read_strictly(
    place: Path, extra: bytes, reason: str
) -> None:
    """
    Of a field that is known nothing is overlooked, in the header as in the directory.
    """
    assert reason in await refused(place, packed(Piece(b"a", extra=extra)))
    assert reason in await refused(place, packed(Piece(b"a", entry_extra=extra)))


@pytest.mark.parametrize("number", [2**32, 2**63 - 1, 2**63, 2**64 - 1])
@one_backend
async def test_f17_numbers_beyond_the_file_are_refused(place: Path, number: int) -> None:
    """
    However large the numbers that lead out of an archive, they are refused before they are used.
    """
    sizes = struct.pack("<2H2Q", 1, 16, 9, number)
    told = {7: LARGEST, 8: LARGEST}
    long = Piece(b"a", extra=sizes, entry_extra=sizes, header=told, entry={8: LARGEST, 9: LARGEST})
    after = struct.pack("<2HQ", 1, 8, min(number + 51, 2**64 - 1))
    beyond = Piece(b"b", entry_extra=after, entry={16: LARGEST})

    assert "before the directory" in await refused(place, packed(long, beyond))
    assert "before the directory" in await refused(place, packed(Piece(b"a"), beyond))


def test_f17_descriptors_of_large_members_are_wide(tmp_path: Path) -> None:
    """
    What comes to more than 4 GiB is told in eight bytes, and is looked into then.
    """
    size = 5 * 2**30
    sizes = struct.pack("<2H2Q", 1, 16, size, SIZES[0])
    piece = Piece(
        b"a",
        flags=0x808,
        extra=sizes,
        entry_extra=sizes,
        header={7: LARGEST, 8: LARGEST},
        entry={8: LARGEST, 9: LARGEST},
        descriptor=struct.pack("<L2Q", CRC, SIZES[0], size),
    )
    (tmp_path / "spring.zip").write_bytes(packed(piece))

    with pytest.raises(DownloadError, match="holds 'a', which is damaged"):
        check(tmp_path / "spring.zip")


def small() -> bytes:
    """Write an archive that has some of everything."""
    stream = Piece(
        b"c.txt",
        flags=0x808,
        header=LATER,
        descriptor=b"PK\7\x08" + struct.pack("<3L", CRC, *SIZES),
    )
    extra = struct.pack("<2HBL", 0x5455, 5, 1, 1_700_000_000)
    stored = Piece("ü".encode(), b"\0\1\2", method=0, extra=extra, entry_extra=extra)
    return packed(stored, Piece(b"d/", b"", method=0, attributes=0x10), Piece(b"d/e"), stream)


def as_zipfile_reads(data: bytes) -> Tree:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {
            info.filename.rstrip("/"): None if info.is_dir() else archive.read(info)
            for info in archive.infolist()
        }


@one_backend
async def test_f17_a_flipped_byte_is_refused_or_changes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whichever byte is wrong, what comes out is what went in, or nothing at all.
    """
    monkeypatch.setattr(os, "fsync", lambda file: None)  # thousands of them take their time
    good = small()
    whole = as_zipfile_reads(good)
    assert whole == await unpacked(place, good)
    shutil.rmtree(place / "out" / "site")
    for at in range(len(good)):
        for wrong in (1 << at % 8, 255):
            try:
                assert whole == await unpacked(place, flipped(good, at, wrong))
            except DownloadError:
                assert [] == os.listdir(place / "out")
            else:
                shutil.rmtree(place / "out" / "site")

    assert {"in", "out"} == set(os.listdir(place))


def flipped(data: bytes, at: int, wrong: int) -> bytes:
    return data[:at] + bytes([data[at] ^ wrong]) + data[at + 1 :]


def test_f17_a_flipped_bit_is_refused_or_read_alike(tmp_path: Path) -> None:
    """
    Only dates, versions and permissions, about which nobody asks, may be wrong.
    """
    good = small()
    whole = as_zipfile_reads(good)
    path = tmp_path / "flipped.zip"
    taken = 0
    for at, bit in product(range(len(good)), range(8)):
        path.write_bytes(flipped(good, at, 1 << bit))
        with suppress(DownloadError):
            check(path)
            assert whole == as_zipfile_reads(path.read_bytes())
            taken += 1

    assert 0 < taken < 0.25 * 8 * len(good)


@one_backend
@pytest.mark.parametrize("good", [small(), zipped(SITE), wide_end(WHOLE)], ids=len)
async def test_f17_a_package_that_is_cut_off_is_refused(place: Path, good: bytes) -> None:
    """
    Wherever a package ends too early, nothing of it comes out.
    """
    for size in range(len(good)):
        await refused(place, good[:size])


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, len(small()) - 1), st.binary(min_size=1, max_size=8)), max_size=4
    )
)
def test_f17_what_is_taken_is_what_others_read(
    tmp_path_factory: pytest.TempPathFactory, patches: list[tuple[int, bytes]]
) -> None:
    """
    However an archive is written over, it is refused, or `zipfile` agrees about every byte.
    """
    data = bytearray(small())
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / "patched.zip"
    path.write_bytes(data)
    try:
        check(path)
    except DownloadError:
        return
    assert as_zipfile_reads(small()) == as_zipfile_reads(bytes(data))


async def test_f11_a_package_is_checked_without_being_written(place: Path) -> None:
    """
    Checking reads every member, names whom it is told to name, and leaves nothing.
    """
    path = place / "in" / "spring.zip"
    path.write_bytes(zipped(SITE))
    check(path, "fxh4k89")
    path.write_bytes(packed(Piece(b"a"), Piece(b"b", crc=1)))
    with pytest.raises(DownloadError) as caught:
        check(path, "fxh4k89")

    assert "the package fxh4k89 holds 'b', which is damaged" == str(caught.value)
    assert {"in": None, "in/spring.zip": path.read_bytes(), "out": None} == on_disk(place)


@pytest.mark.parametrize(
    "data",
    [
        packed(*(Piece(b"%d" % n, b"", method=0) for n in range(10_001))),
        packed(*map(Piece, (b"aux.html", b"12:30.txt", b"a.woff?v=1", b"A", b"a"))),
        packed(Piece(b"caf\xe9", flags=0), Piece(b"a" * 600), Piece(b"a/" * 100)),
        packed(Piece(b"blank.bmp", bytes(3 * 2**20))),
        packed(Piece(b"link", attributes=stat.S_IFLNK << 16)),
    ],
    ids=["many", "names", "strange names", "blank", "link"],
)
@one_backend
async def test_f11_a_package_may_be_kept_that_may_not_be_unpacked(place: Path, data: bytes) -> None:
    """
    Whoever only saves a package asks whether it is whole, and nothing about names and kinds.
    """
    await refused(place, data)

    check(place / "in" / "spring.zip")


def test_f16_a_check_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    There are caps beyond which a package is not even read.
    """
    path = tmp_path / "spring.zip"
    path.write_bytes(WHOLE)
    for cap, enough in (("MOST_MEMBERS_CHECKED", 2), ("MOST_BYTES_CHECKED", 18)):
        with monkeypatch.context() as patch:
            patch.setattr(room, cap, enough)
            check(path)
            patch.setattr(room, cap, enough - 1)
            with pytest.raises(DownloadError, match=f"more than {enough - 1}"):
                check(path)
    monkeypatch.setattr(layout, "_LONGEST_DIRECTORY", 10)
    with pytest.raises(DownloadError, match="a directory of more than 10 bytes"):
        check(path)


@real_threads
async def test_f19_a_check_is_left_at_once() -> None:
    """
    Steps that go on and on are given up between two of them.
    """
    left: list[str] = []

    def endless() -> Generator[None]:
        try:
            while True:
                time.sleep(0.001)
                yield
        finally:
            left.append("the work")

    before = time.monotonic()
    with anyio.move_on_after(0.01) as scope:
        await _blocking.in_steps(endless())

    assert scope.cancelled_caught
    assert ["the work"] == left
    assert time.monotonic() < before + 1


def disk_with(room_left: int, error: int) -> Callable[[Any, str], IO[bytes]]:
    """Open files on a disk that takes so many bytes, and then fails."""
    left = room_left

    class Failing(io.FileIO):
        def write(self, chunk: Any) -> int:
            nonlocal left
            left -= len(chunk)
            if left < 0:
                raise OSError(error, os.strerror(error))
            return super().write(chunk)

    def opened(path: Any, mode: str) -> IO[bytes]:
        return open(path, mode) if mode == "rb" else cast(IO[bytes], Failing(path, mode))

    return opened


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("room_left", [0, 1000])
async def test_f12_a_disk_that_fails_is_told_and_cleared(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: int, room_left: int
) -> None:
    """
    What the system says of its disk is passed on, and what was written is gone.
    """
    monkeypatch.setattr(room, "open", disk_with(room_left, error), raising=False)

    assert f"could not be written: {os.strerror(error)}" == await refused(place, zipped(SITE))


@one_backend
@pytest.mark.parametrize("room_left", [0, 60, 2000])
async def test_f12_a_disk_that_cannot_be_read_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, room_left: int
) -> None:
    """
    It is said whether reading failed or writing, as these may be two disks.
    """

    class Failing(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal room_left
            room_left -= size or 0
            if room_left < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(-1 if size is None else size) or b""

    monkeypatch.setattr(room, "open", Failing, raising=False)

    assert f"could not be read: {os.strerror(errno.EIO)}" == await refused(place, zipped(SITE))


async def test_f12_a_file_that_cannot_be_kept_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A file counts when it is on the disk.
    """

    def failing(file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)

    assert os.strerror(errno.EIO) in await refused(place, zipped(SITE))


async def misplaced(path: object, folder: object, **caps: Any) -> str:
    """Tell which argument is at fault, and why."""
    with pytest.raises(InvalidArgumentError) as caught:
        await unpack_package(cast(Path, path), cast(Path, folder), **caps)
    return str(caught.value)


@pytest.mark.parametrize(
    ("folder", "named", "problem"),
    [
        ("x" * 300, "x" * 300, errno.ENAMETOOLONG),
        ("missing/site", "missing", errno.ENOENT),
        ("file/site", "file/site", errno.ENOTDIR),
    ],
)
async def test_f12_a_folder_that_cannot_be_is_told(
    place: Path, folder: str, named: str, problem: int
) -> None:
    """
    A name that is too long, or has nothing above it, is the system's to refuse.
    """
    (place / "out" / "file").touch()
    (place / "in" / "spring.zip").write_bytes(zipped(SITE))
    told = await misplaced(place / "in" / "spring.zip", place / "out" / folder)

    assert f"folder: '{place / 'out' / named}' cannot be used: {os.strerror(problem)}" == told
    assert ["file"] == os.listdir(place / "out")


async def test_f12_a_folder_above_that_cannot_be_written_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The folder above is named, as it is another place than the archive's.
    """

    def forbidden(**options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(room, "TemporaryDirectory", forbidden)
    (place / "in" / "spring.zip").write_bytes(WHOLE)

    assert (
        f"folder: '{place / 'out'}' cannot be used: {os.strerror(errno.EACCES)}"
        == await misplaced(place / "in" / "spring.zip", place / "out" / "site")
    )


async def test_f12_an_archive_that_cannot_be_read_is_told(place: Path) -> None:
    """
    An archive that is not there, is a folder or a pipe, is told at once.
    """
    os.mkfifo(place / "in" / "pipe")
    for name, problem in (
        ("none", "could not be read: No such file or directory"),
        ("", "is no regular file"),
        ("pipe", "is no regular file"),
    ):
        path = place / "in" / name
        assert f"path: '{path}' {problem}" == await misplaced(path, place / "out" / "site")

    assert [] == os.listdir(place / "out")


@one_backend
async def test_paths_that_no_system_has_are_refused(place: Path) -> None:
    """
    Whatever is no path in text is told before anything is done.
    """
    for wrong in (None, 5, b"spring.zip", "a\0b", "a\ud800b"):
        assert (await misplaced(wrong, place)).startswith("path: give a path in text")
        assert (await misplaced(place, wrong)).startswith("folder: give a path in text")


@pytest.mark.parametrize("cap", ["most_members", "most_bytes", "most_ratio"])
@one_backend
async def test_caps_that_are_no_numbers_are_refused(place: Path, cap: str) -> None:
    """
    A cap that nothing can be compared with is told before anything is done.
    """
    for wrong in (None, "5", -1, True, float("nan"), float("inf"), 10**400):
        told = await misplaced(place, place, **{cap: wrong})
        assert f"{cap}: give a finite number, at least 0" == told


@pytest.mark.parametrize("kind", ["file", "full folder", "link", "dangling link"])
async def test_f13_what_is_there_already_is_left_alone(place: Path, kind: str) -> None:
    """
    Whatever is at the folder's place stays as it is, and the archive is not even looked at.
    """
    folder = place / "out" / "site"
    if kind == "file":
        folder.write_bytes(b"mine")
    elif kind == "full folder":
        folder.mkdir()
        (folder / "mine").touch()
    else:
        folder.symlink_to(place / "in" if kind == "link" else "nowhere")
    (place / "in" / "spring.zip").write_bytes(b"no zip at all")
    before = on_disk(place)

    assert f"folder: '{folder}' is no empty folder" == await misplaced(
        place / "in" / "spring.zip", folder
    )
    assert before == on_disk(place)


async def test_f13_an_empty_folder_is_replaced(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A folder that was made for the package keeps its permissions, and a refusal leaves it.
    """
    monkeypatch.chdir(place / "out")
    folder = place / "out" / "site"
    folder.mkdir(mode=0o750)
    before = folder.stat()
    path = place / "in" / "spring.zip"
    path.write_bytes(packed(Piece(b"a", crc=1)))
    with pytest.raises(DownloadError):
        await unpack_package(path, folder)
    assert before == folder.stat()
    path.write_bytes(zipped(SITE))

    assert Path("site") == await unpack_package(str(path), "site")
    assert on_disk(folder) == SITE
    assert before.st_mode == folder.stat().st_mode
    assert ["site"] == os.listdir(place / "out")


async def test_f13_a_folder_that_cannot_be_replaced_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever stands in a folder keeps it, as does a mounted disk, and nothing is written first.
    """
    (place / "in" / "spring.zip").write_bytes(b"no zip at all")
    folder = place / "out"
    monkeypatch.chdir(folder)
    for name in (".", folder, "../out"):
        assert "is the current folder" in await misplaced(place / "in" / "spring.zip", name)
    monkeypatch.chdir(place)
    monkeypatch.setattr(os.path, "ismount", lambda path: path == folder)

    assert "is a mount point" in await misplaced(place / "in" / "spring.zip", folder)
    assert [] == os.listdir(folder)


async def test_f13_a_folder_that_fills_up_meanwhile_is_left_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of two who unpack to one folder the second is told so.
    """

    def late(root: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "theirs").touch()
        publish(root, folder)

    publish = room._publish
    monkeypatch.setattr(room, "_publish", late)
    with pytest.raises(DownloadError):
        await unpacked(place, zipped(SITE))

    assert {"site": None, "site/theirs": b""} == on_disk(place / "out")


async def test_f13_what_is_half_written_is_private_and_says_what_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Until all is there, it is in a folder beside the target that nobody else can enter.
    """
    seen: list[tuple[str, int]] = []

    def noted(root: Path, folder: Path) -> None:
        assert not folder.exists()
        assert on_disk(root) == SITE
        (name,) = os.listdir(place / "out")
        seen.append((name, stat.S_IMODE((place / "out" / name).stat().st_mode)))
        publish(root, folder)

    publish = room._publish
    monkeypatch.setattr(room, "_publish", noted)
    await unpacked(place, zipped(SITE))

    ((name, mode),) = seen
    assert name.startswith(".flipsnack-unpacking-")
    assert 0o700 == mode


async def test_f14_all_is_on_the_disk_before_it_appears(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After a power cut there is the whole folder or none: each file, each folder, then the name.
    """
    before: dict[int, int] = {}
    after: dict[int, int] = {}

    def noting(file: int) -> None:
        known = after if (place / "out" / "site").exists() else before
        fsync(file)
        known[os.fstat(file).st_ino] = os.fstat(file).st_size

    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", noting)
    await unpacked(place, zipped(SITE))

    site = place / "out" / "site"
    for path in (site, *site.rglob("*")):
        assert before[path.stat().st_ino] == path.stat().st_size
    assert [(place / "out").stat().st_ino] == list(after)


async def test_f14_what_a_kill_left_behind_is_swept(place: Path) -> None:
    """
    What nobody has worked on for an hour is removed, and nothing else.
    """
    for name, age in (
        (".flipsnack-unpacking-old", 3700),
        (".flipsnack-unpacking-new", 3500),
        ("flipsnack-unpacking-mine", 9999),
    ):
        folder = place / "out" / name
        (folder / "package" / "a").mkdir(parents=True)
        (folder / "package" / "a" / "b").touch()
        os.utime(folder, (time.time() - age,) * 2)
    (place / "in" / "spring.zip").write_bytes(zipped(SITE))
    await unpack_package(place / "in" / "spring.zip", place / "out" / "site")

    assert {".flipsnack-unpacking-new", "flipsnack-unpacking-mine", "site"} == set(
        os.listdir(place / "out")
    )
    assert on_disk(place / "out" / "site") == SITE


@one_backend
async def test_f14_who_works_is_not_swept_away(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Each step shows that somebody is there, however long all of them take.
    """
    ages: list[float] = []

    def slow(file: Any, member: Any) -> Iterator[bytes]:
        (temporary,) = (place / "out").iterdir()
        for chunk in contents(file, member):
            ages.append(time.time() - temporary.stat().st_mtime)
            os.utime(temporary, (0, 0))
            yield chunk

    monkeypatch.setattr(room, "contents", slow)
    await unpacked(place, zipped({"a": os.urandom(3 * CHUNK), "b": b"x"}))

    assert len(ages) > 3
    assert max(ages) < 60


@one_backend
async def test_f14_who_was_swept_away_publishes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever slept for an hour finds his work gone, and never half of it.
    """

    def late(root: Path, folder: Path) -> None:
        monkeypatch.setattr(room, "_publish", publish)
        os.utime(root.parent, (0, 0))
        for _ in room._unpacking(place / "in" / "spring.zip", place / "out" / "other", CAPS):
            pass
        publish(root, folder)

    publish = room._publish
    monkeypatch.setattr(room, "_publish", late)
    with pytest.raises(DownloadError, match=os.strerror(errno.ENOENT)):
        await unpacked(place, zipped(SITE))

    assert ["other"] == os.listdir(place / "out")
    assert on_disk(place / "out" / "other") == SITE


@real_threads
async def test_f19_cancelled_anywhere_it_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whichever step a cancellation finds it in, there is the whole folder or no trace.
    """
    off_the_loop = _blocking.off_the_loop
    data = zipped({"a": os.urandom(3 * CHUNK), "b/c": b"x"})

    async def is_cut(last: int) -> bool:
        steps = 0

        async def cut(function: Callable[..., Any], *args: object) -> Any:
            nonlocal steps
            steps += 1
            if steps == last:
                scope.cancel()
            return await off_the_loop(function, *args)

        monkeypatch.setattr(_blocking, "off_the_loop", cut)
        monkeypatch.setattr(_blocking, "A_WHILE", 0)
        with anyio.CancelScope() as scope:
            await unpacked(place, data)
        return scope.cancelled_caught

    last = 1
    while await is_cut(last):
        assert [] == os.listdir(place / "out")
        last += 1

    assert last > 6
    assert ["site"] == os.listdir(place / "out")


@real_threads
async def test_e7_the_loop_never_waits_for_the_disk(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    All that opens, inflates, writes, syncs and clears is done in other threads.
    """
    threads: set[int] = set()

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            threads.add(threading.get_ident())
            return function(*args, **options)

        return noted

    data = zipped(SITE)
    (place / "in" / "spring.zip").write_bytes(data)
    for module, name in ((os, "fsync"), (os, "stat"), (os, "lstat"), (os, "rmdir"), (os, "mkdir")):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    monkeypatch.setattr(room, "open", noting(open), raising=False)
    monkeypatch.setattr(room, "contents", noting(contents))
    await unpack_package(place / "in" / "spring.zip", place / "out" / "site")

    assert threads
    assert threading.get_ident() not in threads


def test_f19_a_native_cancellation_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A cancellation past every scope of anyio waits for its thread before it clears up.
    """
    writing, go_on = threading.Event(), threading.Event()

    def slow(file: Any, member: Any) -> Iterator[bytes]:
        for chunk in contents(file, member):
            writing.set()
            go_on.wait(10)
            yield chunk

    async def cancel() -> None:
        task = asyncio.create_task(unpacked(place, zipped(SITE)))
        await asyncio.to_thread(writing.wait, 10)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(room, "contents", slow)
    asyncio.run(cancel())

    assert [] == os.listdir(place / "out")


def test_f19_a_native_cancellation_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A thread that nobody waits for any more takes no further step.
    """
    working, go_on = threading.Event(), threading.Event()
    taken: list[int] = []

    def steps() -> Generator[None]:
        for step in range(100):
            taken.append(step)
            working.set()
            go_on.wait(10)
            yield

    async def cancel() -> None:
        task = asyncio.create_task(_blocking.in_steps(steps()))
        await asyncio.to_thread(working.wait, 10)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(_blocking, "A_WHILE", 60)
    asyncio.run(cancel())

    assert [0] == taken
