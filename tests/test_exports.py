"""Many packages at once: a row for each, files that are whole, and as few calls as it takes."""

from __future__ import annotations

import math
import os
import random
import zipfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from scripted import client

from flipsnack_async import (
    AuthenticationError,
    ClientClosedError,
    Collection,
    CollectionUnavailableError,
    DownloadError,
    ExportFailedError,
    Exports,
    ExportTimeoutError,
    Flipsnack,
    InvalidArgumentError,
    PackageRow,
    Rate,
    SavedPackage,
    _download,
    exports,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

SIZE = 20_000


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk, since no power fails here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


async def gather(rows: Any) -> dict[str, PackageRow]:
    """Take all rows, each of which holds a package or an error, and is the only one of its hash."""
    taken = {}
    async for row in rows:
        assert row.collection_hash not in taken
        assert (row.package is None) is (row.error is not None)
        taken[row.collection_hash] = row
    return taken


async def export(box: Sandbox, folder: Path, refs: Any = None, **options: Any) -> Any:
    async with client(box) as flipsnack:
        async with flipsnack.export_many(refs, folder, **options) as rows:
            return await gather(rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(folder: Path) -> dict[str, int]:
    """Say when each file was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def asked(box: Sandbox, since: int = 0) -> set[str]:
    """Say whose packages were asked for."""
    calls = box.ledger[since:]
    return {call.params["collectionHash"] for call in calls if "downloadHTML" in call.action}


def each(box: Sandbox) -> set[str]:
    return {f"{name}.zip" for name in box.hashes}


class Line(httpx.AsyncBaseTransport):
    """Lie before a sandbox, let each download take *seconds*, and count those under way."""

    def __init__(self, box: Sandbox, seconds: float) -> None:
        self.inner = box.transport()
        self.seconds = seconds
        self.under_way = self.most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        if request.url.path.startswith("/packages/"):
            response.stream = _Slow(self, response.stream)
        return response


class _Slow(httpx.AsyncByteStream):
    def __init__(self, line: Line, stream: Any) -> None:
        self._line = line
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        line = self._line
        line.under_way += 1
        line.most = max(line.most, line.under_way)
        try:
            await anyio.sleep(line.seconds)
            async for chunk in self._stream:
                yield chunk
        finally:
            line.under_way -= 1


def over(line: Line, box: Sandbox, **options: Any) -> Flipsnack:
    return Flipsnack(box.api_key, box.api_secret, transport=line, **options)


async def test_an_export_has_one_row_and_one_file_for_each_collection(tmp_path: Path) -> None:
    """
    Without refs, the whole account is exported: files named after hashes, whole, and no others.
    """
    box = Sandbox(collections=30, package_size=SIZE)
    folder = tmp_path / "some" / "where"
    async with client(box) as flipsnack:
        async with flipsnack.export_many(None, folder) as rows:
            taken = await gather(rows)
            progress = rows.progress

    assert set(box.hashes) == taken.keys()
    found = contents(folder)
    assert each(box) == found.keys()
    for name, row in taken.items():
        path, data = folder / f"{name}.zip", found[f"{name}.zip"]
        package = row.package
        assert package is not None
        assert (name, path, SIZE) == (package.collection_hash, package.path, package.size)
        assert SIZE == len(data)
        assert sha256(data).hexdigest() == package.sha256
        assert zipfile.ZipFile(path).testzip() is None
    assert len(found) == len(set(found.values()))
    assert (30, 0, 30) == (progress.done, progress.failed, progress.total)
    assert (len(box.ledger), 30 * SIZE) == (progress.calls, progress.bytes)
    assert 0 == progress.seconds_left
    assert {20} == {call.code for call in box.ledger}


async def test_refs_of_any_kind(tmp_path: Path) -> None:
    """
    Hashes and objects, from a list, a generator or an async generator; each is exported once.
    """
    box = Sandbox(export_seconds=0, rates=())
    a, b, c = box.hashes[:3]

    async def later() -> AsyncIterator[str | Collection]:
        for ref in (a, Collection(b), a, c):
            await anyio.sleep(1)
            yield ref

    kinds: list[Any] = [[a, Collection(b), a, c], iter([a, b, b, c]), later()]
    for number, refs in enumerate(kinds):
        folder, before = tmp_path / str(number), len(box.ledger)
        assert {a, b, c} == (await export(box, folder, refs)).keys()
        assert {f"{name}.zip" for name in (a, b, c)} == set(os.listdir(folder))
        assert 3 == len(box.ledger) - before


async def test_no_refs_make_no_rows(tmp_path: Path) -> None:
    """
    An export of nothing ends at once, without a call, and leaves the folder empty.
    """
    box = Sandbox()
    assert {} == await export(box, tmp_path / "new", [])
    assert [] == os.listdir(tmp_path / "new")
    assert [] == box.ledger


async def test_a_failure_is_a_row(tmp_path: Path) -> None:
    """
    A package that can't be had stops nobody; its row holds the error, and there is no file of it.
    """
    box = Sandbox(collections=10, package_size=SIZE)
    listed = list(box.hashes)
    failing, stalling, gone, html = listed[:4]
    box.fail_export(failing)
    box.stall_export(stalling)
    box.remove(gone)
    box.fail_download(collection_hash=html, body=b"<html>Not now</html>", times=None)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(listed, tmp_path, within=60) as rows:
            taken = await gather(rows)
            progress = rows.progress

    errors = {name: type(row.error) for name, row in taken.items() if row.error}
    assert {
        failing: ExportFailedError,
        stalling: ExportTimeoutError,
        gone: CollectionUnavailableError,
        html: DownloadError,
    } == errors
    assert {f"{name}.zip" for name in listed[4:]} == set(os.listdir(tmp_path))
    assert (10, 4) == (progress.done, progress.failed)
    assert {None} == {row.error.__traceback__ for row in taken.values() if row.error}


async def test_a_failure_is_tried_again_by_the_next_export(tmp_path: Path) -> None:
    """
    An export that ran out of time goes on where it was, in the next run.
    """
    box = Sandbox(collections=5, export_seconds=70)
    first = await export(box, tmp_path, within=30)
    assert {ExportTimeoutError} == {type(row.error) for row in first.values()}
    assert [] == os.listdir(tmp_path)

    again = await export(box, tmp_path)

    assert not [row for row in again.values() if row.error]
    assert each(box) == set(os.listdir(tmp_path))


@pytest.mark.parametrize("code", [41, 44])
async def test_wrong_credentials_end_an_export(tmp_path: Path, code: int) -> None:
    """
    When the key stops working the error itself is raised, and what is on disk by then is whole.
    """
    box = Sandbox(collections=40, export_seconds=0, package_size=SIZE)
    taken = []
    async with client(box) as flipsnack:
        with pytest.raises(AuthenticationError):
            async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
                async for row in rows:
                    taken.append(row)
                    if len(taken) == 10:
                        box.fail("collection.downloadHTML", code=code, times=None)
        made = len(box.ledger)
        await anyio.sleep(300)

    assert 10 <= len(taken) < 40
    assert made == len(box.ledger)
    assert {SIZE} == {len(data) for data in contents(tmp_path).values()}
    assert {f"{row.collection_hash}.zip" for row in taken} <= set(os.listdir(tmp_path)) <= each(box)


async def test_a_listing_that_fails_ends_the_export(tmp_path: Path) -> None:
    """
    An account that can't be listed has no rows: its error is raised, not an exception group.
    """
    box = Sandbox()
    box.fail("collection.getList", code=40)
    with pytest.raises(Exception, match="code 40"):
        await export(box, tmp_path)


async def test_what_the_callers_iterator_raises_comes_through(tmp_path: Path) -> None:
    """
    An error in the refs is the caller's own, and comes back as it was.
    """
    box = Sandbox(export_seconds=0)

    async def refs() -> AsyncIterator[str]:
        yield box.hashes[0]
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await export(box, tmp_path, refs())


async def test_an_error_in_the_block_is_not_wrapped(tmp_path: Path) -> None:
    """
    What the caller raises while exporting leaves the block as it is.
    """
    async with client(Sandbox(export_seconds=0)) as flipsnack:
        with pytest.raises(LookupError, match="mine"):
            async with flipsnack.export_many(None, tmp_path) as rows:
                async for _ in rows:
                    raise LookupError("mine")


async def test_f14_an_export_is_taken_up_where_it_was_broken_off(tmp_path: Path) -> None:
    """
    Files that are there and whole are checked, and cost no call; what is missing is fetched.
    """
    box = Sandbox(collections=20, package_size=SIZE)
    first = await export(box, tmp_path, list(box.hashes[:12]))
    before, stamps = len(box.ledger), written(tmp_path)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            second = await gather(rows)
            fetched = rows.progress.bytes

    assert set(box.hashes[12:]) == asked(box, before)
    assert 8 * SIZE == fetched
    assert first.items() <= second.items()
    assert set(box.hashes) == second.keys()
    assert each(box) == set(os.listdir(tmp_path))
    assert stamps.items() <= written(tmp_path).items()

    made = len(box.ledger)
    assert second == await export(box, tmp_path, list(box.hashes))
    assert made == len(box.ledger)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[SIZE // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, SIZE - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"and more")


def page(path: Path) -> None:
    path.write_bytes(b"<html>Sorry</html>")


@pytest.mark.parametrize("spoil", [flip, truncate, empty, grow, page])
async def test_a_broken_file_is_fetched_anew(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """
    What is in a package's place and not whole is replaced, and its neighbours are left alone.
    """
    box = Sandbox(collections=4, package_size=SIZE)
    first = await export(box, tmp_path)
    before, whole = len(box.ledger), contents(tmp_path)
    broken = box.hashes[2]
    spoil(tmp_path / f"{broken}.zip")

    second = await export(box, tmp_path, list(box.hashes))

    assert {broken} == asked(box, before)
    assert first == second
    assert whole == contents(tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
async def test_what_is_no_file_in_a_files_place_is_a_row(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """
    Where a file cannot be put, the row says so before any call, and the others are saved.
    """
    box = Sandbox(collections=3, export_seconds=0)
    place = tmp_path / f"{box.hashes[1]}.zip"
    make(place)
    before = place.lstat()

    taken = await export(box, tmp_path)

    assert isinstance(taken[box.hashes[1]].error, InvalidArgumentError)
    assert {box.hashes[0], box.hashes[2]} == asked(box)
    assert before.st_ino == place.lstat().st_ino


async def test_a_link_that_none_can_be_is_a_row(tmp_path: Path) -> None:
    """
    A link that no reader of addresses takes fails one package, in words that don't repeat it.
    """
    box = Sandbox(collections=3, export_seconds=0)
    bad = box.hashes[1]

    class Mangling(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if bad.encode() not in request.extensions.get("target", b""):
                return await box.transport().handle_async_request(request)
            data = {"status": "COMPLETE", "resourceUrl": "https://xn--a.example/?secret"}
            return httpx.Response(200, json={"code": 20, "data": data})

    flipsnack = Flipsnack(box.api_key, box.api_secret, transport=Mangling())
    async with flipsnack, flipsnack.export_many(list(box.hashes), tmp_path) as rows:
        taken = await gather(rows)

    assert str(taken[bad].error).endswith("its link is no address")
    assert each(box) - {f"{bad}.zip"} == set(os.listdir(tmp_path))


async def test_leaving_early_leaves_whole_files_only(tmp_path: Path) -> None:
    """
    After a break no call goes out any more, and no file is there that is not whole.
    """
    box = Sandbox(collections=30, export_seconds=0, package_size=SIZE)
    line = Line(box, 3)
    async with over(line, box) as flipsnack:
        async with flipsnack.export_many(None, tmp_path) as rows:
            for _ in range(6):
                await anext(rows)
            assert [name for name in os.listdir(tmp_path) if name.endswith(".part")]
        made = len(box.ledger)
        found = contents(tmp_path)
        await anyio.sleep(300)

        assert made == len(box.ledger)
        assert found == contents(tmp_path)
        assert 0 == line.under_way
        assert 6 <= len(found) < 30
        assert {SIZE} == {len(data) for data in found.values()}
        assert found.keys() <= each(box)
        await flipsnack.user.get_stats()
        assert {0} == set(flipsnack.quota.statistics().waiting.values())


async def test_a_deadline_around_an_export_cuts_it_off(tmp_path: Path) -> None:
    """
    A deadline fails no row before it strikes, and leaves whole files only, whenever that is.
    """
    box = Sandbox(collections=100, export_seconds=20, package_size=SIZE)
    for number, seconds in enumerate((0.5, 25, 61)):
        folder, line, taken = tmp_path / str(number), Line(box, 1), []
        async with over(line, box) as flipsnack:
            with anyio.move_on_after(seconds) as scope:
                async with flipsnack.export_many(list(box.hashes), folder) as rows:
                    async for row in rows:
                        taken.append(row)
            assert scope.cancelled_caught
            await anyio.sleep(120)
            assert [5, 60] == list(flipsnack.quota.statistics().free.values())
        assert not [row.error for row in taken if row.error]
        assert {len(data) for data in contents(folder).values()} <= {SIZE}
        assert len(taken) <= len(os.listdir(folder)) < 100


async def test_progress_tells_how_far_it_is(tmp_path: Path) -> None:
    """
    Rows, failures, calls and bytes count up, and the time left comes down to nothing.
    """
    box = Sandbox(collections=40, package_size=SIZE)
    box.fail_export(box.hashes[7])
    seen = []
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            seen.append(rows.progress)
            began = anyio.current_time()
            async for _ in rows:
                seen.append(rows.progress)
            took = anyio.current_time() - began

    assert list(range(41)) == [progress.done for progress in seen]
    assert {40} == {progress.total for progress in seen}
    for name in ("failed", "calls", "bytes"):
        numbers = [getattr(progress, name) for progress in seen]
        assert sorted(numbers) == numbers
    last = seen[-1]
    assert (1, 39 * SIZE, len(box.ledger)) == (last.failed, last.bytes, last.calls)
    left = [p.seconds_left for p in seen if p.seconds_left is not None]
    assert 0.5 * took <= left[0] <= 1.5 * took
    assert 0 == left[-1]
    assert all(0 <= seconds < math.inf for seconds in left)


@pytest.mark.parametrize("number", [3, 100])
async def test_the_time_left_is_true_or_not_said(tmp_path: Path, number: int) -> None:
    """
    Many packages are foreseen well, and a few that are being built not at all.
    """
    chance = random.Random(1)  # noqa: S311  no secret
    box = Sandbox(collections=number, export_seconds=lambda: chance.uniform(10, 90))
    said: list[tuple[float, float | None]] = []

    async def watch(rows: Exports) -> None:
        while True:
            said.append((anyio.current_time(), rows.progress.seconds_left))
            await anyio.sleep(1)

    async with client(box) as flipsnack, anyio.create_task_group() as tasks:
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            tasks.start_soon(watch, rows)
            await gather(rows)
            ended = anyio.current_time()
            tasks.cancel_scope.cancel()

    told = [(at, seconds) for at, seconds in said if seconds is not None]
    assert not [(at, seconds) for at, seconds in told if abs(at + seconds - ended) > 20]
    assert number < 100 or len(told) > 0.7 * len(said)


async def test_duplicates_are_no_part_of_the_total(tmp_path: Path) -> None:
    """
    What comes twice in a list is counted once, from the beginning.
    """
    box = Sandbox(collections=12)
    refs: list[Any] = [*box.hashes, *map(Collection, box.hashes)]
    async with client(box) as flipsnack:
        async with flipsnack.export_many(refs, tmp_path, at_once=2) as rows:
            assert 12 == rows.progress.total
            await anext(rows)
            assert 12 == rows.progress.total


async def test_the_total_is_unknown_until_all_refs_are(tmp_path: Path) -> None:
    """
    While refs come one by one, nobody can tell how many there are, nor how long it takes.
    """
    box = Sandbox(collections=3, export_seconds=0)

    async def later() -> AsyncIterator[str]:
        for name in box.hashes:
            yield name
            await anyio.sleep(10)

    async with client(box) as flipsnack:
        async with flipsnack.export_many(later(), tmp_path) as rows:
            await anext(rows)
            assert (None, None) == (rows.progress.total, rows.progress.seconds_left)
            assert 2 == len(await gather(rows))
            assert (3, 0) == (rows.progress.total, rows.progress.seconds_left)


async def test_f18_four_downloads_at_once_over_links_that_are_fresh(tmp_path: Path) -> None:
    """
    No more than four are fetched at the same time, and whoever waits asks for its link anew.
    """
    box = Sandbox(collections=20, export_seconds=0, package_size=SIZE)
    line = Line(box, 25)
    async with over(line, box) as flipsnack:
        began = anyio.current_time()
        async with flipsnack.export_many(None, tmp_path) as rows:
            taken = await gather(rows)
        took = anyio.current_time() - began

    assert 4 == line.most
    assert not [row.error for row in taken.values() if row.error]
    assert {200} == {download.status for download in box.downloads}
    assert 20 == len(box.downloads)
    assert took <= 20 / 4 * 25 + 10


async def test_at_once_bounds_the_packages_under_way(tmp_path: Path) -> None:
    """
    No more exports than asked for have been started and are not finished.
    """
    box = Sandbox(collections=12)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path, at_once=3) as rows:
            await anyio.sleep(15)
            assert 3 == len(asked(box))
            assert 12 == len(await gather(rows))


async def test_a_slow_reader_slows_the_export(tmp_path: Path) -> None:
    """
    Not more packages are saved ahead of the reader than may be under way at once.
    """
    box = Sandbox(collections=20, export_seconds=0)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path, at_once=3) as rows:
            await anext(rows)
            await anyio.sleep(500)
            assert 4 == len(box.ledger)
            assert 4 == len(os.listdir(tmp_path))
            assert 19 == len(await gather(rows))


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_export_takes_few_calls_and_little_time(tmp_path: Path, seed: int) -> None:
    """
    A hundred exports of 10 to 90 s: at most 2.4 calls each, and 1.15 of the least time.
    """
    chance = random.Random(seed)  # noqa: S311  no secret
    box = Sandbox(
        collections=100,
        export_seconds=lambda: chance.uniform(10, 90),
        latency=0.1,
        count_refused=True,
    )
    async with client(box) as flipsnack:
        began = anyio.current_time()
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            taken = await gather(rows)
        took = anyio.current_time() - began

    assert not [row.error for row in taken.values() if row.error]
    assert {20} == {call.code for call in box.ledger}
    print(f"seed {seed}: {len(box.ledger)} calls in {took:.1f} s")
    assert len(box.ledger) <= 240
    assert took <= 215


@pytest.mark.parametrize(
    ("rates", "others", "at_once"),
    [
        (((5, 1.0), (10, 60.0)), 0, 150),
        (((5, 1.0), (60, 60.0)), 500, 150),
        (((5, 1.0), (60, 60.0)), 0, 5000),
    ],
    ids=["slow key", "beside a harvest", "all at once"],
)
async def test_no_package_fails_for_those_beside_it(
    tmp_path: Path, rates: tuple[tuple[int, float], ...], others: int, at_once: int
) -> None:
    """
    However long the calls of all take, each package has its time, and more asks than one.
    """
    chance = random.Random(5)  # noqa: S311  no secret
    number = 120 if at_once > 150 else 30
    box = Sandbox(
        collections=number + others,
        export_seconds=lambda: chance.uniform(10, 90),
        rates=rates,
        latency=0.2,
    )
    quick = [Rate(limit, per=per) for limit, per in rates]
    async with client(box, rates=quick) as flipsnack, anyio.create_task_group() as tasks:

        async def harvest() -> None:
            async with flipsnack.harvest(box.hashes[number:]) as rows:
                async for _ in rows:
                    pass

        if others:
            tasks.start_soon(harvest)
            await anyio.sleep(120)
        exporting = flipsnack.export_many(
            box.hashes[:number], tmp_path, within=220, at_once=at_once
        )
        async with exporting as rows:
            taken = await gather(rows)
        tasks.cancel_scope.cancel()

    assert number == len(taken)
    assert not [row.error for row in taken.values() if row.error]
    assert {20} == {call.code for call in box.ledger}


async def test_an_export_pauses_through_maintenance(tmp_path: Path) -> None:
    """
    Maintenance before the first answer takes nothing from the time that packages have.
    """
    box = Sandbox(collections=5)
    box.fail("*", code=22, times=8)
    began = anyio.current_time()
    taken = await export(box, tmp_path, list(box.hashes), within=100)

    assert not [row.error for row in taken.values() if row.error]
    assert anyio.current_time() - began > 100


async def test_answers_that_tell_nothing_fail_no_row(tmp_path: Path) -> None:
    """
    Thirty foreign answers to thirty packages cost calls, and not packages.
    """
    box = Sandbox(collections=30)
    box.fail("collection.downloadHTML", body="<html>Not now</html>", times=30)
    taken = await export(box, tmp_path, list(box.hashes))

    assert not [row.error for row in taken.values() if row.error]


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "..", ".", "", "/x", "a\\b", "C:x", "a\0b", "a\n", "x.zip", "ü", "x" * 101],
)
async def test_a_hostile_hash_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    """
    What would be no plain name of a file is a row with an error, costs no call, and writes nothing.
    """
    box = Sandbox(collections=2, export_seconds=0)
    folder = tmp_path / "deep" / "folder"

    taken = await export(box, folder, [name, *box.hashes])

    assert isinstance(taken[name].error, DownloadError)
    assert {name, *box.hashes} == taken.keys()
    assert set(box.hashes) == asked(box)
    assert each(box) == set(os.listdir(folder))
    assert (["deep"], ["folder"]) == (os.listdir(tmp_path), os.listdir(tmp_path / "deep"))


async def test_what_is_no_ref_ends_the_export(tmp_path: Path) -> None:
    """
    A number among the refs is a mistake of the caller's, told after the rows before it.
    """
    box = Sandbox(collections=2, export_seconds=0)
    refs: Any = [*box.hashes, 7]
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError, match="ref"):
            async with flipsnack.export_many(refs, tmp_path) as rows:
                await gather(rows)

    assert each(box) == set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[(name, value) for name in ("every", "within") for value in (0, -1, math.inf, math.nan)],
        *[("at_once", value) for value in (0, -1, 1.5, True, None)],
    ],
)
async def test_arguments_are_checked_before_a_call(
    tmp_path: Path, option: str, value: object
) -> None:
    """
    A wrong number raises when the export is described, not in each of its rows.
    """
    box = Sandbox()
    options: dict[str, Any] = {option: value}
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError, match=option) as caught:
            flipsnack.export_many(None, tmp_path / "new", **options)

    assert option == caught.value.field
    assert [] == box.ledger
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below"])
async def test_a_folder_that_is_none_is_refused_before_a_call(tmp_path: Path, place: str) -> None:
    """
    Where a file stands in the folder's way it is said so, and the file stays.
    """
    (tmp_path / "file").write_bytes(b"mine")
    box = Sandbox()
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            async with flipsnack.export_many(None, tmp_path / place):
                raise AssertionError

    assert "folder" == caught.value.field
    assert b"mine" == (tmp_path / "file").read_bytes()
    assert [] == box.ledger


@pytest.mark.parametrize("refs", ["fxh4k89", b"fxh4k89", Collection("fxh4k89"), 7], ids=repr)
async def test_what_are_no_refs_is_refused_when_described(tmp_path: Path, refs: Any) -> None:
    """
    One hash, or one collection, is not many: it is refused instead of taken letter by letter.
    """
    async with client(Sandbox()) as flipsnack:
        for describe in (partial(flipsnack.export_many, folder=tmp_path), flipsnack.harvest):
            with pytest.raises(InvalidArgumentError, match="in a list") as caught:
                describe(refs)
            assert "refs" == caught.value.field


@pytest.mark.parametrize("folder", [None, b"packages", "a\0b"], ids=repr)
async def test_what_is_no_path_is_refused_when_described(folder: Any) -> None:
    """
    A folder that no system could have is named as the argument that is wrong.
    """
    async with client(Sandbox()) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            flipsnack.export_many(None, folder)
        assert "folder" == caught.value.field


async def test_a_folder_that_cannot_be_written_is_told_before_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where nothing could be saved, nothing is asked for.
    """

    def read_only(**options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(exports, "TemporaryFile", read_only)
    box = Sandbox()
    with pytest.raises(InvalidArgumentError, match="Permission denied") as caught:
        await export(box, tmp_path)

    assert "folder" == caught.value.field
    assert [] == box.ledger


async def test_an_export_has_one_block(tmp_path: Path) -> None:
    """
    A second block, and rows outside of it, are refused in words.
    """
    async with client(Sandbox(export_seconds=0)) as flipsnack:
        for rows in (flipsnack.export_many([], tmp_path), flipsnack.harvest([])):
            with pytest.raises(ClientClosedError, match="block"):
                await anext(rows)
            async with rows:
                pass
            with pytest.raises(ClientClosedError, match="block"):
                await anext(rows)
            with pytest.raises(ClientClosedError, match="block"):
                async with rows:
                    raise AssertionError


async def test_f14_what_a_kill_left_behind_is_swept_away_at_the_start(tmp_path: Path) -> None:
    """
    An hour after a kill nothing is left of it, though its package is there by then.
    """
    box = Sandbox(collections=2, export_seconds=0)
    await export(box, tmp_path, list(box.hashes))
    names = [f".{box.hashes[0]}.zip.{number:016x}.part" for number in (1, 2)]
    mine = ".notes.part"
    for name in (*names, mine):
        (tmp_path / name).touch()
    for name in (names[0], mine):
        os.utime(tmp_path / name, (0, 0))

    await export(box, tmp_path, list(box.hashes))

    assert {*each(box), names[1], mine} == set(os.listdir(tmp_path))


async def test_few_are_verified_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An export that goes on leaves most threads to others.
    """
    under_way = most = 0

    async def verified(path: Path, collection_hash: str) -> SavedPackage:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(1)
        under_way -= 1
        return SavedPackage(collection_hash, path, 0, "")

    monkeypatch.setattr(_download, "verified", verified)
    await export(Sandbox(), tmp_path, [f"h{number}" for number in range(40)])

    assert 4 == most


async def test_f13_who_waits_for_long_is_not_swept_away(tmp_path: Path) -> None:
    """
    Of two exports into one folder, the later one does not take the earlier one for left behind.
    """
    box = Sandbox(collections=3, package_size=SIZE)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            await anyio.sleep(10)
            for name in os.listdir(tmp_path):  # as if an hour had passed, which exports may take
                os.utime(tmp_path / name, (0, 0))
            async with flipsnack.export_many(list(box.hashes), tmp_path) as others:
                for taken in (await gather(others), await gather(rows)):
                    assert not [row.error for row in taken.values() if row.error]

    assert each(box) == set(os.listdir(tmp_path))
