"""Odd bodies, each in a file as it came, and what each becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from flipsnack_async import (
    APIError,
    AuthenticationError,
    Collection,
    CollectionStats,
    CollectionUnavailableError,
    InvalidAnswerError,
    Package,
    PageStats,
    UserStats,
    models,
)
from flipsnack_async._envelope import decode

CORPUS = Path(__file__).parent / "corpus"
SEVEN = UserStats(views=7)

READ: dict[str, object] = {
    "vendors-user-stats.json": UserStats(
        impressions=2945, views=3719, time_spent=154, downloads=28, api_uploads_left=53
    ),
    "vendors-collection-stats.json": CollectionStats(
        "fxh4k89",
        impressions=723,
        views=1240,
        time_spent=53,
        downloads=4,
        pages=(
            PageStats(page=1, time_spent=127443, clicks=392, views=4529),
            PageStats(page=2, time_spent=89382, clicks=171, views=4130),
        ),
    ),
    "vendors-deletion.json": None,
    "vendors-package-trailing-comma.json": Package("fxh4k89", "COMPLETE", "resource.url.example"),
    "byte-order-mark.json": SEVEN,
    "blanks-around.json": SEVEN,
    "code-as-text.json": SEVEN,
    "counts-as-text.json": UserStats(views=7, downloads=0, time_spent=1.5),
    "counts-as-floats.json": UserStats(views=7, downloads=100, time_spent=1.5),
    "counts-below-zero.json": UserStats(views=-7, time_spent=-0.5),
    "counts-null.json": UserStats(downloads=0),
    "largest-integers.json": UserStats(
        views=2**63 - 1, downloads=-(2**63), extra={"new": -(2**63)}
    ),
    "data-empty-list.json": UserStats(),
    "list-past-its-end.json": models.CollectionPage(()),
    "page-with-bad-collections.json": models.CollectionPage(
        (Collection("fxh4k89"), Collection("d3m0h45h", width=650)),
        count=4,
        unreadable=(
            InvalidAnswerError("any", "is no object", field="data.collections[1]"),
            InvalidAnswerError("any", "is no text", field="data.collections[2].collectionHash"),
        ),
    ),
    "unknown-fields.json": UserStats(
        views=7, extra={"bounce": {"rate": 0.5, "by": [None, True]}, "extra": "x", "": 1}
    ),
    "letters-escaped.json": Collection(
        "fxh4k89", title="Catalogue d'été 😀 / \\ud800", description="\x00\u2028"
    ),
    "half-a-pair.json": Collection(
        "fxh4k89", title="cut \ufffd", description="\ufffd\ufffd😀\\\ufffd"
    ),
    "half-a-pair-in-a-name.json": UserStats(views=7, extra={"\ufffd": {"a\ufffd": 1}}),
    "comma-in-a-string.json": Collection("fxh4k89", title='a,} ",] b'),
    "two-titles.json": Collection("fxh4k89", title="new"),
    "state-inside.json": Collection(
        "fxh4k89",
        status="unlisted",
        state="Processing",
        thumbnail_url="https://example.invalid/1",
        extra={
            "things": [{"someState": "complete"}, {"someState": "Processing"}],
            "someThumb": "https://example.invalid/1",
        },
    ),
    "nested-64-deep.json": UserStats(extra={"x": json.loads("[" * 62 + "]" * 62)}),
}
REFUSED: dict[str, tuple[type[APIError], int, str]] = {
    "unknown-code.json": (APIError, 99, "News"),
    "negative-code.json": (APIError, -1, ""),
    "error-with-data.json": (AuthenticationError, 44, "Invalid signature"),
    "error-for-a-terminal.json": (CollectionUnavailableError, 43, "[31mForbidden"),
    "error-that-repeats-a-signature.json": (AuthenticationError, 44, "Invalid signature <hidden>"),
}
NO_JSON = (None, "the answer is torn or no JSON")
NO_COUNT = ("data.views", "is no whole number")
INVALID: dict[str, tuple[str | None, str]] = {
    "vendors-package.xml": (None, "a page came instead of an answer"),
    "vendors-jsonp.txt": NO_JSON,
    "empty.txt": (None, "the answer is empty"),
    "html-page.txt": (None, "a page came instead of an answer"),
    "php-warning-before.txt": NO_JSON,
    "two-answers.txt": NO_JSON,
    "torn.json": NO_JSON,
    "torn-after-nan.json": NO_JSON,
    "line-end-in-a-string.txt": NO_JSON,
    "two-commas.txt": NO_JSON,
    "bare-list.json": (None, "the answer is JSON but no envelope"),
    "bare-nan.json": (None, "the answer is JSON but no envelope"),
    "utf-16.txt": (None, "the answer is not UTF-8 text"),
    "latin-1.txt": (None, "the answer is not UTF-8 text"),
    "surrogate-as-bytes.txt": (None, "the answer is not UTF-8 text"),
    "nested-65-deep.json": (None, "the answer is nested too deeply"),
    "code-20-inside.json": ("code", "is missing"),
    "code-true.json": ("code", "is no whole number"),
    "code-with-decimals.json": ("code", "is no whole number"),
    "code-in-other-digits.json": ("code", "is no whole number"),
    "code-beyond-64-bits.json": ("code", "is beyond 64 bits"),
    "two-codes.json": ("code", "comes twice"),
    "two-codes-one-escaped.json": ("code", "comes twice"),
    "two-codes-inside.json": ("data.log[0].code", "comes twice"),
    "two-codes-and-a-trailing-comma.json": ("code", "comes twice"),
    "nan.json": ("data.new[1].rate", "is no finite number"),
    "exponent-too-large.json": ("data.time_spent", "is no finite number"),
    "integer-beyond-64-bits.json": ("data.new[0].id", "is beyond 64 bits"),
    "integer-of-5000-digits.json": ("data.views", "is beyond 64 bits"),
    "count-true.json": NO_COUNT,
    "count-with-decimals.json": NO_COUNT,
    "data-null.json": ("data", "is missing"),
    "data-list.json": ("data", "is no object"),
}


def read(name: str, reply: type) -> Any:
    known = {} if reply is Collection else {"collection_hash": "fxh4k89"}
    return decode((CORPUS / name).read_bytes(), "any", reply, known)


def facts(result: object) -> str:
    """Write down every field of a result, types and all, and errors as they read."""
    if result is None:
        return "None"
    kept: Any = result
    return repr(
        attrs.asdict(
            kept,
            value_serializer=lambda _, __, value: (
                str(value) if isinstance(value, Exception) else value
            ),
        )
    )


@pytest.mark.parametrize("name", READ)
def test_what_is_odd_and_right_is_read(name: str) -> None:
    """
    A body that a server may well send becomes exactly this object.
    """
    assert facts(READ[name]) == facts(read(name, type(READ[name])))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_odd_and_a_refusal_is_raised(name: str) -> None:
    """
    An error of the vendor's stays his, however it is written.
    """
    kind, code, message = REFUSED[name]
    with pytest.raises(kind) as caught:
        read(name, UserStats)

    assert kind is type(caught.value)
    assert (code, message) == (caught.value.code, caught.value.message)


@pytest.mark.parametrize("name", INVALID)
def test_what_is_odd_and_wrong_is_told(name: str) -> None:
    """
    What is no answer is told as such, by the field where there is one.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        read(name, UserStats)
    assert INVALID[name] == (caught.value.field, caught.value.reason)


def test_every_body_is_accounted_for() -> None:
    """
    No file without a line above, and no line without a file.
    """
    files = {path.name for path in CORPUS.iterdir() if not path.name.startswith(".")}

    assert sorted(files) == sorted([*READ, *REFUSED, *INVALID])
