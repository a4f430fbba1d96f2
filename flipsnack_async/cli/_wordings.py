"""What the library's errors say to those who have the command line only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from flipsnack_async import (
    APIError,
    FlipsnackError,
    InvalidArgumentError,
    StillProcessingError,
    UploadOutcomeUnknownError,
    UploadQuotaError,
)

# Instead of the remedies that are functions of the library.
_REMEDIES: Final[Mapping[type[APIError], str]] = {
    StillProcessingError: "flipsnack get says how far it is",
    UploadQuotaError: "flipsnack user-stats says how many are left",
}


def in_words(error: FlipsnackError) -> str:
    """Say in one line what went wrong, and what would help."""
    if isinstance(error, UploadOutcomeUnknownError):
        said = f"{error.action} may or may not have been carried out: {error.reason}"
        return f"{said}; look before you send it again: {', '.join(_evidence(error))}"
    text = str(error)
    if isinstance(error, InvalidArgumentError) and error.field == "target":
        return text.replace("allow to overwrite it", "give --overwrite")
    if isinstance(error, APIError) and type(error) in _REMEDIES:
        return text.replace(error.remedy, _REMEDIES[type(error)])
    return text


def _evidence(error: UploadOutcomeUnknownError) -> Iterator[str]:
    if error.title is not None:
        yield f"title {error.title!r}"
    if error.size is not None:
        yield f"{error.size:,} bytes"
    if error.sha256 is not None:
        yield f"sha256 {error.sha256}"
    if error.sent_at is not None:
        yield f"sent {error.sent_at:%Y-%m-%d %H:%M:%S} UTC"
