"""What the sandbox remembers of calls and downloads."""

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from ._arrivals import Arrival

_KEPT_ELSEWHERE_OR_SECRET = frozenset({"action", "apiKey", "signature"})


@attrs.frozen
class SandboxCall:
    """
    A call that the sandbox saw.

    *at* is the loop's time of arrival, *params* are the action's own parameters
    as text, and *code* is what was answered: `None` if that was no envelope, or
    none that arrived. *size*, in bytes, and *sha256*, in hex digits, are those
    of the document that came with the call, taken or not; `None` without one.
    """

    at: float
    action: str
    params: Mapping[str, str]
    code: int | None
    size: int | None = None
    sha256: str | None = None


@attrs.define
class SandboxDownload:
    """
    A download that the sandbox saw, from a link that it gave.

    *at* is the loop's time of arrival, *status* the HTTP status of the answer,
    and *start* the position in the package at which that begins. *sent* is the
    number of bytes that have left, and grows while they do.
    """

    at: float
    collection_hash: str
    status: int
    start: int = 0
    sent: int = 0


def ledger_entry(arrival: Arrival, code: int | None) -> SandboxCall:
    """Note an arrival and its answer, without key and signature."""
    own = {
        name: value
        for name, value in arrival.params.items()
        if name not in _KEPT_ELSEWHERE_OR_SECRET
    }
    call = SandboxCall(arrival.at, arrival.action, MappingProxyType(own), code)
    if arrival.document is None:
        return call
    return attrs.evolve(call, size=arrival.document.size, sha256=arrival.document.sha256)
