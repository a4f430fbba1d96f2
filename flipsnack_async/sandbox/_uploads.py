"""Uploads: which documents are taken, and the collections they become."""

from urllib.parse import urlsplit

from ._account import Account
from ._arrivals import Arrival
from ._choices import Choices
from ._codes import (
    BAD_REQUEST,
    FILE_TOO_LARGE,
    INVALID_FILE,
    OTHER_QUOTA_MESSAGE,
    PER_MINUTE_LIMIT,
    SEVERAL_FILES,
    TOO_MANY_PAGES,
    UPLOADS_USED_UP,
    RefusedError,
)
from ._collections import Collection
from ._documents import JPG, PDF, PNG, Document

IMAGES = frozenset({JPG, PNG})
_FROM_A_URL = Document(size=0, sha256="", kind=None, page_count=8)


def create(account: Account, arrival: Arrival) -> Collection:
    """Make a collection of what was uploaded. Only one that succeeds counts to the month."""
    if account.uploads_left < 1:
        raise _used_up(account.choices)
    document = received(arrival, account.choices, book_kinds(account.choices))
    collection = account.add(document, arrival.params, arrival.at)
    account.uploads_left -= 1
    return collection


def book_kinds(choices: Choices) -> frozenset[str]:
    return frozenset({PDF}) if choices.pdf_only else IMAGES | {PDF}


def received(arrival: Arrival, choices: Choices, kinds: frozenset[str]) -> Document:
    """Return the document of an upload, made up if it would have to be fetched, or refuse it."""
    if arrival.file_count > 1:
        raise RefusedError(SEVERAL_FILES)
    document = arrival.document
    if document is None:
        return _fetched(arrival.params["fileUrl"])
    if document.size > choices.max_file_size:
        raise RefusedError(FILE_TOO_LARGE)
    if document.kind not in kinds:
        raise RefusedError(INVALID_FILE)
    if document.page_count > choices.max_pages:
        raise RefusedError(TOO_MANY_PAGES)
    return document


def _fetched(url: str) -> Document:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise RefusedError(BAD_REQUEST) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RefusedError(BAD_REQUEST)
    return _FROM_A_URL


def _used_up(choices: Choices) -> RefusedError:
    if choices.quota_code == PER_MINUTE_LIMIT:
        return RefusedError(PER_MINUTE_LIMIT, OTHER_QUOTA_MESSAGE)
    return RefusedError(UPLOADS_USED_UP)
