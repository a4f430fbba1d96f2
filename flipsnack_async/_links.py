"""Links to packages: which may be followed, and what following one gives."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias
from urllib.parse import urljoin, urlsplit

_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]")
_HAS_SCHEME: Final = re.compile("[a-z][a-z0-9+.-]*:", re.IGNORECASE)


class TransferBrokenError(Exception):
    """Say that a transfer ended before its end; it may be taken up again."""


class Answer(Protocol):
    """Be what came from a link, a body to iterate over; *headers* have names in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


Follow: TypeAlias = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[Answer]]


class UnsafeLinkError(Exception):
    """Say why a link is not followed, and nothing of the link: it needs no key to be used."""


def checked_link(link: str, *, from_loopback: bool) -> str:
    """
    Return the address that *link* means, if it leads to a public host by https.

    One without a scheme, such as the vendor's own example, is taken for
    https. Only an API on loopback may name links by http and to loopback:
    *from_loopback*.
    """
    if _UNSAFE.search(link):
        raise UnsafeLinkError("holds a character that no address has")
    if not _HAS_SCHEME.match(link) or re.match(r"[^/:]+:[0-9]+(/|$)", link):
        link = f"https://{link.lstrip('/')}"
    try:
        parts = urlsplit(link)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UnsafeLinkError("is no address") from None
    is_local = _is_loopback(host)
    if parts.scheme not in ({"http", "https"} if from_loopback and is_local else {"https"}):
        raise UnsafeLinkError("does not start with https://")
    if "@" in parts.netloc:
        raise UnsafeLinkError("holds a user's name")
    if not host:
        raise UnsafeLinkError("names no host")
    if is_local and from_loopback:
        return link
    if port not in (None, 443):
        raise UnsafeLinkError("names an odd port")
    if is_local or not _is_public(host):
        raise UnsafeLinkError("leads to no public host")
    return link


def redirected(link: str, location: str, *, from_loopback: bool) -> str:
    """Return where an answer from *link* sends its reader, checked like the link itself."""
    if _UNSAFE.search(location):
        raise UnsafeLinkError("leads on to what is no address")
    return checked_link(urljoin(link, location), from_loopback=from_loopback)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_public(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # What ends in a number is an address in a notation that only some readers know.
        last = host.rstrip(".").rpartition(".")[2]
        return not re.fullmatch("[0-9]+|0x[0-9a-f]*", last) and "." in host
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return address.is_global and not address.is_multicast and (not mapped or mapped.is_global)
