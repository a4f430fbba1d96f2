"""Bodies that are too much, B20 to B22, on real sockets: what is taken of them is bounded."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cutting import GOOD, Act, answering, saying
from proxy import Pouring, Serve
from test_cuts import CHUNKED, TINY, client, get_stats, head

from flipsnack_async import InvalidAnswerError, UploadOutcomeUnknownError

pytest_plugins = ["instruments"]
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_pauses")]

MEBIBYTE = 2**20


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time, since there are sockets."""
    name: str = request.param
    return name


@contextmanager
def within(mebibytes: int) -> Iterator[None]:
    """See that no more memory than that is taken inside the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mebibytes * MEBIBYTE
    finally:
        tracemalloc.stop()


ENDLESS = {
    "no length": head("Connection: close"),
    "length": head(f"Content-Length: {2**40}"),
    "chunks": CHUNKED + b"%x\r\n" % 2**40,
}


@pytest.mark.parametrize("start", ENDLESS)
async def test_b20_a_body_without_end_takes_little_memory(serve: Serve, start: str) -> None:
    """
    However it is framed: when a body is longer than any answer, it is read no further.
    """
    pouring = Pouring(ENDLESS[start], b" " * 2**16)
    server = serve(pouring)
    began = time.monotonic()
    async with client(server, timeout=20.0, attempts=1) as flipsnack:
        with within(48), pytest.raises(InvalidAnswerError, match="too long"):
            await flipsnack.user.get_stats()

    assert time.monotonic() - began < 20
    assert 8 * MEBIBYTE < pouring.poured < 32 * MEBIBYTE  # a part is in the system's buffers


async def test_b20_an_upload_with_an_endless_answer_is_in_doubt(serve: Serve) -> None:
    """
    What does not end is no answer, so nobody knows what became of the document.
    """
    server = serve(Pouring(ENDLESS["no length"], b" " * 2**16))
    async with client(server, timeout=20.0) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError, match="too long"):
            await flipsnack.collections.create(TINY)

    assert 1 == server.connections


def bomb(mebibytes: int) -> bytes:
    """Write as few bytes as can be that unpack to so many mebibytes, without packing as many."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(MEBIBYTE)
    piece = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(zeros, checksum)
    end = checksum.to_bytes(4, "little") + (mebibytes * MEBIBYTE).to_bytes(4, "little")
    return gzip.compress(b"")[:10] + piece * mebibytes + b"\x03\x00" + end


BOMB = bomb(300)
PACKED = gzip.compress(GOOD)
COMPRESSED: dict[str, Act] = {
    "300 MB in 300 KB": answering(BOMB, "200 OK", "Content-Encoding: gzip"),
    "packed twice": answering(gzip.compress(BOMB), "200 OK", "Content-Encoding: gzip, gzip"),
    "in two headers": answering(BOMB, "200 OK", *["Content-Encoding: gzip"] * 2),
    "with no length": saying(head("Connection: close", "Content-Encoding: gzip") + BOMB),
    "small": answering(PACKED, "200 OK", "Content-Encoding: x-gzip"),
    "not at all": answering(GOOD, "200 OK", "Content-Encoding: br"),
}


def test_b21_the_bomb_is_one() -> None:
    """
    What the tests send unpacks to a thousand times its size.
    """
    unpacker = zlib.decompressobj(31)
    unpacked = 0
    while not unpacker.eof:
        unpacked += len(unpacker.decompress(unpacker.unconsumed_tail or BOMB, MEBIBYTE))

    assert 300 * MEBIBYTE == unpacked
    assert len(BOMB) < 320 * 1024
    assert len(gzip.compress(BOMB)) < 4096


@pytest.mark.parametrize("kind", COMPRESSED)
async def test_b21_nothing_unasked_is_unpacked(serve: Serve, kind: str) -> None:
    """
    An answer that came compressed is refused as it came, and takes no more memory than that.
    """
    server = serve(COMPRESSED[kind])
    async with client(server, attempts=2, timeout=20.0) as flipsnack:
        with within(8), pytest.raises(InvalidAnswerError, match="is compressed"):
            await flipsnack.user.get_stats()

    assert 2 == server.connections


@pytest.mark.parametrize("coded", [True, False])
async def test_b22_a_part_of_a_gzip_is_no_answer(serve: Serve, coded: bool) -> None:
    """
    Wherever compressed bytes break off, said to be compressed or not, they are no answer.
    """
    lines = ["Content-Encoding: gzip"] if coded else []
    cuts = (0, 1, 10, 18, len(PACKED) // 2, len(PACKED) - 8, len(PACKED) - 1, len(PACKED))
    acts = [answering(PACKED[:cut], "200 OK", *lines) for cut in cuts]
    server = serve(*acts, answering())
    async with client(server, attempts=1) as flipsnack:
        for _ in cuts:
            with pytest.raises(InvalidAnswerError) as caught:
                await flipsnack.user.get_stats()
            assert caught.value.field is None
        assert 7 == await get_stats(flipsnack)
