"""Which part of a package a download asks for."""

import re
from collections.abc import Mapping

import attrs

from ._packages import Package

# One range with a start. What else HTTP allows may be ignored, and is.
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})", re.ASCII)


@attrs.frozen
class Part:
    """The positions that are sent, and what is said about them."""

    span: range
    status: int = 200
    content_range: str | None = None


def asked_part(package: Package, headers: Mapping[str, str]) -> Part:
    """Return the part that Range and If-Range ask for, which may be the whole."""
    whole = range(package.size)
    asked = _RANGE.fullmatch(headers.get("range", ""))
    if asked is None or headers.get("if-range", package.etag) != package.etag:
        return Part(whole)
    first = int(asked[1])
    last = int(asked[2] or max(first, package.size))
    if last < first:
        return Part(whole)
    span = whole[first : last + 1]
    if not span:
        return Part(range(0), 416, f"bytes */{package.size}")
    return Part(span, 206, f"bytes {span.start}-{span.stop - 1}/{package.size}")
