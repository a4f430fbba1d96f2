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
     |- ConversionFailedError           the vendor could not convert the document
     |- ConversionTimeoutError          the conversion was not done in time; is a TimeoutError
     |- ExportFailedError               the vendor could not build the package
     |- ExportTimeoutError              the package was not ready in time; is a TimeoutError
     |- DownloadError                   a package could not be fetched, or is not to be trusted
     |- ArchiveError                    an archive is damaged, in use, or about something else

Every error can be pickled. None holds a key, a signature, a URL or an object of httpx.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

__all__ = [
    "APIError",
    "ArchiveError",
    "AuthenticationError",
    "ClientClosedError",
    "CollectionUnavailableError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConversionFailedError",
    "ConversionTimeoutError",
    "DownloadError",
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

    def __init__(self, code: int, message: str, action: str) -> None:
        super().__init__(code, message, action)
        self.code = code
        self.message = message
        self.action = action

    @property
    def remedy(self) -> str:
        """What would help, if that is known."""
        return _REMEDIES.get(self.code, "")

    def __str__(self) -> str:
        said = f"{self.action}: {self.message or 'refused'} (code {self.code})"
        return f"{said}; {self.remedy}" if self.remedy else said


_TOO_FAST: Final = "wait a minute, and see whether somebody else uses the key"
_REMEDIES: Final = {
    22: "try again later",
    30: "give every parameter that the action requires",
    31: _TOO_FAST,
    32: _TOO_FAST,
    # The limits of 34 and 35 were raised before, so they are not repeated here.
    34: "make the file smaller, or split the document",
    35: "split the document",
    36: "send one file with each upload",
    38: "collections.wait_until_converted() awaits the end of that",
    40: "check the values given, and api_url and upload_url",
    41: "check the API key, and that the subscription is active",
    42: "check the action's name",
    44: "check that the secret belongs to the key, with no blank or line end around it, "
    "and that nothing on the way changes the address",
    45: "send a PDF",
    429: _TOO_FAST,
}


class MaintenanceError(APIError):
    """Say that the vendor's servers are in maintenance."""


class InvalidRequestError(APIError):
    """Say that the vendor could not make sense of the call."""


class RateLimitError(APIError):
    """Say that the key made too many calls in a second or a minute."""


class UploadQuotaError(APIError):
    """Say that the month's uploads are used up."""

    @property
    def remedy(self) -> str:
        return "user.get_stats() says how many are left"


class FileRejectedError(APIError):
    """Say that the vendor takes no such file: too large, too many pages, or of another type."""


class StillProcessingError(APIError):
    """Say that the collection is still being converted."""


class AuthenticationError(APIError):
    """
    Say that the key is unknown (41) or does not go with the secret (44).

    After three in a row a client sends nothing beyond what is under way and
    raises the last one again: a key that is misused may be shut off. Make a
    new client.
    """


class CollectionUnavailableError(APIError):
    """
    Say that the collection is deleted, somebody else's, or was never there.

    A collection gets a new hash when it is published. Where this client saw
    that happen, *moved_to* is the new one.
    """

    def __init__(
        self, code: int, message: str, action: str, *, moved_to: str | None = None
    ) -> None:
        super().__init__(code, message, action)
        self.moved_to = moved_to

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args, self.__dict__

    @property
    def remedy(self) -> str:
        if self.moved_to:
            return f"its hash is {self.moved_to} since it was published"
        return "check the hash: a collection gets a new one when it is published"


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
    """
    Say that no connection came about: the vendor saw nothing of the call.

    *untrusted* says that the host's certificate was not accepted, and then the
    call is not tried again.
    """

    def __init__(self, message: str, *, untrusted: bool = False) -> None:
        super().__init__(message)
        self.untrusted = untrusted


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

    It may or may not have been carried out. For an upload this holds the
    evidence, from which `collections.reconcile` may tell:

    - *body_complete*: whether the last byte was written to the connection;
    - *size*, in bytes, and *sha256* of the document, in hex digits; both None
      where the vendor was to fetch it himself, and *sha256* also where the
      file changed or could not be read;
    - *title*, if one was given, and *sent_at*, a time in UTC;
    - *uploads_left_before*: the last count that the client saw, if it saw one.
    """

    def __init__(
        self,
        action: str,
        reason: str,
        *,
        body_complete: bool | None = None,
        size: int | None = None,
        sha256: str | None = None,
        title: str | None = None,
        sent_at: datetime | None = None,
        uploads_left_before: int | None = None,
    ) -> None:
        super().__init__(action, reason)
        self.action = action
        self.reason = reason
        self.body_complete = body_complete
        self.size = size
        self.sha256 = sha256
        self.title = title
        self.sent_at = sent_at
        self.uploads_left_before = uploads_left_before

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args, self.__dict__

    def __str__(self) -> str:
        said = f"{self.action} may or may not have been carried out: {self.reason}"
        if self.action == "collection.create":
            return f"{said}; collections.reconcile() may tell, do not send it again before"
        return f"{said}; look before calling again"


class ConversionFailedError(FlipsnackError):
    """Say that the vendor could not convert a document; its upload counts all the same."""

    def __init__(self, collection_hash: str) -> None:
        super().__init__(collection_hash)
        self.collection_hash = collection_hash

    def __str__(self) -> str:
        return (
            f"the document of {self.collection_hash} could not be converted, "
            "though its upload counts; check the document"
        )


class ConversionTimeoutError(FlipsnackError, TimeoutError):
    """Say that a conversion was not done in time; it goes on, and can be awaited again."""

    def __init__(self, collection_hash: str, within: float, problem: str = "") -> None:
        super().__init__(collection_hash, within, problem)
        self.collection_hash = collection_hash
        self.within = within
        self.problem = problem

    def __str__(self) -> str:
        problem = f": {self.problem}" if self.problem else ""
        return (
            f"the conversion of {self.collection_hash} was not done within {self.within:g} s"
            f"{problem}; it goes on, and can be awaited again"
        )


class ExportFailedError(FlipsnackError):
    """Say that the vendor could not build a collection's package."""

    def __init__(self, collection_hash: str) -> None:
        super().__init__(collection_hash)
        self.collection_hash = collection_hash

    def __str__(self) -> str:
        return f"the package of {self.collection_hash} could not be built; ask for it once more"


class ExportTimeoutError(FlipsnackError, TimeoutError):
    """Say that a package was not ready in time; asking again later continues the same export."""

    def __init__(self, collection_hash: str, within: float, problem: str = "") -> None:
        super().__init__(collection_hash, within, problem)
        self.collection_hash = collection_hash
        self.within = within
        self.problem = problem

    def __str__(self) -> str:
        problem = f": {self.problem}" if self.problem else ""
        return (
            f"the package of {self.collection_hash} was not ready within {self.within:g} s"
            f"{problem}; asking again later continues the same export"
        )


class DownloadError(FlipsnackError):
    """
    Say why a package was not saved or unpacked; its target is as it was before.

    *subject* is the collection's hash, or the name of the archive's file.
    """

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(subject, reason)
        self.subject = subject
        self.reason = reason

    def __str__(self) -> str:
        return f"the package {self.subject} {self.reason}"


class ArchiveError(FlipsnackError):
    """
    Say why an archive cannot be used, and what would do; nothing in it was changed.

    It is damaged, none of ours, in use elsewhere, or about another key or
    something else. *path* is the archive's.
    """

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(path, problem, remedy)
        self.path = path
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"the archive {self.path} {self.problem}; {self.remedy}"


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
