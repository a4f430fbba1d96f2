"""From bytes to objects and errors: the vendor's own examples, and all that may come instead."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipsnack_async import (
    APIError,
    CollectionStats,
    FlipsnackError,
    InvalidAnswerError,
    Package,
    PageStats,
    RateLimitError,
    UploadQuotaError,
    UserStats,
    errors,
)
from flipsnack_async._envelope import decode
from flipsnack_async.models import Collection, CollectionPage

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
    assert {} == decode(DELETED, "collection.deleteCollection", dict, {})
    with pytest.raises(InvalidAnswerError, match="data: is missing"):
        user_stats(DELETED)


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
    assert (
        Collection("fxh4k89", title="Spring", extra={"thumb": "x", "title": "y"}),
    ) == page.collections


@pytest.mark.parametrize("data", [[], {"collections": []}])
def test_an_empty_page_has_no_collections(data: object) -> None:
    """
    PHP writes an empty object as an empty list; past the end of a listing that is an empty page.
    """
    body = json.dumps({"code": 20, "data": data}).encode()

    assert () == decode(body, "collection.getList", CollectionPage, {}).collections


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
    ids=repr,
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
        (b'{"code": 20, "data": {"views": ' + b"9" * 5000 + b"}}", "no JSON"),
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
        decode(USER_STATS, "user.getStats", UserStats, {}, 503)
    with pytest.raises(errors.MaintenanceError):
        decode(b'{"code": 22, "status": ""}', "user.getStats", UserStats, {}, 503)


@pytest.mark.parametrize(
    ("data", "reply", "field"),
    [
        ({"pages": [{"page": 1}, {"page": "x"}]}, CollectionStats, "data.pages[1].page"),
        ({"pages": ["x"]}, CollectionStats, "data.pages[0]"),
        ({"pages": 3}, CollectionStats, "data.pages"),
        (
            {"collections": [{"collectionTitle": "x"}]},
            CollectionPage,
            "data.collections[0].collectionHash",
        ),
        (
            {"collections": [{"collectionHash": 3}]},
            CollectionPage,
            "data.collections[0].collectionHash",
        ),
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
        success(views=1, bounce={"a": [1]}, collection_hash="other", extra=4),
        "collection.getStats",
        CollectionStats,
        known,
    )

    assert "fxh4k89" == stats.collection_hash
    assert {"bounce": {"a": [1]}, "collection_hash": "other", "extra": 4} == stats.extra


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_repairing_leaves_good_json_alone(value: object) -> None:
    """
    The lenient second try changes nothing that was right, whatever its strings hold.
    """
    from flipsnack_async._envelope import _without_trailing_commas

    text = json.dumps(value)

    assert text == _without_trailing_commas(text)


@settings(max_examples=500, deadline=None)
@given(
    st.binary()
    | st.text().map(str.encode)
    | JSON.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: json.dumps({"code": 20, "data": value}).encode())
    | st.integers(0, len(COLLECTION_STATS) - 1).map(lambda cut: COLLECTION_STATS[:cut])
)
def test_nothing_but_our_errors_comes_out(body: bytes) -> None:
    """
    Any bytes give an object or an error of ours.
    """
    try:
        stats = decode(body, "any", CollectionStats, {"collection_hash": "fxh4k89"})
    except FlipsnackError:
        return

    assert 20 == int(json.loads(body)["code"])
    assert "fxh4k89" == stats.collection_hash
