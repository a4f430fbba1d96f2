"""The vendor's status codes with their messages (https://developers.flipsnack.com/api-status-codes)."""

from collections.abc import Mapping
from types import MappingProxyType

OK = 20
MISSING_PARAMETER = 30
PER_SECOND_LIMIT = 31
PER_MINUTE_LIMIT = 32
BAD_REQUEST = 40
INVALID_CREDENTIALS = 41
INVALID_ACTION = 42
FORBIDDEN = 43
INVALID_SIGNATURE = 44
INVALID_HASH = 46

MESSAGES: Mapping[int, str] = MappingProxyType(
    {
        OK: "OK",
        22: "Maintenance mode",
        MISSING_PARAMETER: "Missing mandatory parameter",
        PER_SECOND_LIMIT: "Requests per second limit exceeded",
        PER_MINUTE_LIMIT: "Requests per minute limit exceeded",
        33: "Uploads per month exceeded",
        34: "File size too large",
        35: "Collection maximum pages number exceeded",
        36: "Multiple files upload not allowed",
        37: "Delete flipbook not available for this collection",
        38: "Collection is in processing state",
        BAD_REQUEST: "Bad request",
        INVALID_CREDENTIALS: "Invalid credentials",
        INVALID_ACTION: "Invalid action",
        FORBIDDEN: "Forbidden",
        INVALID_SIGNATURE: "Invalid signature",
        45: "Invalid file format",
        # Every stored copy breaks off after "Invalid collection ha"; the rest is our reading.
        INVALID_HASH: "Invalid collection hash",
    }
)


class RefusedError(Exception):
    """End the work on a call: its answer is *code*."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
