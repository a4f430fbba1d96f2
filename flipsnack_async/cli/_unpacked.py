"""Whether a package was unpacked by an earlier run."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from flipsnack_async import DownloadError, SavedPackage


def is_unpacked(package: SavedPackage, folder: Path) -> bool:
    """
    Say whether *folder* holds just what the package does, or nothing yet. Blocks.

    Raises `DownloadError` where something else is in its place.
    """
    try:
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return False
        if folder.is_dir() and _checksums_in(folder) == _checksums_of(package.path):
            return True
    except OSError as error:
        reason = f"was saved, but {folder} could not be read: {error.strerror}"
        raise DownloadError(package.collection_hash, reason) from None
    reason = f"was saved, but not unpacked: {folder} is something else; remove or rename it"
    raise DownloadError(package.collection_hash, reason)


def _checksums_of(archive: Path) -> dict[str, int]:
    with ZipFile(archive) as opened:
        return {_name(member): member.CRC for member in opened.infolist() if not member.is_dir()}


def _name(member: ZipInfo) -> str:
    # What is not marked is read as a code page of DOS, and was unpacked as what it mostly is.
    marked = member.flag_bits & 0x800
    return member.filename if marked else member.filename.encode("cp437").decode(errors="replace")


def _checksums_in(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def _checksum(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
