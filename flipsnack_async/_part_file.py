"""The neighbour of a target: what arrives goes there, and takes the target's place when whole."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from threading import Lock
from typing import IO, Final, cast

from . import _checks
from .errors import DownloadError, InvalidArgumentError
from .models import SavedPackage

SUFFIX: Final = ".part"
LEFT_BEHIND: Final = 3600.0  # seconds without a write, after which nobody works on a neighbour


def sweep(folder: Path, targets: str) -> None:
    """Remove the neighbours of *targets*, a pattern, that a kill left behind. Blocks."""
    for neighbour in folder.glob(f".{targets}.{'[0-9a-f]' * 16}{SUFFIX}"):
        with suppress(OSError):
            if time.time() - neighbour.stat().st_mtime > LEFT_BEHIND:
                neighbour.unlink()


class PartFile:
    """
    Hold a neighbour of the target, until it is whole and takes the target's place.

    Threads do the work; one that nobody waits for any more removes the
    neighbour when it is done.
    """

    def __init__(
        self, collection_hash: str, target: str | os.PathLike[str], *, overwrite: bool
    ) -> None:
        self._hash = collection_hash
        self._target = _checks.path("target", target)
        if not self._target.name:
            raise InvalidArgumentError("target", "names no file")
        self._overwrite = overwrite
        # A name may have 255 bytes, however few characters these are.
        self._stem = os.fsencode(self._target.name)[:100].decode(errors="ignore")
        name = f".{self._stem}.{secrets.token_hex(8)}{SUFFIX}"
        self.path = self._target.with_name(name)
        self._in_use = Lock()
        self._decided = Lock()  # taken once, by who publishes or by who gives up
        self._given_up = False
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self.size = 0

    def start_anew(self) -> None:
        """Make an empty neighbour, and remove those that were left behind by a kill."""
        with self._using():
            self._remove()
            sweep(self._target.parent, escape(self._stem))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
            self._digest = hashlib.sha256()
            self.size = 0

    def touch(self) -> bool:
        """Show that somebody works on the neighbour; False if it was taken for left behind."""
        with self._using(), suppress(FileNotFoundError):
            os.utime(self.path)
            return True
        return False

    def check_room(self, size: int) -> None:
        with suppress(OSError):  # not every disk tells
            if shutil.disk_usage(self._target.parent).free < size:
                raise DownloadError(self._hash, "could not be written: No space left on device")

    def write(self, data: bytes) -> None:
        with self._using() as file:
            if not self.size and not b"PK".startswith(data[:2]):
                raise DownloadError(self._hash, "is no zip archive")
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self._digest.update(data)
            self.size += len(data)

    def publish(self) -> SavedPackage:
        """Give what came the target's name, unless it was given up before."""
        with self._using() as file:
            os.fsync(file.fileno())
            if not self._decided.acquire(blocking=False):
                raise DownloadError(self._hash, "was given up")
            self._take_place()
            _sync_folder(self._target.parent)
        return SavedPackage(self._hash, self._target, self.size, self._digest.hexdigest())

    def give_up(self) -> None:
        """Publish nothing from now on, unless that has begun. Waits for nothing."""
        self._given_up = self._decided.acquire(blocking=False)

    def close(self) -> None:
        """Remove the neighbour: now, or where it was given up, when who works on it is done."""
        if self._in_use.acquire(blocking=not self._given_up):
            self._remove()
            self._in_use.release()

    def _take_place(self) -> None:
        if not self._overwrite:
            with suppress(OSError):  # not every disk has hard links
                os.link(self.path, self._target)
                return
        self.check_target()
        os.replace(self.path, self._target)

    def check_target(self) -> None:
        """Refuse a target that could not be written, or may not be."""
        if problem := _problem_of(self._target, overwrite=self._overwrite):
            raise InvalidArgumentError("target", f"{str(self._target)!r} {problem}")

    @contextmanager
    def _using(self) -> Iterator[IO[bytes]]:
        try:
            with self._in_use:
                yield cast(IO[bytes], self._file)
        except OSError as error:
            raise DownloadError(
                self._hash, f"could not be written: {error.strerror or 'disk error'}"
            ) from None
        finally:
            if self._given_up:
                self.close()

    def _remove(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self.path.unlink()
            self._file = None


def _problem_of(target: Path, *, overwrite: bool) -> str:
    """Say why a file could not be put there, as far as that can be known before."""
    if not os.path.isdir(target.parent):
        return "is in a folder that does not exist, or may not be entered"
    if not os.access(target.parent, os.W_OK | os.X_OK):
        return "is in a folder that may not be written to"
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder; name a file"
    if not overwrite:
        return "exists; allow to overwrite it, or name another"
    return "" if stat.S_ISREG(mode) else "is no regular file, which is not overwritten"


def _sync_folder(folder: Path) -> None:
    # So that the new name outlives a power cut; not every system can.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
