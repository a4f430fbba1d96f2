"""
Harvests whose process is killed: they go on, nothing is lost, and hardly a call is made twice.

FLIPSNACK_TEST_KILLS says how often to kill, for a thorough run, and FLIPSNACK_TEST_BOOKS over how
many flipbooks.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import IO, Any, Final

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from flipsnack_async import Flipsnack, HarvestRow
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
]

KILLS: Final = int(os.environ.get("FLIPSNACK_TEST_KILLS", "50"))
BOOKS: Final = int(os.environ.get("FLIPSNACK_TEST_BOOKS", "100"))
AT_ONCE: Final = 4
PAGE: Final = 15
RATE: Final = 40
NOBODY: Final = "zzzzzzz9"
RANGE: Final[dict[str, Any]] = {"start_date": "2026-01-01", "end_date": "2026-01-31", "pages": True}

# It has loaded everything when a life begins, which is then a fork and takes no time.
NURSE = """
import hashlib, json, os, select, signal, ssl, sys
import anyio, trio, httpx, asyncio, h11
from anyio._backends import _asyncio, _trio
from flipsnack_async import Flipsnack, Rate
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

# These take longer than most lives.
CONTEXT = ssl.SSLContext()
slow = hashlib.scrypt
hashlib.scrypt = lambda key, **more: slow(key, **{**more, "n": 2})

async def live(path, refs, rates, at_once, parameters, handed_out):
    handed_out = os.open(handed_out, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    options = {
        "rates": Rate.parse(rates) if rates else (),
        "api_url": os.environ["URL"],
        "transport": httpx.AsyncHTTPTransport(verify=CONTEXT),
    }
    async with Flipsnack(os.environ["KEY"], os.environ["SECRET"], **options) as flipsnack:
        async with Archive.open(path) as archive:
            harvest = archive.harvest(flipsnack, refs, at_once=at_once, **parameters)
            async with harvest as rows:
                async for row in rows:
                    os.write(handed_out, row.collection_hash.encode() + b" ")

def give_birth(backend, *life):
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        anyio.run(live, *life, backend=backend)
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1]:
            raise
        sys.exit(130)
    sys.exit()

child = None
print("ready", flush=True)
while True:
    if select.select([0], [], [], 0.001 if child else None)[0]:
        orders = os.read(0, 1_000_000).splitlines()
        if not orders:
            break
        for order in map(json.loads, orders):
            if isinstance(order, list):
                child = give_birth(*order)
            elif child:  # else it came too late
                os.kill(child, order)
    if child:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            child = None
            print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture
def anyio_backend() -> str:
    """Real time, since there are sockets; those who are killed have either backend in turn."""
    return "asyncio"


@attrs.define
class Served:
    """A sandbox on loopback, and a process that gives birth to those who harvest it."""

    box: Sandbox
    url: str
    folder: Path
    complaints: IO[bytes]
    nurse: subprocess.Popen[bytes] | None = None
    lives: int = 0

    def client(self) -> Flipsnack:
        return Flipsnack(self.box.api_key, self.box.api_secret, rates=(), api_url=self.url)

    def give_birth(
        self,
        path: Path,
        *,
        refs: Sequence[str] | None = None,
        rates: str = "",
        parameters: Mapping[str, Any],
    ) -> None:
        """Harvest in another process."""
        if self.nurse is None:
            secrets = {"URL": self.url, "KEY": self.box.api_key, "SECRET": self.box.api_secret}
            self.nurse = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-c", NURSE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.complaints,
                bufsize=0,
                env={**os.environ, **secrets},
            )
            assert "ready" == self._answer()
        self.lives += 1
        backend = ("asyncio", "trio")[self.lives % 2]
        handed_out = str(self.folder / "handed-out")
        self._order([backend, str(path), refs, rates, AT_ONCE, parameters, handed_out])

    def is_over(self, within: float) -> bool:
        """Say whether the harvest has ended."""
        assert self.nurse is not None
        assert self.nurse.stdout is not None
        return bool(select.select([self.nurse.stdout], [], [], within)[0])

    def wait_for_calls(self, number: int, since: int) -> None:
        """Wait until the harvest has made so many calls, or has ended."""
        while len(self.box.ledger) < since + number and not self.is_over(0.001):
            pass

    def end(self, *signals: int) -> int:
        """Send signals, and say how the harvest ended."""
        for number in signals:
            self._order(number)
            self.is_over(0.01)
        # Where a second interrupt strikes in the loop itself, asyncio may wait for a lost task.
        if signals[1:] and not self.is_over(4):
            self._order(signal.SIGKILL)
        assert self.is_over(20 if signals else 600)
        end = int(self._answer())
        if end not in {0, 130, -signal.SIGINT, -signal.SIGKILL}:
            self.complaints.seek(0)
            raise AssertionError(f"{end}: {self.complaints.read().decode()}")
        return end

    def _order(self, order: object) -> None:
        assert self.nurse is not None
        assert self.nurse.stdin is not None
        self.nurse.stdin.write(json.dumps(order).encode() + b"\n")

    def _answer(self) -> str:
        assert self.nurse is not None
        assert self.nurse.stdout is not None
        return self.nurse.stdout.readline().decode().strip()

    def close(self) -> None:
        if self.nurse is not None:
            self.nurse.communicate(timeout=10)

    @property
    def handed_out(self) -> set[str]:
        """The collections whose rows somebody got, in whichever life."""
        path = self.folder / "handed-out"
        return set(path.read_text("utf-8").split()) if path.exists() else set()

    def calls(self, action: str, since: int = 0) -> list[str]:
        """List the collections that calls were about."""
        return [
            call.params.get("collectionHash", "")
            for call in self.box.ledger[since:]
            if call.action == action
        ]


Serve = Callable[..., Served]


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    """Serve a sandbox in a loop and thread of its own."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("asyncio"))
        complaints = stack.enter_context(tempfile.TemporaryFile())

        def serve(**options: Any) -> Served:
            box = Sandbox(page_size=PAGE, **{"collections": BOOKS, "rates": (), **options})
            url = stack.enter_context(portal.wrap_async_context_manager(box.serve()))
            served = Served(box, url, path.parent, complaints)
            stack.callback(served.close)
            return served

        yield serve


async def rows_in(path: Path) -> list[HarvestRow]:
    async with Archive.open(path) as archive:
        return [row async for row in archive.rows()]


def told(rows: Sequence[HarvestRow]) -> list[tuple[str, Any, str]]:
    """Make rows comparable: an error is no other one's equal."""
    return [(row.collection_hash, row.stats, str(row.error or "")) for row in rows]


async def undisturbed(served: Served, refs: Sequence[str] | None) -> list[tuple[str, Any, str]]:
    path = served.folder / "undisturbed.db"
    async with served.client() as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack, refs, **RANGE) as rows:
            async for _ in rows:
                pass
    found = await rows_in(path)
    served.box.ledger.clear()
    return told(found)


@attrs.define
class Chance:
    """Choose the moments at which signals are sent."""

    served: Served
    calls: int  # to be made in a life, about
    random: random.Random
    seconds: float = 0.2  # until the first call

    def wait(self, number: int) -> None:
        """Wait for some calls, or in the first few lives a while that ends before them."""
        if number < 5 or self.random.random() < 0.2:
            self.served.is_over(self.seconds * (number / 5 if number < 5 else self.random.random()))
            return
        since, began = len(self.served.box.ledger), time.monotonic()
        self.served.wait_for_calls(1, since)
        self.seconds = time.monotonic() - began
        self.served.wait_for_calls(self.random.randrange(2 * self.calls), since)
        self.served.is_over(self.random.uniform(0, 0.005))


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "refs"])
async def test_g1_a_killed_harvest_goes_on(serve: Serve, path: Path, listed: bool) -> None:
    """
    However often kill -9 strikes, in the end the rows are those of a harvest that nobody disturbed.

    None comes twice, a row that was handed out is never asked for again, and a
    kill costs no more than the calls that were under way.
    """
    served = serve()
    refs = None if listed else [*served.box.hashes, NOBODY]
    expected = await undisturbed(served, refs)
    kills = KILLS // 2
    # As many calls as are left when the kills are spread evenly.
    chance = Chance(served, max(1, BOOKS // kills - 2), random.Random(listed))  # noqa: S311
    killed, lists, repeated, harvests, struck = 0, 0, 0, 0, Counter[str]()
    since, before = 0, 0
    while killed < kills or killed > before:
        known, first = served.handed_out, len(served.box.ledger)
        served.give_birth(path, refs=refs, parameters=RANGE)
        if killed < kills:
            chance.wait(killed - before)
        end = served.end(*[signal.SIGKILL] * (killed < kills))
        assert not known & set(served.calls("collection.getStats", first))
        if end:
            killed += 1
            struck[state(path)] += 1
            continue
        assert expected == told(await rows_in(path))
        calls = served.calls("collection.getStats", since)
        assert {name for name, _, _ in expected} == set(calls)
        assert len(calls) - len(expected) <= AT_ONCE * (killed - before)
        listings = len(served.calls("collection.getList", since))
        pages = (BOOKS - 2) // (PAGE - 1) + 1
        assert listings <= pages + 2 * (killed - before) if listed else not listings
        repeated += len(calls) - len(expected)
        lists += listings
        harvests += 1
        since, before = len(served.box.ledger), killed
        path = path.with_name(f"{harvests}.db")
        path.with_name("handed-out").unlink(missing_ok=True)
    print(
        f"{killed} kills over {len(expected)} flipbooks in {harvests} harvests: {repeated} calls"
        f" repeated, {lists} list calls; killed while {dict(struck)}"
    )
    assert {"asking", *["listing"] * listed} <= set(struck)
    assert struck["absent"] or struck["empty"]


async def test_g1_whoever_goes_on_after_a_kill_is_not_refused(serve: Serve, path: Path) -> None:
    """
    Each life starts with the calls of the life before it counted, so that no limit is broken.
    """
    served = serve(rates=[(RATE, 1.0)], count_refused=True, collections=max(60, BOOKS // 2))
    chance = Chance(served, RATE // 4, random.Random(3))  # noqa: S311
    killed = 0
    while True:
        served.give_birth(path, rates=f"{RATE}/1s", parameters={})
        if killed < KILLS // 10:
            chance.wait(9)
        if not served.end(*[signal.SIGKILL] * (killed < KILLS // 10)):
            break
        killed += 1
    busiest = max(
        sum(first.at <= call.at < first.at + 1 for call in served.box.ledger)
        for first in served.box.ledger
    )
    print(f"{killed} kills, {len(served.box.ledger)} calls, at most {busiest} in a second")

    assert {20} == {call.code for call in served.box.ledger}
    assert [*served.box.hashes] == [row.collection_hash for row in await rows_in(path)]
    assert busiest > RATE / 2


@pytest.mark.parametrize("times", [1, 2])
async def test_g2_an_interrupt_loses_nothing(serve: Serve, path: Path, times: int) -> None:
    """
    Ctrl-C, once or twice, ends a harvest soon, and it goes on as after a kill.
    """
    served = serve(collections=40)
    expected = await undisturbed(served, None)
    chance = Chance(served, 5, random.Random(times))  # noqa: S311
    interrupted, took = 0, []
    while True:
        known, first = served.handed_out, len(served.box.ledger)
        served.give_birth(path, parameters=RANGE)
        if interrupted < 4:
            served.is_over(0.03)  # Python itself must be ready for it
            chance.wait(9)
        began = time.monotonic()
        end = served.end(*[signal.SIGINT] * (times if interrupted < 4 else 0))
        assert not known & set(served.calls("collection.getStats", first))
        if not end:
            break
        took.append(time.monotonic() - began)
        interrupted += 1
    print(f"{interrupted} interrupts, which took up to {max(took):.2f} s")

    assert median(took) < 2
    assert expected == told(await rows_in(path))
    assert len(served.calls("collection.getStats")) - len(expected) <= AT_ONCE * interrupted


def state(path: Path) -> str:
    """Say what the harvest in a file was at when its process was killed."""
    if not path.exists():
        return "absent"
    journal = path.with_name(f"{path.name}-journal")
    with tempfile.TemporaryDirectory() as folder:
        # Whatever the kill left is for the next life to deal with.
        for left in (path, journal):
            if left.exists():
                shutil.copy(left, folder)
        with closing(sqlite3.connect(Path(folder, path.name))) as database:
            found = database.execute("SELECT state FROM runs").fetchone()
    return found[0] if found else "empty"
