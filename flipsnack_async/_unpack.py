"""
Packages out of their archives: what is not plainly harmless is refused, and nothing repaired.

The work is done in steps. Between two of them it can be given up, which takes
away what it has written.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import time
import unicodedata
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

from attrs import frozen

from . import _blocking, _checks
from ._zip_layout import Member, RefusedError, contents, members, reading, refuse
from .errors import DownloadError, InvalidArgumentError

# Nothing is written by a check, so these only keep it from going on for ever.
MOST_MEMBERS_CHECKED: Final = 100_000
MOST_BYTES_CHECKED: Final = 64 * 2**30

# Text of a few blanks may be small beyond any ratio, and does no harm.
_SMALL: Final = 2**20
_SMALL_IN_ALL: Final = 16 * 2**20
_LONGEST_NAME: Final = 512
_LONGEST_PART: Final = 255
_MOST_PARTS: Final = 64
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_FORBIDDEN: Final = re.compile(
    r'[\x00-\x1f\x7f-\x9f<>:"|?*\\]|[. ]$'
    r"|[\u2028-\u202e\u2066-\u2069]"  # ends of lines, and what turns text round
    r"|[\uf000-\uf0ff]"  # where some systems keep what they cannot hold
)
_UNDECODED: Final = re.compile("[\udc80-\udcff]")
_RESERVED: Final = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³]) *(\..*)?", re.IGNORECASE
)
# A volume's label, a device, a reparse point, as DOS and Windows mark them.
_ODD_ATTRIBUTES: Final = 0x08 | 0x40 | 0x400
_DOS_FOLDER: Final = 0x10

_TEMPORARY: Final = ".flipsnack-unpacking-"
LEFT_BEHIND: Final = 3600.0  # seconds without a step, after which nobody works on a folder


async def unpack(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    most_members: float,
    most_bytes: float,
    most_ratio: float,
) -> Path:
    archive, target = _checks.path("path", path), _checks.path("folder", folder)
    _check_cap("most_members", most_members)
    _check_cap("most_bytes", most_bytes)
    _check_cap("most_ratio", most_ratio)
    caps = _Caps(most_members, most_bytes, most_ratio)
    await _blocking.in_steps(_unpacking(archive, target, caps))
    return target


def checking(path: str | os.PathLike[str], subject: str) -> Generator[None]:
    """
    Read all of an archive, in steps; raises `DownloadError` where it is damaged or ambiguous.

    Names, kinds and growth are no matter of this: they are for whoever unpacks it.
    """
    with _refusing(subject), _opened(path) as file:
        found = yield from members(file, MOST_MEMBERS_CHECKED)
        _check_bytes(found, MOST_BYTES_CHECKED)
        for member in found:
            yield
            for _ in contents(file, member):
                yield


@frozen
class _Caps:
    members: float
    bytes: float
    ratio: float


def _check_cap(field: str, value: object) -> None:
    match value:
        case bool():
            pass
        case int() | float() if 0 <= value <= sys.float_info.max:
            return
    raise InvalidArgumentError(field, "give a finite number, at least 0")


def _unpacking(path: Path, folder: Path, caps: _Caps) -> Generator[None]:
    with _blaming("folder", folder):
        folder = folder.absolute()
        _check_place(folder)
    with _blaming("path", path):
        archive = _opened(path)
    with archive as file, _refusing(path.name):
        found = yield from _safe_members(file, caps)
        with _blaming("folder", folder.parent):
            beside = TemporaryDirectory(prefix=_TEMPORARY, dir=folder.parent)
        with beside as temporary:
            _sweep(Path(temporary))
            # One below, as the temporary folder is private and the package need not be.
            root = Path(temporary, "package")
            root.mkdir()
            for _ in chain.from_iterable(_write(file, member, root) for member in found):
                os.utime(temporary)  # somebody works on it
                yield
            for place, _, _ in os.walk(root):
                _sync(place)
                yield
            _publish(root, folder)


def _sweep(temporary: Path) -> None:
    """Remove what was left behind by a kill."""
    for other in temporary.parent.glob(f"{_TEMPORARY}*"):
        with suppress(OSError):
            if time.time() - other.lstat().st_mtime > LEFT_BEHIND:
                # Nobody who wakes up late can publish what is no longer in its place.
                other.rename(temporary / other.name)
                shutil.rmtree(temporary / other.name)


def _write(file: BinaryIO, member: Member, root: Path) -> Iterator[None]:
    yield
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
        reason = f"could not be written: {error.strerror or 'disk error'}"
        raise DownloadError(subject, reason) from error


@contextmanager
def _blaming(field: str, path: Path) -> Iterator[None]:
    """Turn what is wrong with a path into a word to whoever gave it."""
    try:
        yield
    except RefusedError as error:
        raise InvalidArgumentError(field, f"{str(path)!r} {error}") from None
    except OSError as error:
        problem = f"cannot be used: {error.strerror or 'disk error'}"
        raise InvalidArgumentError(field, f"{str(path)!r} {problem}") from error


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    with reading():
        # Looked at first: opening a pipe would wait for somebody to write to it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise RefusedError("is no regular file")
        return open(path, "rb")


def _check_place(folder: Path) -> None:
    """Refuse a folder that is in use, as it could not be replaced."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(folder.lstat().st_mode) or any(folder.iterdir()):
            raise RefusedError("is no empty folder")
        if folder.samefile("."):
            raise RefusedError("is the current folder; name one below it")
        if os.path.ismount(folder):
            raise RefusedError("is a mount point; name a folder below it")


def _safe_members(file: BinaryIO, caps: _Caps) -> Generator[None, None, list[Member]]:
    """List what an archive holds, if it would be the same tree on every system."""
    found = yield from members(file, caps.members)
    _check_bytes(found, caps.bytes)
    _check_growth(found, caps.ratio)
    tree: dict[str, tuple[str, bool]] = {}
    listed: set[str] = set()
    for member in found:
        if member.name in listed:
            refuse(member.name, "is there twice")
        _check_name(member.name)
        _check_kind(member)
        _grow(tree, member)
        if len(tree) > caps.members:
            raise RefusedError(f"holds more than {caps.members} files and folders")
        listed.add(member.name)
    return found


def _check_bytes(found: list[Member], most: float) -> None:
    # No member can become larger than it says here: that is watched while it is inflated.
    if sum(member.size for member in found) > most:
        raise RefusedError(f"would come to more than {most} bytes")


def _check_growth(found: list[Member], ratio: float) -> None:
    for member in found:
        if member.size > max(_SMALL, ratio * member.packed_size):
            refuse(member.name, f"would grow more than {ratio:g} times")
    packed_size = sum(member.packed_size for member in found)
    if sum(member.size for member in found) > max(_SMALL_IN_ALL, ratio * packed_size):
        raise RefusedError(f"would grow more than {ratio:g} times")


def _check_name(name: str) -> None:
    if _UNDECODED.search(name):
        refuse(name, "has a name in an unknown encoding")
    parts = name.removesuffix("/").split("/")
    for part in parts:
        if part in ("", ".", ".."):
            refuse(name, "does not lead plainly into the folder")
        if _FORBIDDEN.search(part) or _RESERVED.fullmatch(part):
            refuse(name, "has a name that some systems cannot hold")
        if len(part.encode()) > _LONGEST_PART:
            refuse(name, "has a name that is too long")
    if len(parts) > _MOST_PARTS or len(name.encode()) > _LONGEST_NAME:
        refuse(name, "has a name that is too long")


def _check_kind(member: Member) -> None:
    kind = stat.S_IFMT(member.attributes >> 16)
    odd = _ODD_ATTRIBUTES if member.is_folder else _ODD_ATTRIBUTES | _DOS_FOLDER
    plain = (0, stat.S_IFDIR if member.is_folder else stat.S_IFREG)
    if kind not in plain or member.attributes & odd:
        refuse(member.name, "is neither a plain file nor a folder")
    if member.is_folder and member.size:
        refuse(member.name, "is a folder with contents")


def _grow(tree: dict[str, tuple[str, bool]], member: Member) -> None:
    """Put a member and the folders above it where systems that fold names would have them."""
    name = member.name.removesuffix("/")
    parts = name.split("/")
    paths = accumulate(parts, "{}/{}".format)
    places = accumulate(map(_folded, parts), "{}/{}".format)
    for place, path in zip(places, paths, strict=True):
        known = (path, member.is_folder or path != name)
        if tree.setdefault(place, known) != known:
            refuse(member.name, f"collides with {tree[place][0]!r}")


def _folded(part: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", part).casefold())
