"""Links to packages: which may be followed, and what following one gives."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, Protocol, TypeAlias
from urllib.parse import urljoin

import httpx

_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]")
_HAS_SCHEME: Final = re.compile("[a-z][a-z0-9+.-]*:", re.IGNORECASE)
# What ends in a number is an address, in a notation that only some readers know.
_NAME: Final = re.compile("(?=.{1,253}$)([a-z0-9_-]{1,63}[.])+[a-z][a-z0-9-]{1,62}")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: to IPv4, by a gateway


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


def checked_link(link: str, *, from_loopback: bool) -> httpx.URL:
    """
    Return the address that *link* means, if it leads to a public host by https.

    One without a scheme, such as the vendor's own example, is taken for
    https. Only an API on loopback may name links by http and to loopback:
    *from_loopback*. What is returned is what was checked, so send just that:
    another reader of the same text might find another host in it.
    """
    if _UNSAFE.search(link):
        raise UnsafeLinkError("holds a character that no address has")
    if not _HAS_SCHEME.match(link) or re.match(r"[^/:]+:[0-9]+(/|$)", link):
        link = f"https://{link.lstrip('/')}"
    address = _parsed(link)
    host = address.raw_host.decode("ascii")
    is_local = _is_loopback(host)
    if address.scheme not in ({"http", "https"} if from_loopback and is_local else {"https"}):
        raise UnsafeLinkError("does not start with https://")
    if address.userinfo:
        raise UnsafeLinkError("holds a user's name")
    if not host:
        raise UnsafeLinkError("names no host")
    if address.port is not None and not (from_loopback and is_local and 0 < address.port < 2**16):
        raise UnsafeLinkError("names an odd port")
    if not _is_public(host) and not (from_loopback and is_local):
        raise UnsafeLinkError("leads to no public host")
    return address


def redirected(link: httpx.URL, location: str, *, from_loopback: bool) -> httpx.URL:
    """Return where an answer from *link* sends its reader, checked like the link itself."""
    try:
        target = urljoin(str(link), location)
    except ValueError:
        raise UnsafeLinkError("leads on to what is no address") from None
    return checked_link(target, from_loopback=from_loopback)


def _parsed(link: str) -> httpx.URL:
    try:
        address = httpx.URL(link)
        if address.raw_host.endswith(b"."):  # the same host, and no certificate names it so
            address = address.copy_with(host=address.raw_host[:-1].decode("ascii"))
        address.host  # noqa: B018  which fails for a name that stands for none in Unicode
    except (httpx.InvalidURL, ValueError):
        raise UnsafeLinkError("is no address") from None
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_public(host: str) -> bool:
    try:
        address = _target_of(ip_address(host))
    except ValueError:
        return _NAME.fullmatch(host) is not None and not _is_loopback(host)
    if isinstance(address, IPv6Address) and (address.scope_id or address not in _GLOBAL_UNICAST):
        return False
    return address.is_global and not address.is_multicast


def _target_of(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the address of IPv4 that packets to one of IPv6 may end up at, if there is one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address
