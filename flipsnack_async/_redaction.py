"""Keep the HTTP library's log from repeating what a server says."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final
from weakref import WeakValueDictionary

from ._signing import Credentials

# At DEBUG, httpcore writes down the head of each answer. One that redirects to the address it was
# asked at, or complains of it, repeats the signature.
_SIGNATURE: Final = re.compile("[0-9a-fA-F]{32}")
_LOGGERS: Final = (
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpx",
    "hpack.hpack",
    "hpack.table",
)

_known: Final[WeakValueDictionary[int, Credentials]] = WeakValueDictionary()
_is_reticent: Final = ContextVar("_is_reticent", default=False)


def redacted(text: str, known: Iterable[Credentials]) -> str:
    """Take keys, and whatever looks like a signature, out of what the HTTP library says."""
    for credentials in known:
        text = credentials.clean(text)
    return _SIGNATURE.sub("<hidden>", text)


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if _is_reticent.get():
            text = text.partition(" ")[0]
        # Their references at once: another thread may make a client meanwhile.
        known = filter(None, (reference() for reference in _known.valuerefs()))
        record.msg, record.args = redacted(text, known), ()
        return True


_redacting: Final = _Redacting()


@contextmanager
def reticence() -> Generator[None]:
    """Let these logs name what happens inside the block, and tell nothing more of it."""
    token = _is_reticent.set(True)
    try:
        yield
    finally:
        _is_reticent.reset(token)


def keep_out_of_logs(credentials: Credentials) -> None:
    """Hide *credentials*, and whatever looks like a signature, from these logs."""
    _known[id(credentials)] = credentials
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_redacting)
