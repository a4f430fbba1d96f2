"""
Packages out of their archives: what is not plainly harmless is refused, and nothing repaired.

The work is done in steps, each in a thread. Between two of them it can be
given up, which takes away what it has written.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import BinaryIO, Final

import anyio
from attrs import frozen

from . import _blocking
from ._zip_layout import Member, RefusedError, contents, members, refuse
from .errors import DownloadError

MOST_MEMBERS: Final = 10_000
MOST_BYTES: Final = 4 * 2**30
MOST_RATIO: Final = 200.0

# Text of a few blanks may be small beyond any ratio, and does no harm.
_SMALL: Final = 2**20
_LONGEST_PART: Final = 255
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\]|[. ]$')
_RESERVED: Final = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³]) *(\..*)?", re.IGNORECASE
)


async def unpack(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    most_members: int,
    most_bytes: int,
    most_ratio: float,
) -> Path:
    caps = _Caps(most_members, most_bytes, most_ratio)
    work = _Work(_unpacking(Path(path), Path(folder), caps))
    try:
        while await _blocking.off_the_loop(work.go_on):
            pass
    finally:
        with anyio.CancelScope(shield=True):
            await _blocking.off_the_loop(work.give_up)
    return Path(folder)


def check_package(path: str | os.PathLike[str], subject: str) -> None:
    """Read all of an archive; raises `DownloadError` where it would not be unpacked."""
    with _refusing(subject), _opened(path) as file:
        for member in _safe_members(file, _Caps(MOST_MEMBERS, MOST_BYTES, MOST_RATIO)):
            for _ in contents(file, member):
                pass


@frozen
class _Caps:
    members: int
    bytes: int
    ratio: float


class _Work:
    """
    Hold work that is done in steps.

    A task of asyncio that is cancelled natively does not wait for its thread,
    so giving up waits here until the step is done.
    """

    def __init__(self, steps: Generator[None]) -> None:
        self._steps = steps
        self._in_use = Lock()

    def go_on(self) -> bool:
        """Take a step, and tell whether there was one."""
        with self._in_use:
            return next(self._steps, "done") is None

    def give_up(self) -> None:
        with self._in_use:
            self._steps.close()


def _unpacking(path: Path, folder: Path, caps: _Caps) -> Generator[None]:
    with _refusing(path.name), _opened(path) as file:
        folder = folder.absolute()
        _check_free(folder)
        found = _safe_members(file, caps)
        with TemporaryDirectory(prefix=".flipsnack-unpacking-", dir=folder.parent) as temporary:
            # One below, as the temporary folder is private and the package need not be.
            root = Path(temporary, "package")
            root.mkdir()
            for member in found:
                yield
                yield from _write(file, member, root)
            _publish(root, folder)


def _write(file: BinaryIO, member: Member, root: Path) -> Iterator[None]:
    target = root / member.name
    if member.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        for _ in contents(file, member):
            yield
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb") as out:
        for chunk in contents(file, member):
            out.write(chunk)
            yield
        out.flush()
        os.fsync(out.fileno())


def _publish(root: Path, folder: Path) -> None:
    for place, _, _ in os.walk(root):
        _sync(place)
    if folder.exists():
        shutil.copymode(folder, root)
        if os.name == "nt":
            folder.rmdir()  # there a rename replaces nothing
    root.rename(folder)
    _sync(folder.parent)


def _sync(folder: str | os.PathLike[str]) -> None:
    # Not every system knows how, and the files' own bytes are on the disk by now.
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def _refusing(subject: str) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        raise DownloadError(subject, str(error)) from None
    except OSError as error:
        reason = f"could not be read or written ({error.strerror})"
        raise DownloadError(subject, reason) from error


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    # Looked at first: opening a pipe would wait for somebody to write to it.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise RefusedError("is no regular file")
    with open(path, "rb") as file:
        yield file


def _check_free(folder: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(folder.lstat().st_mode) or any(folder.iterdir()):
            raise RefusedError(f"cannot go to {folder.name!r}, which is no empty folder")


def _safe_members(file: BinaryIO, caps: _Caps) -> list[Member]:
    """List what an archive holds, if it would be the same tree on every system."""
    found = members(file, caps.members)
    _check_sizes(found, caps)
    tree: dict[str, tuple[str, bool]] = {}
    listed: set[str] = set()
    for member in found:
        if member.name in listed:
            refuse(member.name, "is there twice")
        _check_name(member.name)
        _grow(tree, member)
        if len(tree) > caps.members:
            raise RefusedError(f"holds more than {caps.members} files and folders")
        listed.add(member.name)
    return found


def _check_sizes(found: list[Member], caps: _Caps) -> None:
    # No member can become larger than it says here: that is watched while it is inflated.
    if sum(member.size for member in found) > caps.bytes:
        raise RefusedError(f"would come to more than {caps.bytes} bytes")
    for member in found:
        if member.size > max(_SMALL, caps.ratio * member.packed_size):
            refuse(member.name, f"would grow more than {caps.ratio:g} times")


def _check_name(name: str) -> None:
    for part in name.removesuffix("/").split("/"):
        if part in ("", ".", ".."):
            refuse(name, "does not lead plainly into the folder")
        if _FORBIDDEN.search(part) or _RESERVED.fullmatch(part):
            refuse(name, "has a name that some systems cannot hold")
        if len(part.encode()) > _LONGEST_PART:
            refuse(name, "has a name that is too long")


def _grow(tree: dict[str, tuple[str, bool]], member: Member) -> None:
    """Put a member and the folders above it where systems that fold case would have them."""
    name = member.name.removesuffix("/")
    paths = accumulate(name.split("/"), "{}/{}".format)
    places = accumulate(_folded(name).split("/"), "{}/{}".format)
    for place, path in zip(places, paths, strict=True):
        known = (path, member.is_folder or path != name)
        if tree.setdefault(place, known) != known:
            refuse(member.name, f"collides with {tree[place][0]!r}")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
