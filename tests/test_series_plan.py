"""Series: what each step's statistics are, which of them were asked for, and by how many calls."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import date, timedelta
from itertools import accumulate
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipsnack_async import CollectionStats
from flipsnack_async._series import COUNTERS, Pool, Resolved, Span, Step, bounds, resolve, spans

bounded = settings(max_examples=40, derandomize=True, deadline=None)

HASH = "fxh4k89"
FIRST = date(2025, 1, 1)

Vendor = Callable[[Span], CollectionStats]
Plan = Generator[Span, CollectionStats, list[Resolved]]
Answers = dict[Span, CollectionStats]
Row = tuple[Any, ...]


# --- vendors


def days(number: int) -> list[Span]:
    return spans(FIRST, FIRST + timedelta(number - 1), "day")


def stats(*counters: Any, extra: Mapping[str, Any] | None = None) -> CollectionStats:
    named = dict(zip(COUNTERS, counters, strict=False))
    return CollectionStats(HASH, **named, extra=extra or {})


def width(span: Span) -> int:
    return (span.last - span.first).days + 1


def adding(rows: Sequence[Row]) -> Vendor:
    """Answer with sums of *rows*, one a day; a counter that is None stays so."""

    def answer(span: Span) -> CollectionStats:
        first = (span.first - FIRST).days
        columns = zip(*rows[first : first + width(span)], strict=True)
        return stats(*(None if None in column else sum(column) for column in columns))

    return answer


def noisy(rows: Sequence[Row]) -> Vendor:
    """Count too much in whatever is wider than a day and not zero, and never so that it adds up."""
    add = adding(rows)

    def answer(span: Span) -> CollectionStats:
        counters = [getattr(add(span), name) for name in COUNTERS]
        noise = width(span) ** 2 if width(span) > 1 and any(counters) else 0
        return stats(*(None if c is None else c + noise for c in counters))

    return answer


def excluding(rows: Sequence[Row]) -> Vendor:
    """Leave out the last day of whatever is wider than a day."""
    add = adding(rows)
    return lambda s: add(Span(s.first, s.last - timedelta(1)) if width(s) > 1 else s)


def lying(rows: Sequence[Row]) -> Vendor:
    """Make up each answer, negative ones too."""

    def answer(span: Span) -> CollectionStats:
        dice = Random(f"{rows}{span}")  # noqa: S311
        return stats(*(dice.choice((-1, 0, 0, 0, 0, 0, 0, 1, 3.5, None)) for _ in COUNTERS))

    return answer


VENDORS = {"adds": adding, "noisy": noisy, "excludes": excluding, "lies": lying}
vendors = pytest.mark.parametrize("kind", VENDORS)

ZERO: Row = (0, 0, 0, 0, 0, 0)
counts = st.integers(0, 9)
times = st.integers(0, 99_999).map(lambda hundredths: hundredths / 100)
row_of_numbers = st.tuples(counts, counts, times, counts, counts, counts)


@st.composite
def flipbooks(draw: st.DrawFn, most: int = 80) -> list[Row]:
    """Draw a row for each day, anything from silent to read daily; some counters are not sent."""
    readers = draw(st.integers(0, 10))
    some = draw(st.lists(row_of_numbers, min_size=1, max_size=5))
    dice = Random(draw(st.integers(0, 2**32)))  # noqa: S311
    unsent = draw(st.sets(st.sampled_from(range(len(COUNTERS))), max_size=3))
    rows: list[Row] = [
        dice.choice(some) if dice.randrange(10) < readers else ZERO
        for _ in range(draw(st.integers(1, most)))
    ]
    return [tuple(None if i in unsent else n for i, n in enumerate(row)) for row in rows]


# --- those who ask them


def run(plan: Plan, vendor: Vendor, most: int | None = None) -> tuple[list[Resolved], Answers]:
    """Follow a plan to its end, or for *most* calls; none may come twice."""
    answers: Answers = {}
    try:
        span = next(plan)
        while len(answers) != most:
            assert span not in answers
            answers[span] = vendor(span)
            span = plan.send(answers[span])
    except StopIteration as end:
        return end.value, answers
    plan.close()
    return [], answers


def plan_for(rows: Sequence[Row], pool: Pool | None = None) -> Plan:
    return resolve(HASH, days(len(rows)), {}, pool or Pool())


def numbers(resolved: Sequence[Resolved]) -> list[Row]:
    return [tuple(getattr(r.stats, name) for name in COUNTERS) for r in resolved]


class Turning:
    """Turn negative after so many answers, so that all else is asked step by step."""

    def __init__(self, after: int) -> None:
        self.calls = 0
        self._after = after

    def __call__(self, vendor: Vendor, span: Span) -> CollectionStats:
        self.calls += 1
        return stats(-1) if self.calls > self._after else vendor(span)


def interleave(plans: Sequence[tuple[Plan, Vendor]], dice: Random, turning: Turning) -> None:
    """Follow several plans at once, with several calls under way, answered in any order."""
    waiting: list[tuple[Plan, Vendor, Span | None]] = [(*each, None) for each in plans]
    under_way: list[tuple[Plan, Vendor, Span | None]] = []
    while waiting or under_way:
        if waiting and len(under_way) < 3:
            under_way.append(waiting.pop(0))
            continue
        plan, vendor, span = under_way.pop(dice.randrange(len(under_way)))
        try:
            asked = plan.send(turning(vendor, span)) if span else next(plan)
        except StopIteration:
            continue
        under_way.append((plan, vendor, asked))


# --- the steps of a range


@pytest.mark.parametrize(
    ("start", "end", "step", "expected"),
    [
        ("2025-03-05", "2025-03-05", "day", ["05 05"]),
        ("2025-03-05", "2025-03-05", "week", ["05 05"]),
        ("2025-03-05", "2025-03-05", "month", ["05 05"]),
        ("2024-02-28", "2024-03-01", "day", ["28 28", "29 29", "01 01"]),
        ("2025-03-03", "2025-03-16", "week", ["03 09", "10 16"]),  # from a Monday to a Sunday
        ("2025-03-02", "2025-03-10", "week", ["02 02", "03 09", "10 10"]),
        ("2024-12-30", "2025-01-08", "week", ["30 05", "06 08"]),
        ("2024-01-31", "2024-03-01", "month", ["31 31", "01 29", "01 01"]),
        ("2025-02-01", "2025-02-28", "month", ["01 28"]),
        ("1900-02-01", "1900-03-31", "month", ["01 28", "01 31"]),
        ("9999-12-30", "9999-12-31", "day", ["30 30", "31 31"]),
        ("9999-12-01", "9999-12-31", "month", ["01 31"]),
        ("2025-03-05", "2025-03-04", "day", []),
    ],
)
def test_steps_are_cut_where_the_calendar_cuts(
    start: str, end: str, step: Step, expected: list[str]
) -> None:
    """
    Weeks begin on Monday and months on the first; only the ends of a range cut them short.
    """
    found = spans(date.fromisoformat(start), date.fromisoformat(end), step)

    assert expected == [f"{s.first:%d} {s.last:%d}" for s in found]


@bounded
@given(st.dates(), st.integers(0, 800), st.sampled_from(["day", "week", "month"]))
def test_steps_cover_their_range(start: date, length: int, step: Step) -> None:
    """
    The steps of any range leave no day out and have none twice.
    """
    end = date.fromordinal(min(start.toordinal() + length, date.max.toordinal()))
    found = spans(start, end, step)

    assert (start, end) == (found[0].first, found[-1].last)
    assert all(one.first <= one.last for one in found)
    assert [one.last.toordinal() + 1 for one in found[:-1]] == [
        other.first.toordinal() for other in found[1:]
    ]


# --- what is returned


@bounded
@given(flipbooks(), st.integers(0, 200))
def test_where_counters_add_up_every_step_is_right(rows: list[Row], credit: int) -> None:
    """
    Asked for or inferred, each step has the numbers that a call for it would bring.
    """
    found, answers = run(plan_for(rows, Pool(credit)), adding(rows))

    assert rows == numbers(found)
    for step, one in zip(days(len(rows)), found, strict=True):
        assert step == (one.stats.start_date, one.stats.end_date)
        assert HASH == one.stats.collection_hash
        assert one.is_inferred == (step not in answers)


@bounded
@given(flipbooks(), st.integers(0, 200))
def test_where_counters_do_not_add_up_only_zeros_are_inferred(rows: list[Row], credit: int) -> None:
    """
    Of a vendor who counts otherwise over wider ranges, every number but zero was asked for.
    """
    found, answers = run(plan_for(rows, Pool(credit)), noisy(rows))

    assert rows == numbers(found)
    for step, one in zip(days(len(rows)), found, strict=True):
        assert one.is_inferred == (step not in answers)
        assert not one.is_inferred or not any(numbers([one])[0])


def test_months_and_weeks_are_asked_by_their_days() -> None:
    """
    What is asked for are whole steps, from the first day of one to the last of another.
    """
    steps = spans(date(2024, 1, 10), date(2024, 12, 20), "month")
    vendor = adding([(1,)] * 800)
    found, answers = run(
        resolve(HASH, steps, {}, Pool(1000)),
        lambda s: vendor(Span(FIRST, FIRST + (s.last - s.first))),
    )

    assert [width(step) for step in steps] == [one.stats.impressions for one in found]
    assert Span(date(2024, 1, 10), date(2024, 12, 20)) in answers
    assert {s.first for s in answers} <= {s.first for s in steps}
    assert {s.last for s in answers} <= {s.last for s in steps}


def test_times_that_are_no_whole_numbers_stay_clean() -> None:
    """
    A second's tenth that is inferred is a tenth, whatever sums of floats make of it.
    """
    rows: list[Row] = [(1, 1, (7 * i % 10) / 10) for i in range(365)]
    found, answers = run(plan_for(rows), adding(rows))

    assert [row[2] for row in rows] == [one.stats.time_spent for one in found]
    assert 366 == len(answers)  # it did add up


def test_large_counts_stay_exact() -> None:
    """
    A count is never rounded, however large.
    """
    rows: list[Row] = [(10**15 + i,) for i in range(365)]
    found, answers = run(plan_for(rows), adding(rows))

    assert [row[0] for row in rows] == [one.stats.impressions for one in found]
    assert 366 == len(answers)


@pytest.mark.parametrize(
    ("total", "is_zero"),
    [
        (stats(0), True),
        (stats(None, 0), True),
        (stats(0, 0, -0.0, 0, 0, 0), True),
        (stats(0, extra={"note": "7", "is_new": True, "other": None}), True),
        (stats(0, extra={"clicks": 0, "by_page": [{"clicks": 0.0}]}), True),
        (stats(0, extra={"clicks": 1}), False),
        (stats(0, extra={"by_page": [{"clicks": 0}, {"clicks": 0.5}]}), False),
        (stats(0, 0, 0.01), False),
        (stats(0, None, None, 1), False),
        (stats(None, None, 0, 0, 0, 0), False),
        (stats(), False),
    ],
    ids=str,
)
def test_a_total_is_zero_only_if_all_that_was_counted_is(
    total: CollectionStats, is_zero: bool
) -> None:
    """
    One call settles all steps where every number is zero, and impressions or views are known.
    """
    found, answers = run(resolve(HASH, days(64), {}, Pool()), lambda span: total)

    assert is_zero == (1 == len(answers))
    assert not is_zero or numbers(found) == 64 * numbers([Resolved(total, is_inferred=False)])


# --- what is believed of a vendor


def followed(*answers: CollectionStats, steps: int = 8) -> list[str]:
    """List what is asked for, as days of January, where *answers* come first and then ones."""
    remaining = list(answers)
    plan = resolve(HASH, days(steps), {}, Pool(1000))
    _, asked = run(plan, lambda span: remaining.pop(0) if remaining else stats(1))
    return [f"{s.first.day}-{s.last.day}" for s in asked]


WIDE = ["1-8", "1-4", "5-8"]
EACH = [f"{day}-{day}" for day in range(1, 9)]


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        pytest.param([stats(0)], WIDE[:1], id="zero"),
        pytest.param(
            [stats(9), stats(4), stats(5), stats(2)],
            [*WIDE, "1-2", "1-1", "3-3", "5-6", "5-5", "7-7"],
            id="adds up",
        ),
        pytest.param([stats(9), stats(4), stats(4)], [*WIDE, *EACH], id="does not add up"),
        pytest.param(
            [stats(9), stats(0), stats(5), stats(1)],
            [*WIDE, "5-6", *EACH[4:6], "7-8", *EACH[6:]],
            id="does not add up, but zeros hold",
        ),
        pytest.param(
            [stats(9), stats(0), stats(5), stats(0)],
            [*WIDE, "5-6", *EACH[6:]],
            id="does not add up, but what is not in the left is in the right",
        ),
        pytest.param(
            [stats(9), stats(5), stats(0)],
            [*WIDE, "1-2", *EACH[:2], "3-4", *EACH[2:4]],
            id="does not add up, and a right half of zero pays for the left",
        ),
        pytest.param(
            [stats(9, 0), stats(9), stats(0)],
            [*WIDE, "1-2", *EACH[:2], "3-4", *EACH[2:4]],
            id="a counter that comes and goes does not add up",
        ),
        pytest.param([stats(-1)], ["1-8", *EACH], id="negative at first"),
        pytest.param([stats(9, -1), stats(0)], ["1-8", *EACH], id="negative besides"),
        pytest.param([stats(9), stats(-4), stats(13)], [*WIDE[:2], *EACH], id="negative left"),
        pytest.param([stats(9), stats(13), stats(-4)], [*WIDE, *EACH], id="negative right"),
        pytest.param(
            [stats(9), stats(4), stats(5), stats(5)], [*WIDE, "1-2", *EACH], id="negative rest"
        ),
        pytest.param(
            [stats(9), stats(4), stats(5), stats(2, 0)],
            [*WIDE, "1-2", *EACH],
            id="a counter that comes and goes later",
        ),
        pytest.param(
            [stats(4), stats(0), stats(4), stats(4), stats(-1)],
            [*WIDE, "5-6", *EACH[4:6]],
            id="negative step",
        ),
    ],
)
def test_a_vendor_is_believed_as_far_as_his_numbers_go(
    answers: list[CollectionStats], asked: list[str]
) -> None:
    """
    The first split tells whether counters add up; after a negative number all else is asked.
    """
    assert asked == followed(*answers)


def test_what_was_inferred_before_a_negative_number_stays_and_is_marked() -> None:
    """
    A negative number ends all inferring, but takes back nothing.
    """
    remaining = [stats(4), stats(0), stats(4), stats(4), stats(-1)]
    plan = resolve(HASH, days(8), {}, Pool(1000))
    found, _ = run(plan, lambda span: remaining.pop(0) if remaining else stats(1))

    assert [True] * 4 + [False] * 2 + [True] * 2 == [r.is_inferred for r in found]
    assert [0, 0, 0, 0, -1, 1, 0, 0] == [r.stats.impressions for r in found]


# --- the limit


@vendors
@bounded
@given(flipbooks(), st.integers(0, 100))
def test_calls_and_open_steps_keep_the_limit(kind: str, rows: list[Row], after: int) -> None:
    """
    At any moment, were all else asked step by step, there would be no more than 1.05 calls a step.
    """
    turning, vendor = Turning(after), VENDORS[kind](rows)
    run(plan_for(rows), lambda span: turning(vendor, span))

    assert 20 * turning.calls <= 21 * len(rows)


@vendors
@bounded
@given(st.lists(flipbooks(30), min_size=1, max_size=8), st.integers(0, 240), st.integers(0, 999))
def test_a_whole_series_keeps_the_limit(
    kind: str, series: list[list[Row]], after: int, seed: int
) -> None:
    """
    However the calls of several flipbooks mix, they share one limit, at every moment.
    """
    turning, pool = Turning(after), Pool()
    plans = [(plan_for(rows, pool), VENDORS[kind](rows)) for rows in series]
    interleave(plans, Random(seed), turning)  # noqa: S311
    steps = [len(rows) for rows in series]

    assert 20 * turning.calls <= 21 * sum(steps)
    assert 20 * turning.calls + pool.credit <= 21 * sum(steps)
    least, most = bounds(steps)
    assert least <= turning.calls <= most


def test_finished_flipbooks_pay_for_the_next() -> None:
    """
    A year of months is too short for a first call, unless others left something over.
    """
    pool, silent = Pool(), adding([ZERO] * 12)
    calls = [len(run(plan_for([ZERO] * 12, pool), silent)[1]) for _ in range(100)]

    assert [12] + [1] * 99 == calls
    assert 21 * 1200 - 20 * sum(calls) == pool.credit


def test_splits_that_save_nothing_are_not_paid_by_others() -> None:
    """
    Where counters do not add up, others pay for the whole and its halves at the most.
    """
    rows: list[Row] = [(1, 1)] * 12
    pool = Pool(10_000)
    _, answers = run(plan_for(rows, pool), noisy(rows))

    assert 12 + 3 == len(answers)
    assert 10_000 + 12 - 3 * 20 == pool.credit


@pytest.mark.parametrize(
    ("number", "silent", "read"),
    [
        (1, 1, 1),
        (2, 2, 2),
        (3, 3, 3),
        (12, 12, 12),
        (19, 19, 19),
        (20, 1, 21),
        (30, 1, 31),
        (52, 1, 53),
    ],
)
def test_short_series_are_asked_step_by_step(number: int, silent: int, read: int) -> None:
    """
    Fewer than 20 steps do not pay for a first look of their own.
    """
    nothing: list[Row] = [ZERO] * number
    daily: list[Row] = [(1, 1, 1, 1, 1, 1)] * number

    assert silent == len(run(plan_for(nothing), adding(nothing))[1])
    assert read == len(run(plan_for(daily), adding(daily))[1])
    assert (silent, number * 21 // 20) == bounds([number])


def test_a_plan_for_nothing_asks_nothing() -> None:
    """
    Without steps there is neither a call nor a result.
    """
    assert ([], {}) == run(resolve(HASH, [], {}, Pool()), adding([]))
    assert (0, 0) == bounds([]) == bounds([0])
    assert (1, 31) == bounds([0, 30])


# --- what is known


@vendors
@bounded
@given(flipbooks(), st.integers(0, 90), st.integers(0, 60), st.data())
def test_a_broken_off_plan_goes_on_as_if_it_had_not_been(
    kind: str, rows: list[Row], most: int, credit: int, data: st.DataObject
) -> None:
    """
    With the answers so far, the calls that are left are the same, and so is the result.
    """
    steps, vendor = days(len(rows)), VENDORS[kind](rows)
    before = data.draw(st.sets(st.sampled_from(steps)))
    settled = {step: Resolved(vendor(step), is_inferred=False) for step in before}
    whole = run(resolve(HASH, steps, settled, Pool(credit)), vendor)
    _, first = run(resolve(HASH, steps, settled, Pool(credit)), vendor, most)
    found, rest = run(resolve(HASH, steps, {**settled, **first}, Pool(credit)), vendor)

    assert whole == (found, {**first, **rest})
    assert list(whole[1]) == [*first, *rest]


@vendors
@bounded
@given(flipbooks(), st.integers(0, 200), st.integers(0, 200))
def test_a_plan_that_was_followed_asks_nothing_more(
    kind: str, rows: list[Row], credit: int, other: int
) -> None:
    """
    With all answers the result is the same without a call, whatever others left over.
    """
    steps, vendor = days(len(rows)), VENDORS[kind](rows)
    found, answers = run(plan_for(rows, Pool(credit)), vendor)

    assert (found, {}) == run(resolve(HASH, steps, answers, Pool(other)), vendor)


def test_what_an_earlier_series_paid_for_is_free() -> None:
    """
    A total from an earlier series is used, and leaves this one's credit as it is.
    """
    steps, pool = days(12), Pool()
    whole = Span(steps[0].first, steps[-1].last)
    known = {whole: Resolved(stats(0), is_inferred=False)}
    found, answers = run(resolve(HASH, steps, known, pool), lambda span: stats(1))

    assert {} == answers
    assert [True] * 12 == [one.is_inferred for one in found]
    assert 21 * 12 == pool.credit


@bounded
@given(flipbooks(), st.data())
def test_what_is_known_is_not_asked_for(rows: list[Row], data: st.DataObject) -> None:
    """
    Known steps, inferred or not, and any wider ranges are used, counted, and never asked for.
    """
    steps, vendor = days(len(rows)), adding(rows)
    places = st.integers(0, len(rows) - 1)
    ends = data.draw(st.lists(st.tuples(places, places), max_size=9))
    known: dict[Span, CollectionStats | Resolved] = {}
    for one, other in ends:
        span = Span(steps[min(one, other)].first, steps[max(one, other)].last)
        total = vendor(span)
        known[span] = Resolved(total, False) if data.draw(st.booleans()) else total
    for step in data.draw(st.sets(st.sampled_from(steps))):
        known[step] = Resolved(vendor(step), data.draw(st.booleans()))
    found, answers = run(resolve(HASH, steps, known, Pool()), vendor)
    earlier = [step for step in steps if isinstance(known.get(step), Resolved)]
    answered = [step for step in steps if isinstance(known.get(step), CollectionStats)]

    assert rows == numbers(found)
    assert not answers.keys() & known.keys()
    assert 20 * (len(answers) + len(answered)) <= 21 * (len(rows) - len(earlier))
    for step, each in zip(steps, found, strict=True):
        if step in earlier:
            assert each is known[step]
        else:
            assert each.is_inferred == (step not in answers and step not in answered)


@pytest.mark.parametrize("new", [slice(0, 65), slice(100, 165), slice(300, 365)], ids=str)
@pytest.mark.parametrize("is_answered", [True, False])
def test_new_days_are_looked_at_by_themselves(new: slice, is_answered: bool) -> None:
    """
    What lies before, between or after known days costs one call if nobody read in it.
    """
    rows: list[Row] = [(i % 3, 1) for i in range(365)]
    rows[new] = [ZERO] * 65
    steps, vendor = days(365), adding(rows)
    known: dict[Span, CollectionStats | Resolved] = {
        step: vendor(step) if is_answered else Resolved(vendor(step), i % 2 == 0)
        for i, step in enumerate(steps)
        if step not in steps[new]
    }
    _, answers = run(resolve(HASH, steps, known, Pool()), vendor)

    assert [Span(steps[new][0].first, steps[new][-1].last)] == list(answers)


def test_what_was_inferred_proves_nothing() -> None:
    """
    Whether counters add up is seen from answers only.
    """
    first, second = steps = days(2)
    inferred = Resolved(stats(2), is_inferred=True)
    known: dict[Span, CollectionStats | Resolved] = {first: inferred}
    known[Span(first.first, second.last)] = stats(5)
    found, answers = run(resolve(HASH, steps, known, Pool()), lambda span: stats(3))

    assert [second] == list(answers)
    assert [inferred, Resolved(found[1].stats, is_inferred=False)] == found


@bounded
@given(flipbooks(), st.data())
def test_exactly_means_every_step(rows: list[Row], data: st.DataObject) -> None:
    """
    Exactly those steps are asked for, once and in order, that no call was made for.
    """
    steps, vendor = days(len(rows)), adding(rows)
    asked = data.draw(st.sets(st.sampled_from(steps)))
    known: dict[Span, CollectionStats | Resolved] = {
        step: Resolved(vendor(step), is_inferred=step not in asked) for step in steps[::2]
    }
    known.update({step: vendor(step) for step in asked if step not in known})
    known[Span(steps[0].first, steps[-1].last)] = vendor(steps[0])
    rest = [s for s in steps if s not in asked and (len(steps) > 1 or s not in known)]
    found, answers = run(resolve(HASH, steps, known, Pool(1000), exact=True), vendor)

    assert rest == list(answers)
    assert rows == numbers(found)
    assert not any(one.is_inferred for one in found)
    assert (len(rows), len(rows)) == bounds([len(rows)], exact=True)


# --- figures


def scattered(number: int) -> Callable[[Random], list[int]]:
    return lambda dice: dice.sample(range(365), number)


def by_chance(share: float) -> Callable[[Random], list[int]]:
    return lambda dice: [day for day in range(365) if dice.random() < share]


def in_one_stretch(number: int) -> Callable[[Random], list[int]]:
    def choose(dice: Random) -> list[int]:
        first = dice.randrange(366 - number)
        return list(range(first, first + number))

    return choose


@pytest.mark.parametrize(
    ("choose", "flipbooks", "mean", "most"),
    [
        pytest.param(scattered(0), 5, 0.003, 0.003, id="none"),
        pytest.param(by_chance(0.01), 100, 0.08, 1.05, id="1 % by chance"),
        pytest.param(scattered(4), 100, 0.08, 0.10, id="4 days"),
        pytest.param(in_one_stretch(4), 100, 0.05, 0.08, id="4 days in one stretch"),
        pytest.param(by_chance(0.1), 40, 0.40, 1.05, id="10 % by chance"),
        pytest.param(scattered(36), 40, 0.40, 0.45, id="36 days"),
        pytest.param(in_one_stretch(36), 40, 0.15, 0.16, id="36 days in one stretch"),
        pytest.param(by_chance(0.5), 10, 0.90, 1.05, id="50 % by chance"),
        pytest.param(in_one_stretch(182), 10, 0.54, 0.56, id="half a year"),
        pytest.param(scattered(365), 5, 1.003, 1.003, id="all"),
    ],
)
def test_a_year_of_days_takes_few_calls(
    choose: Callable[[Random], list[int]], flipbooks: int, mean: float, most: float
) -> None:
    """
    At 1 % of the days read, a year takes 8 % of a call a day, at 10 % 40 %, and never above 105 %.
    """
    dice = Random(365)  # noqa: S311
    steps, shares = days(365), list[float]()
    for _ in range(flipbooks):
        counts = [0] * 365
        for day in choose(dice):
            counts[day] = dice.randint(1, 9)
        sums = list(accumulate(counts, initial=0))

        def answer(span: Span, sums: list[int] = sums) -> CollectionStats:
            first = (span.first - FIRST).days
            return stats(n := sums[first + width(span)] - sums[first], n)

        found, answers = run(resolve(HASH, steps, {}, Pool()), answer)
        assert counts == [one.stats.views for one in found]
        shares.append(len(answers) / 365)

    assert mean >= sum(shares) / len(shares)
    assert most >= max(shares)
