"""Harvests that are kept: each row on the disk when it is handed out, and no call made twice."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from scripted import client, done

from flipsnack_async import (
    ArchiveError,
    AuthenticationError,
    Flipsnack,
    HarvestProgress,
    HarvestRow,
    InvalidAnswerError,
    InvalidArgumentError,
)
from flipsnack_async.archive import Archive, KeptHarvest
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

JANUARY: dict[str, Any] = {"start_date": "2026-01-01", "end_date": "2026-01-31"}


async def gather(rows: Any) -> list[HarvestRow]:
    return [row async for row in rows]


async def harvest(path: Path, flipsnack: Flipsnack, *args: Any, **more: Any) -> list[HarvestRow]:
    async with Archive.open(path) as archive, archive.harvest(flipsnack, *args, **more) as rows:
        return await gather(rows)


async def kept(path: Path) -> list[HarvestRow]:
    async with Archive.open(path) as archive:
        return await gather(archive.rows())


def content(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def asked(box: Sandbox) -> list[str]:
    return [
        call.params["collectionHash"] for call in box.ledger if call.action == "collection.getStats"
    ]


async def test_what_is_kept_is_what_was_harvested(path: Path) -> None:
    """
    Every row comes out of the archive as it was handed out, pages and all, in the list's order.
    """
    box = Sandbox(collections=30)
    async with client(box) as flipsnack:
        handed_out = await harvest(path, flipsnack, pages=True, **JANUARY)
        async with flipsnack.harvest(pages=True, **JANUARY) as rows:
            harvested = await gather(rows)

    by_hash = {row.collection_hash: row for row in harvested}
    assert by_hash == {row.collection_hash: row for row in handed_out}
    assert [by_hash[name] for name in box.hashes] == await kept(path)
    assert 0o600 == mode(path)


async def test_a_harvest_that_was_left_goes_on(path: Path) -> None:
    """
    The same harvest again asks for what is missing, and for nothing that is on the disk.
    """
    box = Sandbox(collections=40, rates=())
    async with client(box, rates=()) as flipsnack:
        async with Archive.open(path) as archive:
            async with archive.harvest(flipsnack) as rows:
                first = [await anext(rows) for _ in range(15)]
            before = await gather(archive.rows())
        second = await harvest(path, flipsnack)

    assert 15 <= len(before) < 40
    assert {row.collection_hash for row in first} <= {row.collection_hash for row in before}
    assert not {row.collection_hash for row in before} & {row.collection_hash for row in second}
    assert sorted(box.hashes) == sorted(row.collection_hash for row in before + second)
    assert sorted(box.hashes) == sorted(row.collection_hash for row in await kept(path))
    assert len(asked(box)) <= 40 + 8


async def test_when_it_is_over_another_one_starts(path: Path) -> None:
    """
    A harvest that was completed is not continued: numbers that can still grow are asked for anew.
    """
    box = Sandbox(collections=5)
    async with client(box) as flipsnack:
        await harvest(path, flipsnack)
        await harvest(path, flipsnack)
        async with Archive.open(path) as archive:
            runs = await archive.contents()

    assert [1, 2] == [run.run for run in runs]
    assert [5, 5] == [run.done for run in runs]
    assert [{"pages": False, "fresh": False, "refs": "all"}] * 2 == [run.parameters for run in runs]
    assert {"complete"} == {run.state for run in runs}
    assert 10 == len(asked(box))


@pytest.mark.parametrize(("fresh", "calls"), [(False, 5), (True, 10)])
async def test_what_is_final_is_not_asked_again(path: Path, fresh: bool, calls: int) -> None:
    """
    Numbers of a range that had ended are taken from the archive, unless they are wanted fresh.
    """
    box = Sandbox(collections=5)
    async with client(box) as flipsnack:
        first = await harvest(path, flipsnack, fresh=fresh, **JANUARY)
        second = await harvest(path, flipsnack, fresh=fresh, **JANUARY)

    assert calls == len(asked(box))
    assert sorted(first, key=str) == sorted(second, key=str)


async def test_what_is_final_may_be_a_part(path: Path) -> None:
    """
    Only those are asked about whose numbers are not final yet, and pages that nobody wants stay.
    """
    box = Sandbox(collections=4)
    async with client(box) as flipsnack:
        first = await harvest(path, flipsnack, box.hashes[:2], pages=True, **JANUARY)
        for pages, calls in ((False, 4), (True, 6)):
            rows = await harvest(path, flipsnack, box.hashes, pages=pages, **JANUARY)
            assert calls == len(asked(box))
            assert {pages} == {bool(row.stats and row.stats.pages) for row in rows}
            if pages:
                assert {row.collection_hash: row for row in first}.items() <= {
                    row.collection_hash: row for row in rows
                }.items()


async def test_a_run_that_is_not_there_is_named(path: Path) -> None:
    """
    Rows of a harvest or series that the archive does not hold are refused in words.
    """
    box = Sandbox(collections=1)
    async with client(box) as flipsnack:
        async with Archive.open(path) as archive:
            for read, words in (
                (archive.rows(), f"{path} holds no harvest; look at its contents$"),
                (archive.series_rows(), f"{path} holds no series; look at its contents$"),
            ):
                with pytest.raises(ArchiveError, match=words):
                    await anext(read)
        await harvest(path, flipsnack)
        async with Archive.open(path) as archive:
            assert 1 == len(await gather(archive.rows(1)))
            with pytest.raises(ArchiveError, match="holds no harvest 2; "):
                await anext(archive.rows(2))
            with pytest.raises(ArchiveError, match="holds no series 1; "):
                await anext(archive.series_rows(1))


@pytest.mark.parametrize(("ago", "calls"), [(1, 10), (2, 5)])
async def test_a_range_is_final_two_days_after_its_end(path: Path, ago: int, calls: int) -> None:
    """
    What was asked the day after the range's end may have grown since, and is asked again.
    """
    box = Sandbox(collections=5)
    end = datetime.now(UTC).date() - timedelta(days=ago)
    async with client(box) as flipsnack:
        for _ in range(2):
            await harvest(path, flipsnack, start_date=date(2026, 1, 1), end_date=end)

    assert calls == len(asked(box))


async def test_the_stalest_come_first(path: Path) -> None:
    """
    Collections that were never asked about go before all others, then the oldest numbers.
    """
    box = Sandbox(collections=6, rates=())
    async with client(box, rates=()) as flipsnack:
        for names in ([box.hashes[2]], [box.hashes[0]]):
            await harvest(path, flipsnack, names, at_once=1)
        await harvest(path, flipsnack, at_once=1)

    assert [*box.hashes[1:2], *box.hashes[3:], box.hashes[2], box.hashes[0]] == asked(box)[2:]


async def test_a_failure_is_kept(path: Path) -> None:
    """
    A flipbook that is gone is told from one that failed; both come out as they went in.
    """
    box = Sandbox(collections=4)
    async with client(box) as flipsnack:
        for code in (46, 43):
            box.fail("collection.getStats", code=code)
        rows = {row.collection_hash: row for row in await harvest(path, flipsnack)}
        async with Archive.open(path) as archive:
            (run,) = await archive.contents()
            again = {row.collection_hash: row async for row in archive.rows()}

    assert (2, 1, 1, "partial") == (run.done, run.failed, run.gone, run.state)
    assert {46, 43, None} == {getattr(row.error, "code", None) for row in again.values()}
    for name, row in rows.items():
        assert type(row.error) is type(again[name].error)
        assert str(row.error) == str(again[name].error)
        assert row.stats == again[name].stats
        assert not row.error or vars(row.error) == vars(again[name].error)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"end_date": "2026-02-28"}, "end_date 2026-01-31"),
        ({"pages": True}, "start_date 2026-01-01, end_date 2026-01-31; finish"),
        ({"refs": ["another"]}, "other collections"),
        ({"refs": None}, "collections that were named"),
    ],
)
async def test_g8_an_unfinished_harvest_goes_first(
    path: Path, change: dict[str, Any], word: str
) -> None:
    """
    While one is unfinished, another one is refused in words, and the file stays as it is.
    """
    box = Sandbox(collections=20)
    options: dict[str, Any] = {"refs": box.hashes, **JANUARY}
    async with client(box) as flipsnack:
        async with Archive.open(path) as archive, archive.harvest(flipsnack, **options) as rows:
            await anext(rows)
        before = content(path)
        with pytest.raises(ArchiveError, match=word):
            await harvest(path, flipsnack, **{**options, **change})

    assert before == content(path)


@pytest.mark.parametrize("refs", ["all", "given"])
async def test_g8_refs_are_told_from_the_whole_account(path: Path, refs: str) -> None:
    """
    Whether collections were named is stored, and matters even where they are the same ones.
    """
    box = Sandbox(collections=20)
    wanted = {"all": None, "given": box.hashes}
    async with client(box) as flipsnack:
        async with Archive.open(path) as archive:
            async with archive.harvest(flipsnack, wanted.pop(refs)) as rows:
                await anext(rows)
            (run,) = await archive.contents()
        (other,) = wanted.values()
        with pytest.raises(ArchiveError, match="finish it in the same way"):
            await harvest(path, flipsnack, other)

    assert {"pages": False, "fresh": False, "refs": refs} == run.parameters
    assert "asking" == run.state


async def test_g8_an_archive_is_about_one_key(path: Path) -> None:
    """
    Another account's key is refused, and the key itself is nowhere in the file.
    """
    box, other = Sandbox(collections=3), Sandbox(collections=3)
    async with client(box) as flipsnack, client(other) as another:
        await harvest(path, flipsnack)
        before = content(path)
        with pytest.raises(ArchiveError, match="another key"):
            await harvest(path, another)

    assert before == content(path)
    assert box.api_key.encode() not in before
    assert box.api_secret.encode() not in before


@pytest.mark.parametrize("refs", [None, ["fxh4k89"]])
async def test_a_mistyped_key_is_forgotten(path: Path, refs: list[str] | None) -> None:
    """
    An archive is about the first key that was answered, not about one that was refused.
    """
    box = Sandbox(collections=3)
    mistyped = Flipsnack("sandbox-mistyped", box.api_secret, transport=box.transport())
    async with client(box) as flipsnack, mistyped:
        with pytest.raises(AuthenticationError):
            await harvest(path, mistyped, refs)
        await harvest(path, flipsnack)

    assert [*box.hashes] == [row.collection_hash for row in await kept(path)]


async def test_what_was_never_asked_is_not_forgotten(path: Path) -> None:
    """
    An archive that only knows what is wanted is its key's all the same.
    """
    box = Sandbox(collections=3)
    async with client(box) as flipsnack:
        async with Archive.open(path) as archive, archive.harvest(flipsnack, box.hashes, at_once=1):
            pass
    before = content(path)
    async with Flipsnack("sandbox-other", "secret", transport=box.transport()) as other:
        with pytest.raises(ArchiveError, match="another key"):
            await harvest(path, other)

    assert before == content(path)


async def test_a_list_that_cannot_be_read_whole_is_not_complete(path: Path) -> None:
    """
    What the list held and nobody could read is told at the end, also by a harvest that goes on.
    """
    found: list[dict[str, str]] = [{"collectionHash": name} for name in "abc"]
    found.append({"collectionTitle": "no hash"})

    async def answer(request: httpx.Request) -> httpx.Response:
        target = request.extensions["target"]
        if b"getStats" in target:
            return httpx.Response(200, json=done(impressions=1, views=1))
        here = [] if b"from=" in target else found
        return httpx.Response(200, json=done(collections=here, collectionCount="4"))

    states = []
    for most in (1, 9):
        transport = httpx.MockTransport(answer)
        async with Flipsnack("sandbox-key", "secret", transport=transport) as flipsnack:
            async with Archive.open(path) as archive:
                with pytest.raises(InvalidAnswerError, match="collectionHash"):
                    async with archive.harvest(flipsnack, at_once=1) as rows:
                        for _ in range(most):
                            await anext(rows)
                        raise InvalidAnswerError("the block", "collectionHash")
                states += [run.state for run in await archive.contents()]

    assert ["asking", "partial"] == states


async def test_wrong_credentials_end_it_and_nothing_is_lost(path: Path) -> None:
    """
    A key that is refused on the way ends the harvest, which goes on later.
    """
    box = Sandbox(collections=20, rates=())
    async with client(box, rates=()) as flipsnack:
        async with Archive.open(path) as archive:
            with pytest.raises(AuthenticationError):
                async with archive.harvest(flipsnack) as rows:
                    for _ in range(5):
                        await anext(rows)
                    box.fail("collection.getStats", code=41)
                    await gather(rows)
            (run,) = await archive.contents()

    assert "asking" == run.state
    async with client(box, rates=()) as flipsnack:
        await harvest(path, flipsnack)
    assert sorted(box.hashes) == sorted(row.collection_hash for row in await kept(path))


async def test_an_outage_ends_it_and_blames_no_collection(path: Path) -> None:
    """
    When nothing succeeds any more, minutes pass, the harvest ends, and nobody has failed.
    """
    box = Sandbox(collections=30)
    async with client(box) as flipsnack:
        async with Archive.open(path) as archive:
            box.fail("collection.getStats", reset=True, times=None)
            began = anyio.current_time()
            with pytest.raises(Exception, match="connection"):
                async with archive.harvest(flipsnack) as rows:
                    await gather(rows)
            (run,) = await archive.contents()

    assert (0, "asking") == (run.failed, run.state)
    assert anyio.current_time() - began > 120


async def test_progress_is_of_the_whole_harvest(path: Path) -> None:
    """
    What came before it was broken off counts, calls that are left are told, and rows call back.
    """
    box = Sandbox(collections=10)
    seen: list[HarvestProgress] = []

    async def go_on(rows: KeptHarvest, most: int) -> None:
        async for _ in rows:
            most -= 1
            if not most:
                break

    async with client(box) as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack, at_once=1) as rows:
            await go_on(rows, 4)
        async with archive.harvest(flipsnack, at_once=1, on_progress=seen.append) as rows:
            await go_on(rows, 100)

    assert [p.done for p in seen] == list(range(seen[0].done, 11))
    assert 5 <= seen[0].done <= 7
    assert {10} == {p.total for p in seen}
    assert [10 - p.done for p in seen] == [p.calls_left for p in seen]


async def test_progress_goes_on_with_what_failed(path: Path) -> None:
    """
    What had failed or was gone before it was broken off has failed when it goes on, too.
    """
    box = Sandbox(collections=10)
    for code in (46, 43):
        box.fail("collection.getStats", code=code)
    async with client(box) as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack, at_once=1) as rows:
            await anext(rows)
            await anext(rows)
        (run,) = await archive.contents()
        async with archive.harvest(flipsnack, at_once=1) as rows:
            before = rows.progress.failed
            await gather(rows)
            after = rows.progress.failed

    assert (1, 1, "asking") == (run.failed, run.gone, run.state)
    assert (2, 2) == (before, after)


@pytest.mark.parametrize(
    ("options", "field", "remedy"),
    [
        ({"pages": 1}, "pages", "True or False"),
        ({"fresh": None}, "fresh", "True or False"),
        ({"on_progress": 1}, "on_progress", "function"),
        ({"at_once": 0}, "at_once", "at least 1"),
        ({"start_date": "soon"}, "start_date", "date"),
    ],
)
async def test_what_is_no_harvest_is_refused(
    path: Path, options: dict[str, Any], field: str, remedy: str
) -> None:
    """
    What cannot be harvested is refused by name, with what to give instead.
    """
    async with client(Sandbox()) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            Archive.open(path).harvest(flipsnack, **options)

    assert field == caught.value.field
    assert remedy in caught.value.remedy
