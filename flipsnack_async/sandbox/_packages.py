"""Packages: zip files of any size that take no room, and say the same at every reading."""

import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b, shake_128
from html import escape
from itertools import accumulate

# A fixed date: the same collection is the same bytes at every download.
_WRITTEN = (2025, 1, 1, 0, 0, 0)
_PAGE_COUNT = 8
# A prime: whoever joins ranges at the wrong place does not meet the same bytes there.
_BLOCK_SIZE = 65521


class Package:
    """A zip file as a row of pieces, most of them one and the same object."""

    def __init__(self, pieces: Sequence[bytes], etag: str) -> None:
        self.etag = etag
        self._pieces = pieces
        self._ends = list(accumulate(map(len, pieces)))

    @property
    def size(self) -> int:
        return self._ends[-1]

    def read(self, span: range) -> Iterator[bytes]:
        """Yield the bytes at the positions of *span*, at most a block at a time."""
        position, index = span.start, bisect_right(self._ends, span.start)
        while position < span.stop:
            piece = self._pieces[index]
            skipped = position - (self._ends[index] - len(piece))
            chunk = piece[skipped : skipped + span.stop - position]
            yield chunk
            position += len(chunk)
            index += 1


@lru_cache(maxsize=32)
def make_package(name: str, title: str, size: int | None) -> Package:
    """
    Make a package of *size* bytes: a page of HTML, and made-up pictures of its pages.

    It is larger where these need more, and the page alone without a *size*.
    """
    source = f"{name}/{size}/{title}".encode()
    etag = f'"{blake2b(source, digest_size=8).hexdigest()}"'
    heading = escape(title)
    page = f"<!doctype html><meta charset=utf-8><title>{heading}</title><h1>{heading}</h1>\n"
    if size is None:
        return Package(_zipped(page), etag)
    paths = [f"pages/{number}.jpg" for number in range(1, _PAGE_COUNT + 1)]
    page += "".join(f"<img src={path}>\n" for path in paths)
    block = shake_128(source).digest(_BLOCK_SIZE)
    least = sum(map(len, _zipped(page, paths)))
    return Package(_zipped(page, paths, block, max(size - least, 0)), etag)


class _Pieces(list[bytes]):
    """A file that keeps what is written to it as it comes, without a copy."""

    def write(self, piece: bytes) -> int:
        if piece:
            self.append(piece)
        return len(piece)

    def flush(self) -> None:
        pass


def _zipped(page: str, paths: Sequence[str] = (), block: bytes = b"", total: int = 0) -> _Pieces:
    pieces = _Pieces()
    # A list cannot seek: zipfile then writes each CRC behind what it is of, and never goes back.
    with zipfile.ZipFile(pieces, "w") as archive:  # type: ignore[call-overload]
        archive.writestr(zipfile.ZipInfo("index.html", _WRITTEN), page)
        for number, path in enumerate(paths):
            left = total * (number + 1) // len(paths) - total * number // len(paths)
            # Stored and not deflated: what is written is the block itself.
            with archive.open(zipfile.ZipInfo(path, _WRITTEN), "w") as picture:
                for _ in range(left // _BLOCK_SIZE):
                    picture.write(block)
                picture.write(block[: left % _BLOCK_SIZE])
    return pieces
