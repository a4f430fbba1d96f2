"""Rates and the buckets that decide, as tables: no clock but the times they are told."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import inf, nan

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flipsnack_async import Rate
from flipsnack_async._buckets import DRIFT, Token, TokenBucket
from flipsnack_async.errors import InvalidArgumentError

VENDOR = (Rate(5, per=1.0), Rate(60, per=60.0))

REACH, LINGER = 4.0, 30.0
PER = 10 * (1 + DRIFT)
A_MOMENT = 1e-6

bounded = settings(max_examples=60, derandomize=True, deadline=None)


# --- the rates


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("5/1s", (Rate(5, per=1.0),)),
        ("5/1s,60/60s", VENDOR),
        (" 5/1s , 60/60s ", VENDOR),
        ("3/0.5s", (Rate(3, per=0.5),)),
        ("999999999/999999999s", (Rate(999_999_999, per=999_999_999.0),)),
    ],
)
def test_rates_are_read_as_they_are_written(text: str, rates: tuple[Rate, ...]) -> None:
    """
    What the command line writes is read, blanks around it or not.
    """
    assert rates == Rate.parse(text)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "rates"),
        ("5", "rates"),
        ("5/1", "rates"),
        ("5/s", "rates"),
        ("/1s", "rates"),
        ("5/1s,", "rates"),
        ("5/1s;60/60s", "rates"),
        ("5 /1s", "rates"),
        ("-5/1s", "rates"),
        ("5/-1s", "rates"),
        ("5/.5s", "rates"),
        ("5/1e3s", "rates"),
        ("5/infs", "rates"),
        ("5/1m", "rates"),
        ("1_0/1s", "rates"),
        ("٥/1s", "rates"),  # noqa: RUF001 - the Arabic digit is the point
        ("1234567890/1s", "rates"),
        ("0/1s", "limit"),
        ("5/0s", "per"),
        ("5/0.0s", "per"),
    ],
)
def test_text_that_is_no_rate_is_refused(text: str, field: str) -> None:
    """
    Text that is no rate is refused, naming what is wrong with it.
    """
    with pytest.raises(InvalidArgumentError) as caught:
        Rate.parse(text)

    assert field == caught.value.field
    if field == "rates":
        assert "write calls and seconds like 5/1s,60/60s" == caught.value.remedy


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Rate(0, per=1.0), "limit"),
        (lambda: Rate(-1, per=1.0), "limit"),
        (lambda: Rate(True, per=1.0), "limit"),
        (lambda: Rate(2.0, per=1.0), "limit"),  # type: ignore[arg-type]
        (lambda: Rate("2", per=1.0), "limit"),  # type: ignore[arg-type]
        (lambda: Rate(2, per=0.0), "per"),
        (lambda: Rate(2, per=-1.0), "per"),
        (lambda: Rate(2, per=inf), "per"),
        (lambda: Rate(2, per=nan), "per"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], field: str) -> None:
    """
    A rate that makes no sense is refused when it is made, naming the argument.
    """
    with pytest.raises(InvalidArgumentError) as caught:
        make()

    assert field == caught.value.field


def test_rates_read_as_they_are_parsed() -> None:
    """
    A rate shows itself as it is written.
    """
    assert "3/0.5s" == str(Rate(3, per=0.5))
    assert VENDOR == Rate.parse(",".join(map(str, VENDOR)))


# --- the bucket

Event = tuple[float, str, str]


def told(rates: tuple[Rate, ...], reach: float | None, *events: Event) -> TokenBucket:
    """Make a bucket and tell it *events*: when, of which call, what."""
    bucket = TokenBucket(rates, reach, LINGER)
    tokens: dict[str, Token] = {}
    for at, call, what in events:
        if what == "take":
            tokens[call] = bucket.take(at)
        elif what == "unsent":
            bucket.unsent(tokens[call])
        else:
            getattr(bucket, what)(tokens[call], at)
    return bucket


@pytest.mark.parametrize(
    ("reach", "events", "end"),
    [
        pytest.param(REACH, [(0.2, "a", "answered")], 0.2, id="answered"),
        pytest.param(REACH, [], inf, id="not a word"),
        pytest.param(REACH, [(1, "a", "abandoned")], 31, id="abandoned: linger later"),
        pytest.param(REACH, [(1, "a", "sent")], inf, id="sent, no sign of life"),
        pytest.param(REACH, [(1, "a", "sent"), (3, "b", "answered")], 5, id="sign of life"),
        pytest.param(REACH, [(1, "a", "sent"), (1, "b", "answered")], 5, id="sign at once"),
        pytest.param(REACH, [(1, "a", "sent"), (9, "b", "answered")], 5, id="sign beyond reach"),
        pytest.param(REACH, [(0.5, "b", "answered"), (1, "a", "sent")], inf, id="sign too early"),
        pytest.param(REACH, [(3, "b", "answered")], inf, id="sign before the last byte"),
        pytest.param(
            REACH, [(1, "a", "sent"), (3, "b", "abandoned")], inf, id="given up: no sign of life"
        ),
        pytest.param(
            REACH,
            [(1, "a", "sent"), (2, "b", "answered"), (3, "a", "answered")],
            3,
            id="answered within reach",
        ),
        pytest.param(
            REACH,
            [(1, "a", "sent"), (2, "b", "answered"), (9, "a", "answered")],
            5,
            id="answered beyond reach",
        ),
        pytest.param(
            REACH, [(1, "a", "sent"), (2, "a", "abandoned")], 32, id="sent, abandoned, no sign"
        ),
        pytest.param(
            REACH,
            [(1, "a", "sent"), (2, "a", "abandoned"), (3, "b", "answered")],
            5,
            id="sent, abandoned, sign",
        ),
        pytest.param(
            REACH,
            [(2, "a", "abandoned"), (3, "b", "answered")],
            32,
            id="abandoned before the last byte: no reach",
        ),
        pytest.param(None, [(1, "a", "answered")], 1, id="absolute: answered"),
        pytest.param(None, [(1, "a", "sent"), (3, "b", "answered")], inf, id="absolute: no guess"),
        pytest.param(
            None,
            [(1, "a", "sent"), (2, "a", "abandoned"), (3, "b", "answered")],
            32,
            id="absolute: abandoned",
        ),
        # Said twice, or too late
        pytest.param(
            REACH,
            [(1, "a", "sent"), (2, "a", "sent"), (3, "b", "answered")],
            5,
            id="sent twice",
        ),
        pytest.param(REACH, [(1, "a", "answered"), (9, "a", "answered")], 1, id="answered twice"),
        pytest.param(REACH, [(1, "a", "abandoned"), (9, "a", "abandoned")], 31, id="left twice"),
        pytest.param(REACH, [(1, "a", "answered"), (2, "a", "abandoned")], 1, id="left after all"),
        pytest.param(
            REACH,
            [(1, "a", "answered"), (2, "a", "sent"), (3, "b", "answered")],
            1,
            id="sent after the answer",
        ),
        pytest.param(
            REACH, [(1, "a", "abandoned"), (6, "a", "answered")], 6, id="answered after all"
        ),
        pytest.param(
            REACH, [(1, "a", "abandoned"), (99, "a", "answered")], 31, id="answered beyond linger"
        ),
    ],
)
def test_a_token_is_back_per_after_the_end(
    reach: float | None, events: list[Event], end: float
) -> None:
    """
    A token is back *per*, stretched by the drift, after its call's end, and not a moment before.
    """
    bucket = told((Rate(9, per=10.0),), reach, (0, "a", "take"), (0, "b", "take"), *events)
    back = end + PER if end < inf else 1e9

    before, after = bucket.free(back - A_MOMENT), bucket.free(back + A_MOMENT)

    assert (0 if end == inf else 1) == after[0] - before[0]
    others = sum(what in ("answered", "abandoned") and call == "b" for _, call, what in events)
    assert 9 - (end == inf) - (1 - others) == bucket.free(1e9)[0]


@pytest.mark.parametrize(
    "events",
    [
        [(1, "a", "unsent")],
        [(1, "a", "unsent"), (1, "a", "unsent")],
        [(1, "a", "unsent"), (1, "a", "sent"), (1, "b", "answered")],
        [(1, "a", "unsent"), (1, "a", "answered")],
        [(1, "a", "unsent"), (1, "a", "abandoned")],
        [(1, "a", "sent"), (1, "a", "unsent"), (1, "b", "answered")],
        [(1, "a", "abandoned"), (1, "a", "unsent")],
    ],
    ids=lambda events: ", ".join(f"{call} {what}" for _, call, what in events),
)
def test_what_was_not_sent_takes_nothing(events: list[Event]) -> None:
    """
    A call of which not a byte left gives its tokens back at once, once, whatever else is said.
    """
    bucket = told(VENDOR, REACH, (0, "a", "take"), (0, "b", "take"), *events)

    assert [4, 59] == bucket.free(1)
    # In the end all are there but the other's, if it lasts, and none that came back twice.
    held = 0 if (1, "b", "answered") in events else 1
    assert [5 - held, 60 - held] == bucket.free(1e9)


def test_a_call_takes_a_token_out_of_every_bucket() -> None:
    """
    A call takes one token of every rate at once, and each comes back in its own time.
    """
    bucket = TokenBucket(VENDOR, REACH, LINGER)
    for _ in range(5):
        bucket.answered(bucket.take(0.0), 0.5)

    assert [0, 55] == bucket.free(0.5)
    assert pytest.approx(0.5 + 1 * (1 + DRIFT)) == bucket.free_at()
    assert [5, 55] == bucket.free(0.5 + 1.001)
    assert [5, 55] == bucket.free(0.5 + 60.0)
    assert [5, 60] == bucket.free(0.5 + 60.016)


@pytest.mark.parametrize(
    ("events", "free_at"),
    [
        pytest.param([], -inf, id="nothing taken"),
        pytest.param([(0, "a", "take")], -inf, id="one left"),
        pytest.param([(0, "a", "take"), (0, "b", "take")], inf, id="only an answer can tell"),
        pytest.param(
            [(0, "a", "take"), (0, "b", "take"), (3, "b", "answered")], 3 + PER, id="one answered"
        ),
        pytest.param(
            [(0, "a", "take"), (0, "b", "take"), (3, "b", "answered"), (2, "a", "answered")],
            2 + PER,
            id="the first to end is the first back",
        ),
        pytest.param(
            [(0, "a", "take"), (0, "b", "take"), (3, "b", "answered"), (4, "a", "unsent")],
            -inf,
            id="one not sent",
        ),
    ],
)
def test_free_at_says_when_every_bucket_has_a_token(events: list[Event], free_at: float) -> None:
    """
    The next call may go when each bucket has a token: in the past, at a time, or nobody knows.
    """
    assert pytest.approx(free_at) == told((Rate(2, per=10.0),), REACH, *events).free_at()


def test_without_rates_nothing_is_held_back() -> None:
    """
    A bucket without rates has always room.
    """
    bucket = told((), REACH, (0, "a", "take"), (0, "b", "take"))

    assert -inf == bucket.free_at()
    assert [] == bucket.free(0)
    assert 7.0 == bucket.through_at(1000, 7.0)


@bounded
@example(end=262143.05613008747, per=1.0)
@given(end=st.floats(0, 1e7), per=st.floats(0.01, 1e5))
def test_a_token_that_may_be_taken_is_counted(end: float, per: float) -> None:
    """
    The moment a token may be taken it counts as free, and never fewer than none are left.
    """
    bucket = TokenBucket([Rate(1, per=per)], REACH, LINGER)
    bucket.answered(bucket.take(end), end)
    free_at = bucket.free_at()

    assert [1] == bucket.free(free_at)
    bucket.take(free_at)
    assert [0] == bucket.free(free_at)


@pytest.mark.parametrize("ends", [["answered"], ["abandoned"], ["answered", "abandoned"]])
def test_a_day_of_calls_costs_no_memory(ends: list[str]) -> None:
    """
    What a bucket remembers is bounded by its rates, answered or given up, not by its age.
    """
    bucket = TokenBucket(VENDOR, REACH, LINGER)
    now = 0.0
    for end in ends * 2000:
        now = max(now, bucket.free_at())
        token = bucket.take(now)
        bucket.sent(token, now)
        getattr(bucket, end)(token, now)

    assert 200 > len(bucket._ends)
    assert 200 > len(bucket._silent)


@attrs.frozen
class Life:
    """Be a bucket of the vendor's rates in mid-life, with its calls under way."""

    bucket: TokenBucket
    under_way: list[Token]
    now: float

    def through_at(self, calls: int) -> float:
        """Live on: answer every call at once, and say when the last of so many went out."""
        life = deepcopy(self)
        for token in life.under_way:
            life.bucket.answered(token, life.now)
        at = life.now
        for _ in range(calls):
            at = max(at, life.bucket.free_at())
            life.bucket.answered(life.bucket.take(at), at)
        return at


@st.composite
def lives(draw: st.DrawFn, reach: float | None) -> Life:
    """Draw up to 80 steps of a bucket's life, up to 3 s apart."""
    bucket = TokenBucket(VENDOR, reach, LINGER)
    under_way: list[Token] = []
    now = 0.0
    steps = st.tuples(st.sampled_from(["take", "take", "answered", "abandoned"]), st.floats(0, 3))
    for what, pause in draw(st.lists(steps, max_size=80)):
        now += pause
        if what == "take" and bucket.free_at() <= now:
            under_way.append(bucket.take(now))
            bucket.sent(under_way[-1], now)
        elif what != "take" and under_way:
            getattr(bucket, what)(under_way.pop(0), now)
    return Life(bucket, under_way, now)


@bounded
@given(life=lives(reach=None), calls=st.integers(0, 500))
def test_through_at_is_what_then_happens(life: Life, calls: int) -> None:
    """
    The predicted end of n calls is when the n-th goes out, if from now on all are answered at once.
    """
    assert pytest.approx(life.through_at(calls), abs=1e-6) == life.bucket.through_at(
        calls, life.now
    )


@bounded
@given(life=lives(reach=REACH), calls=st.integers(0, 500))
def test_through_at_promises_no_sign_of_life(life: Life, calls: int) -> None:
    """
    What a sign of life to come would win is not counted on: the prediction is never too early.
    """
    assert life.through_at(calls) - 1e-6 <= life.bucket.through_at(calls, life.now)
