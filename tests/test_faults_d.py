"""Faults of parameters and signatures: the rows D1 to D8 of the fault matrix."""

from __future__ import annotations

import enum
import hashlib
import io
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from inner import KEY, SECRET
from python_multipart.multipart import Field, parse_form
from scripted import answering, done

from flipsnack_async import Flipsnack, InvalidArgumentError
from flipsnack_async._actions import RESERVED, texts
from flipsnack_async._signing import sign

# What can be sent: all but control characters and halves of surrogate pairs.
sendable = st.text(st.characters(codec="utf-8", exclude_characters=[*map(chr, range(32)), "\x7f"]))
names = sendable.filter(lambda name: name and name not in RESERVED and not {*name} & {'"', "\\"})
# The names of form parts are the vendor's and ASCII.
part_names = st.text("abcXYZ019_-.[]", min_size=1)

TOUCHY = {
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "emoji": "\N{FAMILY}\N{ZERO WIDTH JOINER}\N{EMOJI MODIFIER FITZPATRICK TYPE-6}",
    "right to left": "\u05e9\u200f\u202b\u0627\u202c",
    "marks": "& = + % # ? / ; ~ \\ \" ' * ( ) %41 %2B &amp; a&b=c+d",
    "blanks": " \u00a0\u2003\u3000\x80\x9f ",
    "order mark": "\ufeff\ufffe\uffff\U0010ffff",
    "empty": "",
}

# Every example runs on a loop of its own; the backend is only its name.
sixty = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def digest(fields: Mapping[str, str]) -> str:
    """Sign by the documentation's steps, knowing nothing of the module under test."""
    text = SECRET + "".join(name + fields[name] for name in sorted(fields, key=str.encode))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def recovered(request: httpx.Request) -> list[tuple[str, str]]:
    """Read a request off the wire as servers do: a query, or the parts of a form."""
    if request.method == "GET":
        query = request.extensions["target"].partition(b"?")[2].decode("ascii")
        return parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    fields: list[tuple[str, str]] = []

    def note(field: Any) -> None:
        assert isinstance(field, Field)
        fields.append(((field.field_name or b"").decode(), (field.value or b"").decode()))

    headers = {"Content-Type": request.headers["Content-Type"].encode()}
    parse_form(headers, io.BytesIO(request.content), note, None)
    return fields


async def on_the_wire(action: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Make a call, and give the fields that arrived, if they are well signed and each is one."""
    transport, seen = answering(done())
    async with Flipsnack(KEY, SECRET, transport=transport, rates=()) as flipsnack:
        await flipsnack.call(action, params)
    pairs = recovered(seen[0])
    fields = dict(pairs)
    assert len(pairs) == len(fields)
    assert digest({n: v for n, v in fields.items() if n != "signature"}) == fields.pop("signature")
    assert (KEY, action) == (fields.pop("apiKey"), fields.pop("action"))
    return fields


async def nothing_is_sent(action: str, params: Mapping[str, Any]) -> InvalidArgumentError:
    """Make a call that is refused before it leaves."""
    transport, seen = answering(done())
    async with Flipsnack(KEY, SECRET, transport=transport, rates=()) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            await flipsnack.call(action, params)
    assert [] == seen
    return caught.value


@pytest.mark.anyio
@sixty
@example(params=TOUCHY)
@given(params=st.dictionaries(names, sendable, max_size=4))
async def test_d1_d2_what_arrives_by_query_is_what_was_signed(params: dict[str, str]) -> None:
    """
    A standard decoder recovers every letter as given, and the signature is of just that.
    """
    assert params == await on_the_wire("any.thing", params)


@pytest.mark.anyio
@sixty
@example(params=TOUCHY)
@given(params=st.dictionaries(part_names.filter(lambda n: n not in RESERVED), sendable, max_size=4))
async def test_d1_d2_what_arrives_by_form_is_what_was_signed(params: dict[str, str]) -> None:
    """
    A standard reader of multipart forms recovers every value as given, and it is what was signed.
    """
    assert params == await on_the_wire("collection.create", params)


@given(sendable, sendable)
def test_d1_nothing_is_normalised(one: str, other: str) -> None:
    """
    Texts that only look alike have signatures of their own.
    """
    composed, decomposed = ({"title": f"{one}{e}{other}"} for e in ("\u00e9", "e\u0301"))

    assert sign(composed, b"s") != sign(decomposed, b"s")


class Status(enum.StrEnum):
    PUBLIC = "public"


@pytest.mark.anyio
@pytest.mark.parametrize("action", ["any.thing", "collection.create"])
async def test_d3_one_table_says_how_values_are_written(action: str) -> None:
    """
    Booleans in lower case, whole numbers plain, days as ISO writes them, None not at all.
    """
    params = {
        "yes": True,
        "no": False,
        "number": -12,
        "zero": 0,
        "day": date(2026, 1, 31),
        "enum": Status.PUBLIC,
        "none": None,
    }

    assert {
        "yes": "true",
        "no": "false",
        "number": "-12",
        "zero": "0",
        "day": "2026-01-31",
        "enum": "public",
    } == await on_the_wire(action, params)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value", [1.5, 1.0, float("nan"), [], ["a"], ("a",), {"a": 1}, b"a", datetime(2026, 1, 31)]
)
async def test_d3_d6_what_has_no_one_form_is_refused(value: Any) -> None:
    """
    Floats, lists and the like are refused by name, before anything is signed.
    """
    assert "x" == (await nothing_is_sent("any.thing", {"a": "1", "x": value})).field


@given(
    st.characters(categories=["Cs"]) | st.sampled_from("\x00\t\n\v\r\x1b\x1f\x7f"),
    sendable,
    sendable,
)
def test_d4_controls_and_half_pairs_are_refused(odd: str, before: str, after: str) -> None:
    """
    What servers and proxies read differently is refused, in a value and in a name.
    """
    text = before + odd + after

    with pytest.raises(InvalidArgumentError) as caught:
        texts({"title": text})
    assert "title" == caught.value.field
    with pytest.raises(InvalidArgumentError):
        texts({text: "title"})


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["a\r\nb", "a\x00", "\ud800"])
@pytest.mark.parametrize("action", ["any.thing", "collection.create"])
async def test_d4_nothing_is_sent_of_a_call_with_controls(action: str, value: str) -> None:
    """
    A call with one such value is not made at all.
    """
    assert "title" == (await nothing_is_sent(action, {"title": value})).field


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", ["signature", "apiKey", "action", "format", "callback", "file", ""]
)
async def test_d5_reserved_names_are_refused(name: str) -> None:
    """
    Nobody asks for JSONP, for another action, or in somebody else's name.
    """
    assert repr(name) in (await nothing_is_sent("any.thing", {"a": "1", name: "x"})).field


@pytest.mark.anyio
async def test_d6_a_name_that_is_given_twice_is_sent_once() -> None:
    """
    An argument counts more than the same name among *params*.
    """
    transport, seen = answering(done(collections=[]))
    async with Flipsnack(KEY, SECRET, transport=transport) as flipsnack:
        listing = flipsnack.collections.list(query="mine", params={"query": "other"})
        assert [] == [collection async for collection in listing]

    assert ["mine"] == [value for name, value in recovered(seen[0]) if name == "query"]


def test_d7_the_golden_vector() -> None:
    """
    The documentation's example comes out digit by digit.
    """
    params = {
        "collectionHash": "fxh4k89",
        "apiKey": "45FD-267-7SG7832",
        "action": "collection.getCollection",
    }

    assert b"26e781d3d1751d82ec284acf4a019def" == sign(params, b"123ABCDE-456-7890-FGH")


@example(dict.fromkeys(["a", "B", "_", "Z", "b", "ab", "aB", "é", "\uffff", "\U0001f600"], "x"))
@given(st.dictionaries(names, sendable))
def test_d7_names_are_signed_in_byte_order(params: dict[str, str]) -> None:
    """
    Capitals come before small letters, and nothing is sorted by a language's rules.
    """
    assert digest(params).encode() == sign(params, SECRET.encode())


@pytest.mark.anyio
async def test_d8_where_md5_is_no_security_it_still_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An interpreter that refuses MD5 for security lets this use of it pass.
    """
    md5 = hashlib.md5

    def strict_md5(data: bytes = b"", *, usedforsecurity: bool = True) -> Any:
        if usedforsecurity:
            raise ValueError("[digital envelope routines] unsupported")
        return md5(data, usedforsecurity=False)

    monkeypatch.setattr(hashlib, "md5", strict_md5)

    assert {"a": "1"} == await on_the_wire("any.thing", {"a": "1"})
