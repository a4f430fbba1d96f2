"""From arguments to what is sent, or to an error that names the argument."""

from __future__ import annotations

import enum
from datetime import date, datetime
from typing import Any

import pytest

from flipsnack_async import Collection, CollectionStats, Effect, InvalidArgumentError, _actions


def test_each_method_names_its_action() -> None:
    """
    The names on the wire are the vendor's, downloadHTML's misprint in his table included.
    """
    assert "user.getStats" == _actions.user_get_stats().name
    assert "collection.getStats" == _actions.collection_get_stats("fxh4k89").name
    assert "collection.getList" == _actions.collection_get_list().name
    assert "collection.downloadHTML" == _actions.collection_download_html("fxh4k89").name


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        ({}, {}),
        ({"pages": True}, {"includePageStats": "true"}),
        ({"start_date": "2026-01-01"}, {"startDate": "2026-01-01"}),
        (
            {"start_date": date(2026, 1, 1), "end_date": datetime(2026, 1, 31, 23, 59)},
            {"startDate": "2026-01-01", "endDate": "2026-01-31"},
        ),
    ],
)
def test_statistics_take_days_and_pages(arguments: dict[str, Any], params: dict[str, str]) -> None:
    """
    Dates and text mean the same, and what is not asked for is not sent.
    """
    action = _actions.collection_get_stats("fxh4k89", **arguments)

    assert {"collectionHash": "fxh4k89", **params} == action.params
    assert Effect.READ is action.effect


@pytest.mark.parametrize(
    "day", ["2026-13-01", "2026-02-30", "20260101", "2026-W01-1", "1.1.2026", "", " 2026-01-01"]
)
@pytest.mark.parametrize("field", ["start_date", "end_date"])
def test_a_wrong_day_is_named(field: str, day: str) -> None:
    """
    A date that is none is found before anything is sent.
    """
    with pytest.raises(InvalidArgumentError, match=f"{field}: .*YYYY-MM-DD"):
        _actions.days(**{"start_date": None, "end_date": None, field: day})


def test_days_go_forward() -> None:
    """
    A range that ends before it starts is refused.
    """
    with pytest.raises(InvalidArgumentError, match="end_date: 2026-01-01 is before"):
        _actions.days("2026-01-02", "2026-01-01")


@pytest.mark.parametrize("ref", ["fxh4k89", Collection("fxh4k89"), CollectionStats("fxh4k89")])
def test_whatever_has_a_hash_is_a_ref(ref: _actions.Ref) -> None:
    """
    A hash, a collection and its statistics refer to the same.
    """
    assert {"collectionHash": "fxh4k89"} == _actions.collection_download_html(ref).params


@pytest.mark.parametrize("ref", ["", " ", "a\nb", "a\x00", "\ud800", 3, None, object()])
def test_what_has_no_hash_is_refused(ref: Any) -> None:
    """
    A ref that can't be sent raises before a call.
    """
    with pytest.raises(InvalidArgumentError):
        _actions.collection_get_stats(ref)


def test_a_listing_begins_without_a_number() -> None:
    """
    Where the vendor starts to count is not known, so the first page is asked for without `from`.
    """
    first = _actions.collection_get_list(query="ü & more")

    assert {"query": "ü & more"} == _actions.page_from(0, first).params
    assert {"query": "ü & more", "from": "50"} == _actions.page_from(50, first).params


class Status(enum.StrEnum):
    PUBLIC = "public"


class OldStatus(str, enum.Enum):  # noqa: UP042  str() of such a member is not its text
    PUBLIC = "public"


NOON = datetime(2026, 1, 31, 12)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-12, "-12"),
        ("a & b = ü", "a & b = ü"),
        ("", ""),
        (Status.PUBLIC, "public"),
        (OldStatus.PUBLIC, "public"),
        (NOON.date(), "2026-01-31"),
    ],
)
def test_values_are_written_as_the_vendor_reads_them(value: Any, text: str) -> None:
    """
    One table says how a value is signed and sent.
    """
    assert {"x": text} == _actions.texts({"x": value, "y": None})


@pytest.mark.parametrize("value", [1.5, ["a"], {"a": 1}, b"a", "a\r\nb", "\x7f", "\udfff", NOON])
def test_values_without_a_written_form_are_refused(value: Any) -> None:
    """
    What has no one form on the wire is refused by its name.
    """
    with pytest.raises(InvalidArgumentError) as caught:
        _actions.texts({"title": value})
    assert "title" == caught.value.field


@pytest.mark.parametrize(
    "name", ["signature", "apiKey", "action", "format", "callback", "file", "", 'a"b', "a\\b"]
)
def test_reserved_names_are_refused(name: str) -> None:
    """
    Nobody overrides what the call path sets, asks for another format, or names what forms quote.
    """
    with pytest.raises(InvalidArgumentError, match="params"):
        _actions.texts({name: "x"})


@pytest.mark.parametrize(
    ("name", "effect", "upload"),
    [
        ("collection.getStats", Effect.READ, False),
        ("zapier.getZapierLeadFormSample", Effect.READ, False),
        ("collection.deleteCollection", Effect.CONVERGENT, False),
        ("collection.create", Effect.ONCE, True),
        ("flipbook.delete", Effect.ONCE, False),
        ("collection.inventedTomorrow", Effect.ONCE, False),
    ],
)
def test_an_action_that_is_not_known_goes_out_once(name: str, effect: Effect, upload: bool) -> None:
    """
    Without knowing better, a call is taken for one that must not be repeated.
    """
    action = _actions.any_action(name)

    assert (effect, upload) == (action.effect, action.upload)
    assert Effect.READ is _actions.any_action(name, effect=Effect.READ).effect
