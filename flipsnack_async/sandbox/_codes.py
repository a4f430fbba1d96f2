"""The vendor's status codes with their messages (https://developers.flipsnack.com/api-status-codes)."""

from collections.abc import Mapping
from types import MappingProxyType

OK = 20
MISSING_PARAMETER = 30
PER_SECOND_LIMIT = 31
PER_MINUTE_LIMIT = 32
UPLOADS_USED_UP = 33
FILE_TOO_LARGE = 34
TOO_MANY_PAGES = 35
SEVERAL_FILES = 36
NOT_DELETABLE = 37
PROCESSING = 38
BAD_REQUEST = 40
INVALID_CREDENTIALS = 41
INVALID_ACTION = 42
FORBIDDEN = 43
INVALID_SIGNATURE = 44
INVALID_FILE = 45
INVALID_HASH = 46

MESSAGES: Mapping[int, str] = MappingProxyType(
    {
        OK: "OK",
        22: "Maintenance mode",
        MISSING_PARAMETER: "Missing mandatory parameter",
        PER_SECOND_LIMIT: "Requests per second limit exceeded",
        PER_MINUTE_LIMIT: "Requests per minute limit exceeded",
        UPLOADS_USED_UP: "Uploads per month exceeded",
        FILE_TOO_LARGE: "File size too large",
        TOO_MANY_PAGES: "Collection maximum pages number exceeded",
        SEVERAL_FILES: "Multiple files upload not allowed",
        NOT_DELETABLE: "Delete flipbook not available for this collection",
        PROCESSING: "Collection is in processing state",
        BAD_REQUEST: "Bad request",
        INVALID_CREDENTIALS: "Invalid credentials",
        INVALID_ACTION: "Invalid action",
        FORBIDDEN: "Forbidden",
        INVALID_SIGNATURE: "Invalid signature",
        INVALID_FILE: "Invalid file format",
        # Every stored copy breaks off after "Invalid collection ha"; the rest is our reading.
        INVALID_HASH: "Invalid collection hash",
    }
)

# What https://developers.flipsnack.com/api-limitations calls code 32, against the page above.
OTHER_QUOTA_MESSAGE = "Uploads per month limit exceeded"


class RefusedError(Exception):
    """End the work on a call: its answer is *code*, with its documented message or another."""

    def __init__(self, code: int, message: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = MESSAGES[code] if message is None else message
