"""
Bodies of every kind for `decode`, and what must be true of whatever it makes of them.

    python tests/fuzz_decoding.py [200000]

Feeds so many bodies, and prints what became of them.
"""

from __future__ import annotations

import itertools
import json
import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from flipsnack_async import (
    APIError,
    Collection,
    CollectionStats,
    Embed,
    InvalidAnswerError,
    Package,
    UserStats,
)
from flipsnack_async._envelope import decode
from flipsnack_async.models import CollectionPage

# A good answer of each kind, in the names on the wire.
GOOD: dict[type, dict[str, Any]] = {
    UserStats: {
        "impressions": 2945,
        "views": 3719,
        "time_spent": 154,
        "downloads": 28,
        "api_uploads_left": 53,
    },
    CollectionStats: {
        "impressions": 723,
        "views": 1240,
        "time_spent": 53,
        "downloads": 4,
        "likes": 1,
        "shares": 2,
        "pages": [{"page": 1, "time_spent": 127443.5, "clicks": 392, "views": 4529}],
    },
    Collection: {
        "collectionHash": "fxh4k89",
        "collectionTitle": 'Spring, {new} [and] \\ "old"',
        "collectionDescription": "\N{WAVING HAND SIGN} hello",
        "collectionStatus": "public",
        "collectionWidth": 650,
        "collectionHeight": "385",
        "items": [{"status": "complete", "thumb": "x"}],
    },
    CollectionPage: {
        "collectionCount": "2",
        "collections": [
            {"collectionHash": "fxh4k89", "collectionTitle": "Spring"},
            {"collectionHash": "d3m0h45h", "state": "processing"},
        ],
    },
    Embed: {"embedCode": "<iframe></iframe>"},
    Package: {"status": "COMPLETE", "resourceUrl": "resource.url.example"},
    dict: {"anything": [1, {"code": 2.5}]},
    type(None): {},
}
FIELDS = [
    (reply, f"data.{name}") for reply, data in GOOD.items() for name in data if reply is not dict
]
FIELDS += [(reply, name) for reply in GOOD for name in ("code", "data")]
FIELDS += [(CollectionStats, f"data.pages[0].{n}") for n in ("page", "time_spent", "clicks")]
FIELDS += [(CollectionPage, f"data.collections[1].{n}") for n in ("collectionHash", "state")]


@attrs.frozen
class Case:
    """A body, what it is to be read as, and the one field that may be wrong if only one may."""

    body: bytes
    reply: type
    field: str | None = None


# One that is drawn makes two bodies: drawing takes longer than decoding.
Handful = tuple[Case, ...]
HANDFUL = 2
Place = tuple[type, str]
Mutation = tuple[str, int, bytes]

# --- bodies

# What JSON is made of, and what looks like it.
TOKENS = [
    *("{", "}", "[", "]", ",", ":", '"', "\\", " ", "\n", "\ufeff", "\x00", "null", "true", "NaN"),
    *('"code"', '"status"', '"data"', '"views"', '"collections"', '"collectionHash"', '"\\ud800"'),
    *('"\\\\ud800"', '"\\uD83D\\uDE00"', '"20"', "20", "44", "20.0", "-0", "007", "1e999", "1e2"),
    *("-Infinity", "9" * 19, "9" * 20, "-9223372036854775808", "9223372036854775808", "é", "'"),
    *('{"code": 20, "data": {', '"code": 20,', '"code": 44,', "[" * 65, "]" * 65, "/**/", "<html>"),
]
# More fields for an object, mostly of a name that it has.
FIELD_PIECES = [
    *(b'"code": 20,', b'"code":44,', b'"code":"20",', b'"\\u0063ode": null,', b'"code": 20.0,'),
    *(b'"data": {},', b'"views": 1.9,', b'"collectionHash": null,', b'"status": "failed",'),
]
# Values as texts of JSON, or nearly so.
ODD_VALUES = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "0.1e1", "20.0", "1.9", "2e1"),
    *("true", "false", "null", '""', '" "', '"20"', '"-7"', '"1.9"', '"1_000"', '"١٢"', '" 7"'),
    *("9" * 5000, "-" + "9" * 400, "9" * 19, "9223372036854775807", "9223372036854775808"),
    *('"' + "9" * 19 + '"', '"9223372036854775808"', "-9223372036854775808", "1" * 25 + ".5"),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\\\ud800"', '{"\\udfff": 1}'),
    *("[" * 62 + "]" * 62, "[" * 64 + "]" * 64, '{"a":' * 64 + "1" + "}" * 64, "[true]", "[[]]"),
    *('{"code": 1, "code": 1}', '[{"x": NaN}]', '[{"x": ' + "9" * 20 + "}]", "{}", "[1,]"),
    *("[,1]", "[,]", "{,}"),
]

characters = st.characters(exclude_categories=())  # halves of pairs too
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**64), 2**64)
    | st.floats()
    | st.text(characters, max_size=6)
)
names = st.sampled_from(
    ["code", "data", "views", "status", "state", "thumb", "collectionHash", "pages", "extra"]
) | st.text(characters, max_size=3)
shapes = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
values = st.sampled_from(ODD_VALUES) | shapes.map(json.dumps)
replies = st.sampled_from(list(GOOD))


def envelope(data: object) -> dict[str, object]:
    return {"code": 20, "status": "OK", "data": data}


noise = st.binary(max_size=60) | st.lists(st.sampled_from(TOKENS), max_size=14).map(
    lambda tokens: "".join(tokens).encode()
)


def noisy(piece: bytes, reply: type) -> Handful:
    """Take noise for an answer, and for the data of one."""
    return Case(piece, reply), Case(b'{"code": 20, "data": ' + piece + b"}", reply)


def shaped(value: object, reply: type) -> Handful:
    """Take any JSON for an answer, and for the data of one."""
    return tuple(Case(json.dumps(body).encode(), reply) for body in (value, envelope(value)))


places = st.sampled_from(FIELDS)


def with_field(places: tuple[Place, ...], value: str) -> Handful:
    """Put a value in a place of a good answer, and in one of another."""
    return tuple(Case(put(reply, path, value), reply, path) for reply, path in places)


def put(reply: type, path: str, value: str) -> bytes:
    answer: Any = envelope(json.loads(json.dumps(GOOD[reply])))
    *way, last = path.replace("[", ".").replace("]", "").split(".")
    inner = answer
    for step in way:
        inner = inner[int(step) if isinstance(inner, list) else step]
    inner[last] = "<here>"
    return json.dumps(answer).replace('"<here>"', value).encode()


def mutated(reply: type, mutations: tuple[Mutation, ...]) -> Handful:
    """Do to a good answer what broken servers and lines do, one thing after the other."""
    body = json.dumps(envelope(GOOD[reply])).encode()
    return tuple(Case(body := mutate(body, *mutation), reply) for mutation in mutations)


# Where a piece could upset most: beside marks, and into objects as another field.
SPOTS = {"beside": b",[]}", "into": b"{"}


def mutate(body: bytes, what: str, place: int, piece: bytes) -> bytes:
    at = place % (len(body) + 1)
    if what in SPOTS:
        spots = [spot for spot, byte in enumerate(body, what == "into") if byte in SPOTS[what]]
        at = spots[place % len(spots)] if spots else 0
    before, after = body[:at], body[at:]
    match what:
        case "cut":
            return before
        case "flip":
            return before + bytes(byte ^ 1 << place % 8 for byte in after[:1]) + after[1:]
        case "drop":
            return before + after[1 + place % 9 :]
        case "nest":
            depth = place % 70
            return b'{"code": 20, "data": ' + b"[" * depth + body + b"]" * depth + b"}"
    return before + piece + after


pieces = st.sampled_from([*FIELD_PIECES, *(token.encode() for token in (",", ", ,", *TOKENS))])
mutations = st.tuples(
    st.sampled_from(["cut", "insert", "flip", "drop", "beside", "into", "into", "nest"]),
    st.integers(0, 2**12),
    pieces,
)
KINDS: dict[str, st.SearchStrategy[Handful]] = {
    "noise": st.builds(noisy, noise, replies),
    "shapes": st.builds(shaped, shapes, replies),
    "fields": st.builds(with_field, st.tuples(places, places), values),
    "mutations": st.builds(mutated, replies, st.tuples(mutations, mutations)),
}


# --- what must be true


class Pairs(list[tuple[str, Any]]):
    """An object on the wire, with every name as often as it came."""


def without_commas_before_ends(text: str) -> str:
    """Drop trailing commas, letter by letter."""
    kept: list[str] = []
    quoted = escaped = False
    for letter in text:
        if quoted:
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        elif letter in "]}":
            last = len("".join(kept).rstrip())
            before = "".join(kept[: last - 1]).rstrip()[-1:]
            if kept[last - 1 : last] == [","] and before not in ("", ",", "[", "{"):
                del kept[last - 1]
        kept.append(letter)
    return "".join(kept)


def strictly_read(body: bytes) -> Any:
    text = body.decode("utf-8-sig")
    decoder = json.JSONDecoder(object_pairs_hook=Pairs)
    try:
        return decoder.decode(text)
    except json.JSONDecodeError:
        return decoder.decode(without_commas_before_ends(text))


def parts(value: Any) -> Iterator[Any]:
    """Yield whatever a result consists of."""
    yield value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from parts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from parts(inner)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            inner = getattr(value, field.name)
            assert not isinstance(inner, bool), f"{field.name} is {inner}"
            yield from parts(inner)


def check_success(case: Case, result: object) -> None:
    answer = strictly_read(case.body)
    assert isinstance(answer, Pairs)
    codes = [value for name, value in answer if name == "code"]
    assert codes in ([20], ["20"])
    assert type(codes[0]) in (int, str)
    assert isinstance(result, case.reply)
    for part in parts(result):
        match part:
            case bool():
                pass
            case int():
                assert -(2**63) <= part < 2**63
            case float():
                assert math.isfinite(part)
            case str():
                part.encode()
            case InvalidAnswerError():
                check_field(case, part)


def check_field(case: Case, error: InvalidAnswerError) -> None:
    """See that an error tells of the only field that may be wrong, or of something inside it."""
    if case.field is None or error.field is None:
        assert error.reason
        # Where only a field may be wrong, no envelope at all is only for what is no JSON.
        assert case.field is None or not is_json(case.body) or "deeply" in error.reason
        return
    assert error.field == case.field or error.field.startswith((f"{case.field}.", f"{case.field}["))


def is_json(body: bytes) -> bool:
    try:
        strictly_read(body)
    except ValueError:
        return False
    return True


def check(case: Case) -> str:
    """Decode a body and say what came of it, if that is as it must be."""
    known = {} if case.reply is Collection else {"collection_hash": "fxh4k89"}
    try:
        result: object = decode(case.body, "any", case.reply, known)
    except InvalidAnswerError as error:
        check_field(case, error)
        outcome = "invalid"
        text = str(error)
    except APIError as error:
        assert case.field in (None, "code")
        outcome = "refused"
        text = str(error)
    else:
        check_success(case, result)
        return "success"
    assert text.isprintable()
    return outcome


# Hypothesis remembers what it fed; in portions, that is forgotten now and then.
PORTION = 5_000


def feed(kind: str, bodies: int, number: int | None = None) -> Counter[str]:
    """Check at least so many bodies of a kind, and count what became of them."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=-(-bodies // HANDFUL),
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no fault
    )
    @given(KINDS[kind])
    def some(handful: Handful) -> None:
        outcomes.update(check(case) for case in handful)

    (some if number is None else seed(number)(some))()
    return outcomes


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fed: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for number in itertools.count():
        if fed.total() >= wanted:
            break
        for kind in KINDS:
            found = feed(kind, PORTION, number)
            fed[kind] += found.total()
            outcomes += found
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{fed.total()} bodies ({', '.join(f'{n} {kind}' for kind, n in fed.items())}): "
        f"{', '.join(f'{n} {outcome}' for outcome, n in outcomes.items())}; "
        f"{time.monotonic() - began:.0f} s, peak memory grew by {grown / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
