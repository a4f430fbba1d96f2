"""From bytes to objects and errors: the vendor's own examples, and all that may come instead."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipsnack_async import (
    APIError,
    Collection,
    CollectionStats,
    Embed,
    InvalidAnswerError,
    Package,
    PageStats,
    RateLimitError,
    UploadQuotaError,
    UserStats,
    errors,
)
from flipsnack_async._collection_state import LONGEST_WALK
from flipsnack_async._envelope import MOST_UNREADABLE, decode
from flipsnack_async._strict_json import _without_trailing_commas
from flipsnack_async.models import CollectionPage

# The documented examples, as they stand on the vendor's pages.
USER_STATS = b"""{
    "code": 20,
    "status": "OK",
    "data": {
        "impressions": 2945,
        "views": 3719,
        "time_spent": 154,
        "downloads": 28,
        "api_uploads_left": 53
    }
}"""
COLLECTION_STATS = b"""{
    "code": 20,
    "status": "OK",
    "data": {
        "impressions": 723,
        "views": 1240,
        "time_spent": 53,
        "downloads": 4,
        "pages": [
            {"page": 1, "time_spent": 127443, "clicks": 392, "views": 4529},
            {"page": 2, "time_spent": 89382, "clicks": 171, "views": 4130}
        ]
    }
}"""
DELETED = b'{"code": 20, "status": "OK"}'
PACKAGE = (
    b'{"code": 20,"status": "OK","data": '
    b'{"status": "COMPLETE","resourceUrl": "resource.url.example",}}'
)
PACKAGE_AS_XML = (
    b'<?xml version="1.0" encoding="utf-8"?><response><code>20</code><status>OK</status><data>'
    b"<status>COMPLETE</status><resourceUrl>https://resource.url.example.com/my-collection.zip"
    b"</resourceUrl></data></response>"
)
PACKAGE_AS_JSONP = b"callbackFunctionName({data});"


def user_stats(body: bytes | str) -> UserStats:
    return decode(body.encode() if isinstance(body, str) else body, "user.getStats", UserStats, {})


def success(**data: Any) -> bytes:
    return json.dumps({"code": 20, "status": "OK", "data": data}).encode()


def test_the_documented_user_stats() -> None:
    """
    The vendor's example of user.getStats comes out field by field.
    """
    assert UserStats(
        impressions=2945, views=3719, time_spent=154, downloads=28, api_uploads_left=53
    ) == user_stats(USER_STATS)


def test_the_documented_collection_stats() -> None:
    """
    The vendor's example of collection.getStats comes out with its pages, odd numbers and all.
    """
    stats = decode(
        COLLECTION_STATS, "collection.getStats", CollectionStats, {"collection_hash": "fxh4k89"}
    )

    assert (
        CollectionStats(
            "fxh4k89",
            impressions=723,
            views=1240,
            time_spent=53,
            downloads=4,
            pages=(
                PageStats(page=1, time_spent=127443, clicks=392, views=4529),
                PageStats(page=2, time_spent=89382, clicks=171, views=4130),
            ),
        )
        == stats
    )
    assert stats.likes is None


def test_the_documented_package_with_its_trailing_comma() -> None:
    """
    The vendor's malformed example of downloadHTML is read all the same.
    """
    package = decode(PACKAGE, "collection.downloadHTML", Package, {"collection_hash": "d3m0h45h"})

    assert ("COMPLETE", "resource.url.example") == (package.status, package.resource_url)
    assert "resource.url" not in repr(package)


def test_the_documented_deletion_has_no_data() -> None:
    """
    An answer without data is a success where nothing but success is asked for.
    """
    decode(DELETED, "collection.deleteCollection", type(None), {})
    assert {} == decode(DELETED, "collection.deleteCollection", dict, {})
    with pytest.raises(InvalidAnswerError, match="data: is missing"):
        user_stats(DELETED)


@pytest.mark.parametrize("data", [None, [], {}, {"collectionHash": 3}, "gone", 0, [1]])
def test_a_deletion_is_done_whatever_data_came(data: object) -> None:
    """
    Of a deletion nothing but its success is read.
    """
    body = json.dumps({"code": 20, "status": "OK", "data": data}).encode()
    answer: object = decode(body, "collection.deleteCollection", type(None), {})

    assert answer is None


@pytest.mark.parametrize("body", [PACKAGE_AS_XML, PACKAGE_AS_JSONP], ids=["xml", "jsonp"])
def test_formats_never_asked_for_are_refused(body: bytes) -> None:
    """
    The older formats are no answers to us.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        decode(body, "collection.downloadHTML", Package, {"collection_hash": "d3m0h45h"})
    assert caught.value.field is None


def test_a_list_is_read_in_our_names() -> None:
    """
    What is known of a collection is renamed, the rest is kept as it came.
    """
    body = success(
        collectionCount="2",
        collections=[
            {"collectionHash": "fxh4k89", "collectionTitle": "Spring", "thumb": "x", "title": "y"}
        ],
    )
    page = decode(body, "collection.getList", CollectionPage, {})

    assert 2 == page.count
    extra = {"thumb": "x", "title": "y"}
    assert (
        Collection("fxh4k89", title="Spring", thumbnail_url="x", extra=extra),
    ) == page.collections


@pytest.mark.parametrize("data", [[], {"collections": []}])
def test_an_empty_page_has_no_collections(data: object) -> None:
    """
    PHP writes an empty object as an empty list; past the end of a listing that is an empty page.
    """
    body = json.dumps({"code": 20, "data": data}).encode()

    assert () == decode(body, "collection.getList", CollectionPage, {}).collections


def test_a_page_survives_what_cannot_be_read() -> None:
    """
    One bad collection of a page takes no other with it, and what is wrong with it is told.
    """
    good = [{"collectionHash": "fxh4k89"}, {"collectionHash": "d3m0h45h"}]
    bad: list[Any] = [{"collectionTitle": "x"}, {"collectionHash": None}, [], None, "fxh4k89"]
    bad += [{"collectionHash": 3}, {"collectionHash": "fxh4k89", "collectionWidth": "wide"}]
    body = success(collections=[good[0], *bad, good[1]])
    page = decode(body, "collection.getList", CollectionPage, {})

    assert ["fxh4k89", "d3m0h45h"] == [c.collection_hash for c in page.collections]
    assert [
        ("data.collections[1].collectionHash", "is missing"),
        ("data.collections[2].collectionHash", "is no text"),
        ("data.collections[3]", "is no object"),
        ("data.collections[4]", "is no object"),
        ("data.collections[5]", "is no object"),
        ("data.collections[6].collectionHash", "is no text"),
        ("data.collections[7].collectionWidth", "is no whole number"),
    ] == [(error.field, error.reason) for error in page.unreadable]
    assert all(error.action == "collection.getList" for error in page.unreadable)


def test_a_page_of_nothing_readable_ends_somewhere() -> None:
    """
    So much that cannot be read is no page: its errors would take more room than its text.
    """
    body = success(collections=[0] * MOST_UNREADABLE)
    page = decode(body, "any", CollectionPage, {})
    assert MOST_UNREADABLE == len(page.unreadable)

    with pytest.raises(
        InvalidAnswerError, match=r": holds too many that cannot be read$"
    ) as caught:
        decode(success(collections=[0] * (MOST_UNREADABLE + 1)), "any", CollectionPage, {})
    assert "data.collections" == caught.value.field


@pytest.mark.parametrize("collections", [None, "", "fxh4k89", {}, {"0": {}}, 0, False])
def test_a_page_without_a_list_is_none(collections: object) -> None:
    """
    What is no list is not taken for the end of a listing.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        decode(success(collections=collections), "any", CollectionPage, {})
    assert "data.collections" == caught.value.field


def test_an_embed_is_read_in_our_names() -> None:
    """
    The embed code comes with the hash that it was asked for.
    """
    html = '<iframe src="https://player.example/?hash=fxh4k89"></iframe>'
    known = {"collection_hash": "fxh4k89"}
    embed = decode(success(embedCode=html, more=1), "collection.getEmbed", Embed, known)

    assert Embed("fxh4k89", html, extra={"more": 1}) == embed
    with pytest.raises(InvalidAnswerError, match=r"data\.embedCode: is missing"):
        decode(success(), "collection.getEmbed", Embed, known)


@pytest.mark.parametrize(
    ("data", "collection_hash"),
    [
        ({"collectionHash": "new"}, "new"),
        ({"collectionHash": None}, "old"),
        ({"collectionTitle": "x"}, "old"),
        ([], "old"),
        (None, "old"),
    ],
)
def test_a_fallback_fills_in_what_did_not_come(data: object, collection_hash: str) -> None:
    """
    What the answer says counts more than what it was asked, and that more than nothing.
    """
    body = json.dumps({"code": 20, "data": data}).encode()
    collection = decode(body, "any", Collection, {}, {"collection_hash": "old"})

    assert collection_hash == collection.collection_hash
    bare = b'{"code": 20}'
    assert "old" == decode(bare, "any", Collection, {}, {"collection_hash": "old"}).collection_hash


def test_a_fallback_excuses_nothing_else() -> None:
    """
    Data that is no object, and a wrong value where a fallback is, are wrong all the same.
    """
    with pytest.raises(InvalidAnswerError, match="data: is no object"):
        decode(b'{"code": 20, "data": "x"}', "any", Collection, {}, {"collection_hash": "old"})
    with pytest.raises(InvalidAnswerError, match=r"data\.collectionHash: is no text"):
        decode(success(collectionHash=3), "any", Collection, {}, {"collection_hash": "old"})


def test_what_is_known_wins_over_the_answer() -> None:
    """
    A known field is as known, whatever its name on the wire; what came instead is in *extra*.
    """
    body = success(collectionHash="other", collectionTitle=3)
    known = {"collection_hash": "fxh4k89", "title": "Spring"}

    extra = {"collectionHash": "other", "collectionTitle": 3}
    expected = Collection("fxh4k89", title="Spring", extra=extra)
    assert expected == decode(body, "any", Collection, known, {"collection_hash": "old"})


# What the vendor calls the state is not known: none of these names is his.
@pytest.mark.parametrize(
    ("data", "state"),
    [
        ({}, None),
        ({"state": "processing"}, "processing"),
        ({"status": "COMPLETE"}, "COMPLETE"),
        ({"itemStatus": "Failed"}, "Failed"),
        ({"item_state": "completed"}, "completed"),
        ({"ITEMSTATE": "complete"}, "complete"),
        ({"state": "converting"}, "converting"),
        ({"items": [{"status": "complete"}, {"status": "processing"}]}, "processing"),
        ({"items": [{"status": "processing"}, {"status": "failed"}]}, "failed"),
        ({"items": [{"status": "complete"}, {"status": "queued"}]}, "queued"),
        ({"status": "processing", "items": [{"status": "complete"}]}, "processing"),
        ({"linkStatus": "on", "items": [{"status": "complete"}]}, "complete"),
        ({"items": {"1": {"conversion": {"state": "complete"}}}}, "complete"),
        ({"collectionStatus": "processing"}, "processing"),
        ({"collectionStatus": "Complete", "state": "failed"}, "failed"),
        ({"collectionStatus": "public", "status": "complete"}, "complete"),
        ({"collectionStatus": "archived"}, None),
        ({"status": "public"}, None),
        ({"status": "Unlisted", "itemStatus": "PRIVATE", "state": "editable"}, None),
        ({"status": ""}, None),
        ({"status": 3, "state": None, "itemState": True}, None),
        ({"states": "complete", "statusText": "complete", "stat": "complete"}, None),
    ],
)
def test_the_state_is_found_whatever_it_is_called(data: dict[str, Any], state: object) -> None:
    """
    The least finished of all that is called a status or a state is the state, in his own word.
    """
    body = success(collectionHash="fxh4k89", **data)
    collection = decode(body, "collection.getCollection", Collection, {})

    assert state == collection.state
    assert data.get("collectionStatus") == collection.status
    assert {n: v for n, v in data.items() if n != "collectionStatus"} == collection.extra


# Nor is what the vendor calls the thumbnail.
@pytest.mark.parametrize(
    ("data", "thumbnail_url"),
    [
        ({}, None),
        ({"thumb": "a"}, "a"),
        ({"collectionThumbnailUrl": "a", "zThumb": "b"}, "a"),
        ({"items": [{"THUMB": "b"}], "thumb": "a"}, "a"),
        ({"thumbnails": {"small": "a", "large": "b"}}, "a"),
        ({"thumbs": ["a", "b"]}, "a"),
        ({"thumb": "", "thumb2": "a"}, "a"),
        ({"thumb": 3, "thumbnail": None}, None),
        ({"thumbnail_url": "a"}, "a"),
        ({"thumbnail_url": 3}, None),
    ],
)
def test_the_thumbnail_is_found_whatever_it_is_called(
    data: dict[str, Any], thumbnail_url: str | None
) -> None:
    """
    The first text in what is called a thumb is its address, and stays where it was.
    """
    body = success(collectionHash="fxh4k89", **data)
    collection = decode(body, "collection.getCollection", Collection, {})

    assert thumbnail_url == collection.thumbnail_url
    assert data == collection.extra


def test_the_search_for_a_state_ends() -> None:
    """
    However much came, so many values are looked at, the outermost first.
    """
    pages = [{"width": 650}] * LONGEST_WALK
    outer = success(collectionHash="x", pages=pages, status="failed")
    inner = success(collectionHash="x", pages=[*pages, {"status": "failed"}])

    assert "failed" == decode(outer, "any", Collection, {}).state
    assert decode(inner, "any", Collection, {}).state is None


@pytest.mark.parametrize(
    ("sent", "read"),
    [(7, 7), ("7", 7), ("-7", -7), (7.0, 7), (None, None), (2**63 - 1, 2**63 - 1)],
)
def test_counts_may_come_as_text(sent: object, read: int | None) -> None:
    """
    A whole number is read from whatever writes it without loss; null is unknown, never 0.
    """
    views = user_stats(success(views=sent)).views

    assert read == views
    assert type(views) is type(read)


@pytest.mark.parametrize(
    "sent",
    [True, 1.9, "1.9", "1_000", "١٢", " 7", "", "7 ", 2**63, str(2**63), -(2**63) - 1, [], {}],
)
def test_what_is_no_count_is_refused(sent: object) -> None:
    """
    Nothing is rounded, cut or guessed where a count is meant: the field is named.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        user_stats(success(views=sent))
    assert "data.views" == caught.value.field


@pytest.mark.parametrize(("sent", "read"), [(1.5, 1.5), ("1.5", 1.5), ("3", 3), (0, 0)])
def test_seconds_may_have_decimals(sent: object, read: float) -> None:
    """
    A duration is any finite number.
    """
    assert read == user_stats(success(time_spent=sent)).time_spent


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["time_spent", "unknown"])
def test_numbers_that_are_none_are_refused(number: str, field: str) -> None:
    """
    No infinity and no NaN gets in, not even where the field is not known.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        user_stats(f'{{"code": 20, "data": {{"{field}": {number}}}}}')
    assert f"data.{field}" == caught.value.field


@pytest.mark.parametrize("code", ["true", "20.0", "null", '"20x"', '""', "[20]", '"\uff12\uff10"'])
def test_only_twenty_is_success(code: str) -> None:
    """
    Whatever is nearly the code 20 is no success.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        user_stats(f'{{"code": {code}, "data": {{}}}}')
    assert "code" == caught.value.field


def test_a_code_as_text_counts() -> None:
    """
    The text "20" is success and the text "43" is an error.
    """
    assert UserStats() == user_stats('{"code": "20", "data": {}}')
    with pytest.raises(errors.CollectionUnavailableError):
        user_stats('{"code": "43", "status": "Forbidden"}')


@pytest.mark.parametrize("codes", ['"code": 44, "code": 20', '"code": 20, "code": 20'])
def test_two_codes_are_refused(codes: str) -> None:
    """
    A second code can't turn an error into a success.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        user_stats(f'{{{codes}, "data": {{}}}}')
    assert "code" == caught.value.field


@pytest.mark.parametrize(("code", "kind"), errors.CODES.items())
def test_each_code_raises_its_class(code: int, kind: type[APIError]) -> None:
    """
    The vendor's codes arrive as classes, with code and message as he sent them.
    """
    with pytest.raises(kind) as caught:
        user_stats(json.dumps({"code": code, "status": "His words"}))
    assert (code, "His words", "user.getStats") == caught.value.args


def test_an_unknown_code_is_an_api_error() -> None:
    """
    A code that no page explains still tells its number.
    """
    with pytest.raises(APIError, match="code 47"):
        user_stats('{"code": 47, "status": "News"}')


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (32, "Requests per minute limit exceeded", RateLimitError),
        (32, "Uploads per month limit exceeded", UploadQuotaError),
        (32, "", RateLimitError),
        (33, "Uploads per month exceeded", UploadQuotaError),
    ],
)
def test_code_32_means_what_its_text_says(code: int, message: str, kind: type) -> None:
    """
    The vendor's pages contradict each other on 32, so its text decides.
    """
    with pytest.raises(kind):
        user_stats(json.dumps({"code": code, "status": message}))


def test_the_server_writes_nothing_but_text_into_errors() -> None:
    """
    Control characters from the server don't reach a terminal, nor more than 200 letters.
    """
    with pytest.raises(APIError) as caught:
        user_stats(json.dumps({"code": 43, "status": "\x1b[31mred\r\n" + "x" * 999}))

    assert "[31mred" in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= 200


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"<html><body>502 Bad Gateway</body></html>", "page"),
        (b'{"code": 20, "data": {"vie', "torn"),
        (b'Warning: x in y.php\n{"code": 20}', "no JSON"),
        (b'{"code": 20, "data": {"views": NaN', "torn"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[20]", "no envelope"),
        (b"20", "no envelope"),
        (b'{"code": 20, "data": {}}'.decode().encode("utf-16"), "UTF-8"),
        (b'{"code": 20, "data": {"x": "\xe9"}}', "UTF-8"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_no_envelope_says_so(body: bytes, reason: str) -> None:
    """
    No other bytes are taken for an answer, and none of them gets into the error.
    """
    with pytest.raises(InvalidAnswerError, match=reason) as caught:
        user_stats(body)
    assert caught.value.field is None
    assert "Gateway" not in str(caught.value)


def test_a_byte_order_mark_is_harmless() -> None:
    """
    An answer may begin with a byte order mark.
    """
    assert 3719 == user_stats(b"\xef\xbb\xbf" + USER_STATS).views


def test_an_error_page_is_not_success() -> None:
    """
    HTTP 5xx with the code of success is none; with another code, the code decides.
    """
    with pytest.raises(InvalidAnswerError, match="HTTP 503"):
        decode(USER_STATS, "user.getStats", UserStats, {}, http_status=503)
    with pytest.raises(errors.MaintenanceError):
        decode(b'{"code": 22, "status": ""}', "user.getStats", UserStats, {}, http_status=503)


@pytest.mark.parametrize(
    ("data", "reply", "field"),
    [
        ({"pages": [{"page": 1}, {"page": "x"}]}, CollectionStats, "data.pages[1].page"),
        ({"pages": ["x"]}, CollectionStats, "data.pages[0]"),
        ({"pages": 3}, CollectionStats, "data.pages"),
        ({"pages": {}}, CollectionStats, "data.pages"),
        ({"pages": ""}, CollectionStats, "data.pages"),
        ({}, CollectionPage, "data.collections"),
        ({}, Package, "data.status"),
    ],
)
def test_a_wrong_field_is_named_as_the_vendor_does(
    data: dict[str, Any], reply: type, field: str
) -> None:
    """
    The error leads to the place in the answer, by the names on the wire.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        decode(success(**data), "any", reply, {"collection_hash": "fxh4k89"})
    assert field == caught.value.field


def test_unknown_fields_are_kept() -> None:
    """
    What the vendor adds one day is in *extra*, and can't overwrite what we asked for.
    """
    known = {"collection_hash": "fxh4k89"}
    stats = decode(
        success(views=1, bounce={"a": [1]}, collection_hash="other", extra=4, start_date="x"),
        "collection.getStats",
        CollectionStats,
        known,
    )

    assert "fxh4k89" == stats.collection_hash
    assert stats.start_date is None
    assert {
        "bounce": {"a": [1]},
        "collection_hash": "other",
        "extra": 4,
        "start_date": "x",
    } == stats.extra


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_repairing_leaves_good_json_alone(value: object) -> None:
    """
    The lenient second try changes nothing that was right, whatever its strings hold.
    """
    text = json.dumps(value)

    assert text == _without_trailing_commas(text)


def test_what_was_created_is_not_lost_for_an_odd_field() -> None:
    """
    The hash of a new collection is handed out whatever else cannot be read, and all that came.
    """
    data = {"collectionHash": "new", "collectionWidth": "wide"}
    created = decode(success(**data), "collection.create", Collection, {})

    assert Collection("new", extra=data) == created
    for action, wrong in (
        ("collection.create", {**data, "collectionHash": ""}),
        ("collection.create", {**data, "collectionHash": 3}),
        ("collection.getCollection", data),
    ):
        with pytest.raises(InvalidAnswerError):
            decode(success(**wrong), action, Collection, {})


@pytest.mark.parametrize("status", [5, None, [], {}, "", " \n"])
def test_a_status_without_a_text_says_nothing(status: object) -> None:
    """
    What is no text, or none that can be seen, is left out of the error.
    """
    body = json.dumps({"code": 46, "status": status}).encode()
    with pytest.raises(errors.CollectionUnavailableError) as caught:
        decode(body, "any", UserStats, {})

    assert "" == caught.value.message


@pytest.mark.parametrize(
    ("sent", "field", "reason"),
    [
        ({"views": 1.5}, "data.views", "is no whole number"),
        ({"views": 2**63}, "data.views", "is beyond 64 bits"),
        ({"views": -(2**63) - 1}, "data.views", "is beyond 64 bits"),
        ({"views": str(2**63)}, "data.views", "is beyond 64 bits"),
        ({"views": str(-(2**63) - 1)}, "data.views", "is beyond 64 bits"),
        ({"time_spent": "soon"}, "data.time_spent", "is no number"),
        ({"time_spent": [float("inf")]}, "data.time_spent[0]", "is no finite number"),
        ({"pages": {}}, "data.pages", "is no list"),
        ({"pages": [{}, 3]}, "data.pages[1]", "is no object"),
        ({"pages": [{}, {"clicks": "x"}]}, "data.pages[1].clicks", "is no whole number"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    sent: dict[str, Any], field: str, reason: str
) -> None:
    """
    Where exactly something is wrong, and what, is told in plain words.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        decode(success(**sent), "any", CollectionStats, {"collection_hash": "fxh4k89"})

    assert (field, reason) == (caught.value.field, caught.value.reason)


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (b'{"status": "OK"}', "code", "is missing"),
        (b'{"code": true}', "code", "is no whole number"),
        (b'{"code": 20, "code": 20}', "code", "comes twice"),
        (b'{"code": 20, "data": 3}', "data", "is no object"),
        (b'{"code": 20, "data": {}}', "data.collections", "is missing"),
        (b'{"code": 20, "data": {"collections": 3}}', "data.collections", "is no list"),
        (
            b'{"code": 20, "data": {"collections": [{"collectionHash": ""}]}}',
            "data.collections[0].collectionHash",
            "is empty",
        ),
        (b"[]", None, "the answer is JSON but no envelope"),
        (b" <html>", None, "a page came instead of an answer"),
    ],
)
def test_what_is_no_page_is_told_with_its_place(
    body: bytes, field: str | None, reason: str
) -> None:
    """
    What is wrong with a page, or with one of its collections, is told in plain words.
    """
    try:
        (error,) = decode(body, "any", CollectionPage, {}).unreadable
    except InvalidAnswerError as raised:
        error = raised

    assert (field, reason) == (error.field, error.reason)


@pytest.mark.parametrize(("http_status", "good"), [(404, True), (499, True), (500, False)])
def test_success_is_not_believed_of_a_server_that_failed(http_status: int, good: bool) -> None:
    """
    A server's own failure is no success, whatever its envelope says; other statuses don't count.
    """
    with nullcontext() if good else pytest.raises(InvalidAnswerError) as caught:
        decode(USER_STATS, "any", UserStats, {}, http_status=http_status)

    if caught:
        assert ("claims success", http_status) == (caught.value.reason, caught.value.http_status)


@pytest.mark.parametrize("data", [[1], "text", 3, False])
def test_what_an_unknown_action_answers_is_handed_out(data: object) -> None:
    """
    Of an undocumented action whatever came is handed out, by its name where it is no object.
    """
    answer: Any = decode(json.dumps({"code": 20, "data": data}).encode(), "any", dict, {})

    assert {"data": data} == answer


def test_an_error_is_cut_to_a_line() -> None:
    """
    Of a long text that came from the server 200 characters are shown, and its line ends are not.
    """
    body = json.dumps({"code": 46, "status": "a\n" * 200}).encode()
    with pytest.raises(errors.CollectionUnavailableError) as caught:
        decode(body, "any", UserStats, {})

    assert ("a " * 100).strip() == caught.value.message
    one_more = json.dumps({"code": 46, "status": "x" * 201}).encode()
    with pytest.raises(errors.CollectionUnavailableError) as caught:
        decode(one_more, "any", UserStats, {})
    assert "x" * 200 == caught.value.message


def test_a_fallback_goes_by_our_names() -> None:
    """
    A field that is called the same on the wire has a fallback, too, also in the place of nothing.
    """
    for status in (None, ""):
        package = decode(
            success(status=status), "any", Package, {"collection_hash": "a"}, {"status": "x"}
        )
        assert "x" == package.status


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**19, -(10**19), 10**4000])
def test_b14_no_number_is_beyond_64_bits(number: int) -> None:
    """
    A whole number that no database could hold is refused, also where nobody knows the field.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        user_stats(success(unknown=[number]))

    assert ("data.unknown[0]", "is beyond 64 bits") == (caught.value.field, caught.value.reason)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 10**18])
def test_b14_what_fits_into_64_bits_is_exact(number: int) -> None:
    """
    The largest and the least number that a database holds come out as they went in.
    """
    assert {"unknown": number} == user_stats(success(unknown=number)).extra


def test_b8_only_a_code_must_not_come_twice() -> None:
    """
    Of other fields that come twice the last one counts.
    """
    body = b'{"code": 20, "status": "a", "status": "b", "data": {"views": 1, "views": 2}}'

    assert UserStats(views=2) == user_stats(body)
