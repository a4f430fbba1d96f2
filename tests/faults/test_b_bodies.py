"""Faults of bodies and envelopes, B1 to B23, read without a socket."""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import AsyncIterator
from traceback import TracebackException
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import answering, page

from flipsnack_async import (
    APIError,
    Collection,
    CollectionStats,
    Flipsnack,
    InvalidAnswerError,
    Package,
    PageStats,
    UploadOutcomeUnknownError,
    UserStats,
)
from flipsnack_async._envelope import decode
from flipsnack_async._strict_json import DEEPEST
from flipsnack_async.models import CollectionPage

GOOD = {"code": 20, "status": "OK", "data": {"views": 7, "new": ["a", {"b": 'x,} "y",]'}]}}
SEVEN = UserStats(views=7)
UPLOAD = {"fileUrl": "https://example.com/a.pdf"}

texts = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs too


def read(body: bytes | str | dict[str, Any], reply: type = UserStats, **options: Any) -> Any:
    if isinstance(body, dict):
        body = json.dumps(body)
    body = body.encode() if isinstance(body, str) else body
    known = {} if reply is Collection else {"collection_hash": "fxh4k89"}
    return decode(body, "any", reply, known, **options)


def ok(**data: Any) -> dict[str, Any]:
    return {"code": 20, "status": "OK", "data": data}


def wrong(body: bytes | str | dict[str, Any], reply: type = UserStats) -> InvalidAnswerError:
    with pytest.raises(InvalidAnswerError) as caught:
        read(body, reply)
    return caught.value


def empty(status: int) -> Any:
    return lambda: httpx.Response(status)


# --- B1, B4: no envelope


@pytest.mark.anyio
@pytest.mark.parametrize("nothing", [empty(200), empty(204), page(200), page(403)])
async def test_b1_b4_a_read_without_an_answer_is_repeated(nothing: Any) -> None:
    """
    An empty body and a page are no answers; who only reads asks again.
    """
    transport, seen = answering(nothing, GOOD)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        assert 7 == (await flipsnack.user.get_stats()).views

    assert 2 == len(seen)


@pytest.mark.anyio
@pytest.mark.parametrize("nothing", [empty(200), empty(204), page(200), page(403)])
async def test_b1_b4_an_upload_without_an_answer_is_in_doubt(nothing: Any) -> None:
    """
    An upload that gets an empty body or a page is not sent a second time.
    """
    transport, seen = answering(nothing, GOOD)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError):
            await flipsnack.call("collection.create", UPLOAD)

    assert 1 == len(seen)


# --- B2 to B6: text that is none of JSON, or nearly none


def test_b2_a_torn_answer_is_no_answer() -> None:
    """
    Wherever an answer is cut, what is left is refused.
    """
    body = json.dumps(GOOD)
    cuts = [wrong(body[:cut]) for cut in range(len(body))]

    assert {None} == {error.field for error in cuts}
    assert {"the answer is empty", "the answer is torn or no JSON"} == {e.reason for e in cuts}


def test_b3_only_trailing_commas_are_forgiven() -> None:
    """
    A trailing comma goes, wherever it is; commas in strings stay, and no other comma is right.
    """
    body = '{"code": 20, "data": {"views": 7, "new": ["a", {"b": "x,} \\"y\\",]",}, ], },\n}'

    assert read(GOOD) == read(body)
    for bad in ("[,]", "[1,,]", "[,1]", "[1,,2]", "{,}", "7,", "7;", "7 7"):
        assert wrong(body.replace("7", bad)).field is None


@pytest.mark.parametrize(
    "body",
    [
        "Notice: x\n%s",
        "%s\n<br />Notice: x",
        "callback(%s);",
        "<response><code>20</code></response>",
    ],
)
def test_b5_no_envelope_is_dug_out_of_something_else(body: str) -> None:
    """
    Warnings around JSON, JSONP and XML are refused, though a good answer be in there.
    """
    assert wrong(body.replace("%s", json.dumps(GOOD))).field is None


def test_b6_only_utf_8_is_read() -> None:
    """
    A byte order mark is harmless; other encodings are refused, not guessed.
    """
    body = json.dumps(ok(views=7, title="é"), ensure_ascii=False)

    assert 7 == read(b"\xef\xbb\xbf" + body.encode()).views
    for encoding in ("utf-16", "utf-32", "latin-1"):
        assert "the answer is not UTF-8 text" == wrong(body.encode(encoding)).reason


# --- B7: halves of surrogate pairs


@given(texts, texts)
def test_b7_half_pairs_become_replacement_characters(name: str, text: str) -> None:
    """
    Every string and every name comes out as UTF-8 can hold it, and whole pairs come out whole.
    """
    body = json.dumps({"code": 20, "data": {"collectionHash": f"x{text}", f"x{name}": [text]}})
    collection = read(body, Collection)

    def mended(text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    assert mended(f"x{text}") == collection.collection_hash
    assert {mended(f"x{name}"): [mended(text)]} == collection.extra


def test_b7_a_backslash_before_an_escape_is_one() -> None:
    """
    What only looks like half a pair, behind a backslash that stands for itself, is left alone.
    """
    body = r'{"code": 20, "data": {"new": ["\\ud800", "\\\ud800", "\"\ud83d\ude00", "\uD83D"]}}'

    assert [r"\ud800", "\\\ufffd", '"\N{GRINNING FACE}', "\ufffd"] == read(body).extra["new"]


# --- B8 to B12: codes and data


@pytest.mark.parametrize("first", ["44", "20", '"44"', "null"])
@pytest.mark.parametrize("name", ["code", r"\u0063ode"])
def test_b8_two_codes_are_refused(first: str, name: str) -> None:
    """
    A second code can't turn an error into a success.
    """
    error = wrong(f'{{"code": {first}, "data": {{}}, "{name}": 20}}')

    assert ("code", "comes twice") == (error.field, error.reason)


def test_b8_two_codes_inside_are_named_where_they_are() -> None:
    """
    Nor is an object in the data believed that has two.
    """
    error = wrong('{"code": 20, "data": {"log": [{}, {"code": 1, "code": 2}], "views": NaN}}')

    assert "data.log[1].code" == error.field


NO_CODES = [
    "null",
    "true",
    "20.0",
    "2e1",
    '"20.0"',
    '" 20"',
    '"+20"',
    '"\\uff12\\uff10"',
    "[20]",
    '{"20":20}',
]


@pytest.mark.parametrize("code", NO_CODES)
def test_b9_only_twenty_is_success(code: str) -> None:
    """
    What is nearly 20 is no success, and no error of the vendor's either.
    """
    assert "code" == wrong(f'{{"code": {code}, "data": {{"views": 7}}}}').field


def test_b9_twenty_as_text_is_success_and_no_code_is_not() -> None:
    """
    The number 20 and the text "20" are success; without a code there is none.
    """
    assert SEVEN == read({**ok(views=7), "code": "20"}) == read(ok(views=7))
    assert "code" == wrong({"status": "OK", "data": {"views": 7}}).field


@pytest.mark.anyio
@pytest.mark.parametrize("status", [500, 502, 503, 599])
async def test_b10_a_success_with_a_server_error_is_none(status: int) -> None:
    """
    Where HTTP tells of an error and the envelope of none, a read is repeated.
    """
    transport, seen = answering(lambda: httpx.Response(status, json=GOOD), GOOD)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        assert 7 == (await flipsnack.user.get_stats()).views

    assert 2 == len(seen)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [500, 502, 503, 599])
async def test_b10_an_upload_that_worked_with_a_server_error_is_in_doubt(status: int) -> None:
    """
    Nobody knows which of the two is true, so the document is not sent again.
    """
    created = ok(collectionHash="new1")
    transport, seen = answering(lambda: httpx.Response(status, json=created))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError, match="claims success"):
            await flipsnack.call("collection.create", UPLOAD)

    assert 1 == len(seen)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [200, 201, 400, 403, 500, 503])
@pytest.mark.parametrize("code", [41, 43, 99])
async def test_b10_an_error_in_the_envelope_is_one_whatever_http_says(
    status: int, code: int
) -> None:
    """
    A code that is no success is raised, with good news of HTTP's and with bad.
    """
    said = {"code": code, "status": "no", "data": {"views": 7}}
    transport, seen = answering(lambda: httpx.Response(status, json=said))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(APIError) as caught:
            await flipsnack.user.get_stats()

    assert code == caught.value.code
    assert 1 == len(seen)


@pytest.mark.parametrize("code", [47, 48, 99, -1, 0, 2**63 - 1])
def test_b11_an_unknown_code_is_an_error_with_its_number(code: int) -> None:
    """
    A code that no page explains is an `APIError` as such.
    """
    with pytest.raises(APIError) as caught:
        read({"code": code, "status": "News", "data": {"views": 7}})

    assert APIError is type(caught.value)
    assert (code, "News") == (caught.value.code, caught.value.message)


def test_b12_an_empty_list_is_an_empty_object() -> None:
    """
    PHP's empty object is read as one; data that is missing, or no object, is refused.
    """
    assert UserStats() == read({"code": 20, "data": []})
    assert {} == read({"code": 20}, dict) == read({"code": 20, "data": None}, dict)
    assert read({"code": 20}, type(None)) is None
    odd: list[object] = [None, "", 0, False, "x", [1], [[]]]
    for data in odd:
        assert "data" == wrong({"code": 20, "data": data}).field


# --- B13 to B18: values


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", ["time_spent", "views", "new"])
def test_b13_no_number_is_infinite_or_none(number: str, field: str) -> None:
    """
    NaN and infinities are refused by the field's name, one we know or not.
    """
    assert f"data.{field}" == wrong(f'{{"code": 20, "data": {{"{field}": {number}}}}}').field
    inside = wrong(f'{{"code": 20, "data": {{"x": [0, {{"{field}": {number}}}]}}}}')
    assert f"data.x[1].{field}" == inside.field


@pytest.mark.parametrize("digits", [20, 640, 4300, 4301, 100_000])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", ["views", "time_spent", "new"])
def test_b14_integers_beyond_64_bits_are_refused(field: str, sign: str, digits: int) -> None:
    """
    However many digits a number has, it is refused by its field and not by Python's limits.
    """
    error = wrong(f'{{"code": 20, "data": {{"x": [1], "{field}": {sign}{"9" * digits}}}}}')

    assert (f"data.{field}", "is beyond 64 bits") == (error.field, error.reason)


@given(st.integers(-(2**65), 2**65) | st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1]))
def test_b14_integers_within_64_bits_are_kept(number: int) -> None:
    """
    What a database's integers can hold comes in as it is, and nothing else does.
    """
    body = {"code": 20, "data": {"views": number, "new": number}}
    if -(2**63) <= number < 2**63:
        assert UserStats(views=number, extra={"new": number}) == read(body)
    else:
        assert "data.views" == wrong(body).field


def test_b15_negative_statistics_are_kept() -> None:
    """
    What makes no sense is kept as it came: nothing is clamped and nothing raised.
    """
    stats = UserStats(views=-7, time_spent=-0.5, api_uploads_left=-1)
    assert stats == read(ok(views=-7, time_spent=-0.5, api_uploads_left=-1))


@pytest.mark.parametrize(
    ("sent", "views"),
    [(7, 7), ("7", 7), ("-7", -7), (7.0, 7), ("007", 7), (-0.0, 0), (2.0**52, 2**52)],
)
def test_b16_numbers_may_come_as_text_or_with_empty_decimals(sent: object, views: int) -> None:
    """
    A count is read from whatever writes it without loss.
    """
    found = read(ok(views=sent)).views

    assert (views, int) == (found, type(found))


NO_COUNTS = [
    True,
    False,
    1.9,
    "1.9",
    "7.0",
    "1_000",
    "1,000",
    "\uff11\uff12",
    "١٢",
    "+7",
    " 7",
    "7\n",
]


@pytest.mark.parametrize("sent", [*NO_COUNTS, "0x7", "", "1e3", 2.0**53, "9" * 20, [7], {}])
@pytest.mark.parametrize("reply", [UserStats, CollectionStats])
def test_b16_what_would_be_rounded_or_guessed_is_refused(sent: object, reply: type) -> None:
    """
    Where a count is meant, nothing else is taken for one.
    """
    assert "data.views" == wrong(ok(views=sent), reply).field


@given(st.integers(-(10**18), 10**18), st.integers(0, 10**18))
def test_b16_seconds_may_have_decimals(whole: int, decimals: int) -> None:
    """
    A duration is any finite number, also as text.
    """
    text = f"{whole}.{decimals}"
    found = read(ok(time_spent=text)).time_spent

    assert float(text) == found
    assert math.isfinite(found)


def test_b17_null_is_unknown_and_never_zero() -> None:
    """
    What is null or missing is None, and what is not known is kept.
    """
    data: dict[str, Any] = {"views": None, "downloads": 0, "bounce": {"a": [None, 1]}}
    page = {"page": 1, "views": None, "scrolls": 2}

    assert UserStats(downloads=0, extra={"bounce": {"a": [None, 1]}}) == read(ok(**data))
    assert CollectionStats("fxh4k89", pages=(PageStats(page=1, extra={"scrolls": 2}),)) == read(
        ok(pages=[page]), CollectionStats
    )
    assert "data.status" == wrong(ok(resourceUrl="x"), Package).field


def test_b17_a_page_survives_a_bad_collection() -> None:
    """
    A collection without its hash is told of; the others are there.
    """
    found = read(
        ok(collections=[{"collectionHash": "a"}, {}, {"collectionHash": "b"}]), CollectionPage
    )

    assert ["a", "b"] == [collection.collection_hash for collection in found.collections]
    assert ["data.collections[1].collectionHash"] == [error.field for error in found.unreadable]


@pytest.mark.parametrize("word", ["complete", "ARCHIVED", "", "\N{SNOWMAN}"])
def test_b18_unknown_words_are_kept_as_they_came(word: str) -> None:
    """
    A status that no page names is no fault, in whatever case it is written.
    """
    assert word == read(ok(status=word), Package).status
    assert word == read(ok(collectionHash="x", collectionStatus=word), Collection).status


def test_b18_an_unknown_state_is_unfinished() -> None:
    """
    Beside a word that is not known, another that says complete does not count.
    """
    states = [{"state": "complete"}, {"state": "ARCHIVED"}]

    assert "ARCHIVED" == read(ok(collectionHash="x", items=states), Collection).state


# --- B19 to B22: too much


@pytest.mark.parametrize("piece", ["[", '{"a":', '[{"a":['])
@pytest.mark.parametrize("times", [DEEPEST + 1, 1_000, 100_000])
@pytest.mark.parametrize("closed", [True, False])
def test_b19_deep_nesting_is_refused(piece: str, times: int, closed: bool) -> None:
    """
    Neither Python's recursion nor its stack decides how deep an answer may be.
    """
    end = piece.replace('"a":', "").translate(str.maketrans("[{", "]}"))[::-1] if closed else ""
    body = '{"code": 20, "data": {"x": ' + piece * times + "0" + end * times

    assert "the answer is nested too deeply" == wrong(body + "}}" * closed).reason


def test_b19_brackets_in_strings_and_beside_each_other_are_not_deep() -> None:
    """
    Only what is inside of one another counts, and 64 deep is not too deep.
    """
    deepest = json.loads("[" * (DEEPEST - 2) + "]" * (DEEPEST - 2))
    data = {"a": deepest, "b": [[]] * 1_000, "[" * 1_000: '"[{\\' * 1_000}

    assert data == read(ok(**data)).extra
    assert "the answer is nested too deeply" == wrong(ok(a=[deepest])).reason


def test_b19_the_depth_does_not_depend_on_the_caller() -> None:
    """
    What is deep enough below a low recursion limit is refused in the same words.
    """
    body = '{"code": 20, "data": ' + "[" * 5_000
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        assert "the answer is nested too deeply" == wrong(body).reason
    finally:
        sys.setrecursionlimit(limit)


MEGABYTE = b" " * 2**20


class Endless(httpx.AsyncByteStream):
    """Be a body that never ends."""

    def __init__(self) -> None:
        self.megabytes = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.megabytes += 1
            yield MEGABYTE

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {"Content-Length": str(2**40)}])
async def test_b20_an_endless_body_is_left(headers: dict[str, str]) -> None:
    """
    With or without a length: no more than 8 MiB and a little is taken, and the body is closed.
    """
    body = Endless()
    transport, _ = answering(lambda: httpx.Response(200, headers=headers, stream=body))
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        with pytest.raises(InvalidAnswerError, match="too long"):
            await flipsnack.user.get_stats()

    assert 9 <= body.megabytes <= 13  # a few may be on their way
    assert body.closed


COMPRESSED = gzip.compress(json.dumps(GOOD).encode())
BOMB = gzip.compress(bytes(20 * 2**20))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", COMPRESSED),
        ("gzip", BOMB),
        ("gzip, gzip", gzip.compress(BOMB)),
        ("br", b"\x0b"),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("deflate", b""),
        ("GZIP", COMPRESSED),
    ],
    ids=["gzip", "bomb", "chain", "br", "zstd", "deflate", "capitals"],
)
async def test_b21_what_is_compressed_unasked_is_not_unpacked(encoding: str, body: bytes) -> None:
    """
    Answers are asked for as they are, and those that come compressed are refused as they are.
    """
    headers = {"Content-Encoding": encoding}
    transport, seen = answering(
        lambda: httpx.Response(200, headers=headers, stream=httpx.ByteStream(body))
    )
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        with pytest.raises(InvalidAnswerError, match="compressed"):
            await flipsnack.user.get_stats()

    assert "identity" == seen[0].headers["Accept-Encoding"]


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
async def test_b22_half_a_gzip_is_no_answer(headers: dict[str, str]) -> None:
    """
    Compressed bytes that break off, said to be compressed or not, are never taken for an answer.
    """
    transport, _ = answering(
        lambda: httpx.Response(200, headers=headers, stream=httpx.ByteStream(COMPRESSED[:-9]))
    )
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        with pytest.raises(InvalidAnswerError) as caught:
            await flipsnack.user.get_stats()

    assert caught.value.field is None


# --- B23: text that others wrote

CANARY = "CANARYKEY4711"
SIGNATURE = "0123456789abcdef0123456789ABCDEF"


def cleaned(body: str) -> str:
    """Decode a refusal with a key that is to be hidden, and give all that it tells."""
    with pytest.raises((APIError, InvalidAnswerError)) as caught:
        read(body, clean=lambda text: text.replace(CANARY, "<hidden>"))
    error = caught.value
    return f"{error} {error!r} {error.args!r} {vars(error)!r}"


@given(texts)
def test_b23_messages_are_fit_for_a_terminal(text: str) -> None:
    """
    No control character of a message gets out, nor more than 200 letters.
    """
    with pytest.raises(APIError) as caught:
        read({"code": 43, "status": f"\x1b[31m{text}\r\n\u202e{text * 99}"})

    assert caught.value.message.isprintable()
    assert caught.value.message.startswith("[31m")
    assert len(caught.value.message) <= 200


@pytest.mark.parametrize("secret", [CANARY, SIGNATURE, SIGNATURE * 2, SIGNATURE.lower()])
@pytest.mark.parametrize("padding", ["", "x" * 190])
def test_b23_a_message_that_repeats_secrets_hides_them(secret: str, padding: str) -> None:
    """
    Key and signature don't get out with a message, not even as far as it is cut.
    """
    told = cleaned(json.dumps({"code": 44, "status": f"{padding}?apiKey={secret}&"}))

    assert "<hidden>"[: 200 - len(padding) - 8] in told
    assert secret[:2] not in told


@pytest.mark.parametrize("secret", [CANARY, SIGNATURE])
@pytest.mark.parametrize(
    "value", ["NaN", "9" * 99, '{"code": 1, "code": 2}', '{"x\\u001b": [1e999]}']
)
def test_b23_a_path_through_echoed_names_hides_them(secret: str, value: str) -> None:
    """
    A server that repeats the parameters as names doesn't get them into the field of an error.
    """
    told = cleaned(f'{{"code": 20, "data": {{"{secret}": {value}}}}}')

    assert "data.<hidden>" in told
    assert secret not in told
    assert told.isprintable()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer",
    [
        {"code": 41, "status": f"no such key: {CANARY}"},
        {"code": 20, "data": {"views": 2**64, CANARY: 1}},
        {"code": 20, "data": {CANARY: 2**64}},
        {"code": CANARY},
    ],
)
async def test_b23_no_error_of_a_call_repeats_the_key(answer: dict[str, Any]) -> None:
    """
    Whatever the server does with the key it was sent, it is in no error.
    """
    transport, _ = answering(answer)
    async with Flipsnack(CANARY, "CANARYSECRET0815", transport=transport) as flipsnack:
        with pytest.raises((APIError, InvalidAnswerError)) as caught:
            await flipsnack.user.get_stats()

    error = caught.value
    assert CANARY not in f"{error} {error!r} {vars(error)!r}"


@pytest.mark.parametrize(
    "body",
    [f"<p>{CANARY}", f'{{"code": 44, "status": "{CANARY}"', f'{{"code": 20, "data": "{CANARY}"}}'],
)
def test_b23_no_frame_of_the_decoder_keeps_the_answer(body: str) -> None:
    """
    A traceback with locals shows nothing of an answer that repeats what it was sent.
    """
    with pytest.raises(InvalidAnswerError) as caught:
        decode(body.encode(), "any", UserStats, {})

    shown = TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in shown.stack if frame.filename != __file__]
    assert ["decode"] == [frame.name for frame in ours]
    assert CANARY not in repr(ours[0].locals)
    assert caught.value.__context__ is None


def test_b9_a_code_with_a_leading_zero_is_none() -> None:
    """
    Only 20 and "20" are success, not what some readers would make of it.
    """
    for code in ('"020"', '"20.0"', '"+20"', '" 20"', "20.0", "true"):
        assert "code" == wrong(f'{{"code": {code}, "data": {{}}}}'.encode()).field
