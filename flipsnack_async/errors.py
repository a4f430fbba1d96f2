"""
What can go wrong, one class for each thing a caller would do about it.

    FlipsnackError
     |- APIError                        the vendor said no: code, message, action
     |   |- MaintenanceError            22
     |   |- InvalidRequestError         30, 40, 42
     |   |- RateLimitError              31, 32, HTTP 429
     |   |- UploadQuotaError            33, and 32 where it speaks of uploads
     |   |- FileRejectedError           34, 35, 36, 45
     |   |- StillProcessingError        38
     |   |- AuthenticationError         41, 44
     |   |- CollectionUnavailableError  43, 46
     |- InvalidArgumentError            found before anything was sent; is a ValueError
     |- ConfigurationError              the client or its environment is set up wrongly
     |- ClientClosedError               the client is closed, or belongs to another event loop
     |- ConnectionFailedError           not one byte of the call left
     |- NoAnswerError                   bytes left, no readable answer came back
     |- InvalidAnswerError              an answer came that is none of this API's
     |- QuotaWaitError                  the wait for quota would be too long: nothing was sent
     |- UploadOutcomeUnknownError       a call that must not be repeated may or may not have worked
     |- ExportFailedError               the vendor could not build the package
     |- ExportTimeoutError              the package was not ready in time; is a TimeoutError

Every error can be pickled. None holds a key, a signature, a URL or an object of httpx.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "APIError",
    "AuthenticationError",
    "ClientClosedError",
    "CollectionUnavailableError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ExportFailedError",
    "ExportTimeoutError",
    "FileRejectedError",
    "FlipsnackError",
    "InvalidAnswerError",
    "InvalidArgumentError",
    "InvalidRequestError",
    "MaintenanceError",
    "NoAnswerError",
    "QuotaWaitError",
    "RateLimitError",
    "StillProcessingError",
    "UploadOutcomeUnknownError",
    "UploadQuotaError",
]


class FlipsnackError(Exception):
    """Be the ancestor of everything this library raises."""


class APIError(FlipsnackError):
    """Say that the vendor refused a call; *code* and *message* are his own."""

    remedy = ""

    def __init__(self, code: int, message: str, action: str) -> None:
        super().__init__(code, message, action)
        self.code = code
        self.message = message
        self.action = action

    def __str__(self) -> str:
        said = f"{self.action}: {self.message or 'refused'} (code {self.code})"
        return f"{said}; {self.remedy}" if self.remedy else said


class MaintenanceError(APIError):
    """Say that the vendor's servers are in maintenance."""

    remedy = "try again later"


class InvalidRequestError(APIError):
    """Say that the vendor could not make sense of the call."""


class RateLimitError(APIError):
    """Say that the key made too many calls in a second or a minute."""

    remedy = "wait a minute, and see whether somebody else uses the key"


class UploadQuotaError(APIError):
    """Say that the month's uploads are used up."""

    remedy = "user.get_stats() says how many are left"


class FileRejectedError(APIError):
    """Say that the vendor takes no such file: too large, too many pages, or of another type."""


class StillProcessingError(APIError):
    """Say that the collection is still being converted."""

    remedy = "try again when the conversion is done"


class AuthenticationError(APIError):
    """Say that the key is unknown (41) or does not go with the secret (44)."""

    def __str__(self) -> str:
        remedy = (
            "check FLIPSNACK_API_KEY, and that the subscription is active"
            if self.code == 41
            else "check that the secret belongs to the key, with no blank or line end around it"
        )
        return f"{super().__str__()}; {remedy}"


class CollectionUnavailableError(APIError):
    """Say that the collection is deleted, somebody else's, or was never there."""

    remedy = "check the hash: a collection gets a new one when it is published"


class InvalidArgumentError(FlipsnackError, ValueError):
    """Say which argument cannot be sent, and what would do; nothing was sent."""

    def __init__(self, field: str, remedy: str) -> None:
        super().__init__(field, remedy)
        self.field = field
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.field}: {self.remedy}"


class ConfigurationError(FlipsnackError):
    """Say which setting is missing or wrong, and what would do."""

    def __init__(self, setting: str, remedy: str) -> None:
        super().__init__(setting, remedy)
        self.setting = setting
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.setting}: {self.remedy}"


class ClientClosedError(FlipsnackError):
    """Say that the client cannot be used any more, or not here."""


class ConnectionFailedError(FlipsnackError):
    """Say that no connection came about: the vendor saw nothing of the call."""


class NoAnswerError(FlipsnackError):
    """Say that a call was sent and no whole answer came back."""


class InvalidAnswerError(FlipsnackError):
    """
    Say that the answer is none of this API's.

    *field* names the part of an envelope that is wrong, as a path from its
    top; it is None where no envelope could be read at all.
    """

    def __init__(
        self, action: str, reason: str, *, field: str | None = None, http_status: int = 200
    ) -> None:
        super().__init__(action, reason)
        self.action = action
        self.reason = reason
        self.field = field
        self.http_status = http_status

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.action, self.reason), self.__dict__

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        status = f" (HTTP {self.http_status})" if self.http_status != 200 else ""
        return f"{self.action}: {where}{self.reason}{status}"


class QuotaWaitError(FlipsnackError):
    """Say that no call is free in time, nor for *retry_after* seconds; nothing was sent."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"the quota has no call free in time; try again in {self.retry_after:.1f} s"


class UploadOutcomeUnknownError(FlipsnackError):
    """
    Say that a call which must not be repeated got no answer to go by.

    It may or may not have been carried out: look before calling again.
    """

    def __init__(self, action: str, reason: str) -> None:
        super().__init__(action, reason)
        self.action = action
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.action} may or may not have been carried out: {self.reason}"


class ExportFailedError(FlipsnackError):
    """Say that the vendor could not build a collection's package."""

    def __init__(self, collection_hash: str) -> None:
        super().__init__(collection_hash)
        self.collection_hash = collection_hash

    def __str__(self) -> str:
        return f"the package of {self.collection_hash} could not be built; ask for it once more"


class ExportTimeoutError(FlipsnackError, TimeoutError):
    """Say that a package was not ready in time; asking again later continues the same export."""

    def __init__(self, collection_hash: str, within: float) -> None:
        super().__init__(collection_hash, within)
        self.collection_hash = collection_hash
        self.within = within

    def __str__(self) -> str:
        return (
            f"the package of {self.collection_hash} was not ready within {self.within:g} s; "
            "asking again later continues the same export"
        )


CODES: Final[dict[int, type[APIError]]] = {
    22: MaintenanceError,
    30: InvalidRequestError,
    31: RateLimitError,
    32: RateLimitError,
    33: UploadQuotaError,
    34: FileRejectedError,
    35: FileRejectedError,
    36: FileRejectedError,
    37: APIError,  # a deprecated method's, of no use to tell apart
    38: StillProcessingError,
    40: InvalidRequestError,
    41: AuthenticationError,
    42: InvalidRequestError,
    43: CollectionUnavailableError,
    44: AuthenticationError,
    45: FileRejectedError,
    46: CollectionUnavailableError,
}
"""The vendor's status codes, https://developers.flipsnack.com/api-status-codes."""


def refusal(code: int, message: str, action: str) -> APIError:
    """
    Make the error that a status code stands for.

    The vendor's two pages give code 32 two meanings, calls per minute and
    uploads per month; the text that came with it decides.
    """
    if code == 32 and "upload" in message.lower():
        return UploadQuotaError(code, message, action)
    return CODES.get(code, APIError)(code, message, action)
