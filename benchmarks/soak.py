"""
See what is left of a client after minutes of faults: nothing should be.

    python benchmarks/soak.py [--seconds 600] [--backend asyncio] [--seed 0] [--keep]

A sandbox serves on loopback, in a process of its own and behind a way that
spoils half of all connections, each second in another manner drawn at random:
delayed, sliced, reset, cut in the request or in the answer, stalled, the answer
swallowed, sent twice in one segment, or replaced by a gateway's page. Through
one client go, all at once and over and over: a harvest, an export of packages,
uploads whose outcome is looked up where it stayed open, and calls as web
handlers make them, a third of which are cancelled at random, on asyncio also
natively. Each result is compared with what the same sandbox says undisturbed,
and each upload with the server's ledger.

When the time is up the way is mended, what was begun is brought to its end, and
after the quota's longest memory everything is counted. The floor is nothing: no
descriptor, task, permit or file more than before, no call refused, no result
that is not true, no error that is not the library's. Memory is this process's;
its slope is that of a line through the second half of the run, and includes
what this script itself remembers. Exits with 1 where anything but memory is
not 0, as it is with --keep, where the client keeps connections: then answers
that were sent twice come to the wrong callers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import attrs
import httpx
from _faulty import Ledger, Served, served
from anyio.lowlevel import checkpoint

from flipsnack_async import Flipsnack, FlipsnackError, Quota, Rate, UploadOutcomeUnknownError
from flipsnack_async.sandbox import Sandbox

RATES: Final = ((150, 1.0), (1000, 10.0))
LINGER: Final = 3.0
START: Final = date(2024, 1, 1)
END: Final = date(2024, 12, 31)
COLLECTIONS: Final = 30
PACKAGES: Final = 5
HANDLERS: Final = 24
DOCUMENT: Final = b"%PDF-1.7\n" + b" " * 100_000
OPTIONS: Final = {"collections": COLLECTIONS, "export_seconds": 0.5, "package_size": 100_000}


@attrs.frozen
class Truth:
    """What an undisturbed sandbox says: views and the digest of the package, by hash."""

    views: Mapping[str, int | None]
    packages: Mapping[str, str]


async def truth(seed: int, folder: Path) -> Truth:
    box = Sandbox(
        seed=seed, rates=(), collections=COLLECTIONS, package_size=100_000, export_seconds=0
    )
    async with Flipsnack(
        box.api_key, box.api_secret, rates=(), transport=box.transport()
    ) as flipsnack:
        async with flipsnack.harvest(box.hashes, start_date=START, end_date=END) as rows:
            views = {row.collection_hash: row.stats.views async for row in rows if row.stats}
        async with flipsnack.export_many(box.hashes[:PACKAGES], folder) as packages:
            digests = {
                row.collection_hash: row.package.sha256 async for row in packages if row.package
            }
    return Truth(views, digests)


class Soak:
    """What goes through one client, and what came of it."""

    def __init__(self, flipsnack: Flipsnack, truth: Truth, seed: int, *, natively: bool) -> None:
        self.flipsnack = flipsnack
        self.truth = truth
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.uploads: dict[str, bool | None] = {}  # by title: created, or unknown
        self.is_over = False
        self._natively = natively
        self._chance = random.Random(seed)

    async def again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        while not self.is_over:
            try:
                await work()
            except FlipsnackError as error:
                self.failed[type(error).__name__] += 1
            except Exception as error:
                self.wrong.append(f"{work.__name__}: {error!r}")
            await checkpoint()

    async def harvest(self) -> None:
        async with self.flipsnack.harvest(
            [*self.truth.views], start_date=START, end_date=END
        ) as rows:
            seen = {row.collection_hash: row async for row in rows}
        for name, row in seen.items():
            if row.stats is not None:
                self._check("rows", row.stats.views, self.truth.views[name])
            elif row.error is not None:
                self.failed[type(row.error).__name__] += 1
        self._check("whole harvests", {*seen}, {*self.truth.views})

    async def export(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with self.flipsnack.export_many(
                [*self.truth.packages], folder, every=0.5, within=20
            ) as rows:
                async for row in rows:
                    if row.package is not None:
                        expected = self.truth.packages[row.collection_hash]
                        self._check("packages", row.package.sha256, expected)
                    elif row.error is not None:
                        self.failed[type(row.error).__name__] += 1
            left = [name for name in os.listdir(folder) if not name.endswith(".zip")]
        self._check("folders of packages", left, [])

    async def upload(self) -> None:
        await self.flipsnack.user.get_stats()  # the evidence, should it be needed
        title = f"soak {len(self.uploads)}"
        self.uploads[title] = False
        try:
            await self.flipsnack.collections.create(DOCUMENT, title=title)
        except UploadOutcomeUnknownError as error:
            self.uploads[title] = None
            outcome = await self.flipsnack.collections.reconcile(error, settle=1.0)
            self.uploads[title] = outcome.created
        else:
            self.uploads[title] = True
        self.done["uploads"] += 1

    async def handle(self) -> None:
        """Make a call as a web handler does, whose visitor may go away."""
        view = self.flipsnack.with_options(max_wait=2.0)
        name = self._chance.choice([*self.truth.views])

        async def call() -> None:
            stats = await view.collections.get_stats(name, start_date=START, end_date=END)
            self._check("calls of handlers", stats.views, self.truth.views[name])

        fate = self._chance.choice(["stay", "stay", "leave"])
        patience = self._chance.uniform(0, 0.3)
        if fate == "stay":
            await call()
        elif self._natively and self._chance.random() < 0.5:
            task = asyncio.create_task(call())
            await asyncio.wait([task], timeout=patience)
            for _ in range(self._chance.randrange(1, 3)):
                task.cancel()
                await asyncio.sleep(0)
            with suppress(asyncio.CancelledError):
                await task
            self.done["cancelled calls"] += task.cancelled()
        else:
            with anyio.move_on_after(patience) as scope:
                await call()
            self.done["cancelled calls"] += scope.cancelled_caught

    def _check(self, what: str, found: object, expected: object) -> None:
        self.done[what] += 1
        if found != expected:
            self.wrong.append(f"{what}: {found!r} instead of {expected!r}")

    def check_uploads(self, ledger: Ledger) -> None:
        for title, created in self.uploads.items():
            times = ledger.uploads.get(title, 0)
            if times > 1 or created not in (None, times == 1):
                self.wrong.append(f"{title}: there {times} times, told {created}")


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def watch(memory: list[float]) -> None:
    while True:
        memory.append(megabytes())
        await anyio.sleep(1)


def missing_permits(quota: Quota) -> int:
    """Count the tokens that are out, and who waits for one."""
    told = quota.statistics()
    limits = sum(rate.limit for rate in quota.rates)
    return limits - sum(told.free.values()) + sum(told.waiting.values())


@attrs.frozen
class Left:
    """What is there more of than before."""

    descriptors: int
    tasks: int
    permits: int


async def soak(
    there: Served,
    expected: Truth,
    *,
    seconds: float,
    seed: int,
    natively: bool,
    keep: bool,
) -> tuple[Soak, Left, Ledger, list[float]]:
    quota = Quota(*(Rate(limit, per=per) for limit, per in RATES), linger=LINGER)
    memory: list[float] = []
    async with Flipsnack(
        there.api_key,
        there.api_secret,
        api_url=there.url,
        upload_url=there.url,
        quota=quota,
        timeout=2.0,
        transport=httpx.AsyncHTTPTransport() if keep else None,
    ) as flipsnack:
        await there.ledger()  # brings the thread that asks
        before = (descriptors(), len(anyio.get_running_tasks()))
        work = Soak(flipsnack, expected, seed, natively=natively)
        async with anyio.create_task_group() as watching:
            watching.start_soon(watch, memory)
            async with anyio.create_task_group() as working:
                for one in (work.harvest, work.export, work.upload, *[work.handle] * HANDLERS):
                    working.start_soon(work.again_and_again, one)
                await anyio.sleep(seconds)
                await there.calm()
                work.is_over = True
            watching.cancel_scope.cancel()
        longest = max(rate.per for rate in quota.rates)
        with anyio.move_on_after(2 * (LINGER + longest)):
            while missing_permits(quota):  # noqa: ASYNC110  nobody tells
                await anyio.sleep(0.25)
        ledger = await there.ledger()
        work.check_uploads(ledger)
        left = Left(
            descriptors() - before[0],
            len(anyio.get_running_tasks()) - before[1],
            missing_permits(quota),
        )
    return work, left, ledger, memory


def report(work: Soak, left: Left, ledger: Ledger, memory: list[float]) -> bool:
    """Print what was done and what is left, and say whether that is nothing."""
    told = Counter(work.uploads.values())
    print(f"calls at the server {ledger.calls}; {in_words(work.done)}")
    print(f"uploads: {told[True]} created, {told[False]} not, {told[None]} unknown")
    print(f"connections by their fault: {in_words(ledger.faults)}")
    print(f"errors that callers were told: {in_words(work.failed)}")
    for text in work.wrong[:10]:
        print(f"wrong: {text[:300]}")
    counts = {
        "descriptors": left.descriptors,
        "tasks": left.tasks,
        "permits leaked": left.permits,
        "calls refused": ledger.refused,
        "wrong results": len(work.wrong),
    }
    print(f"\n{'':<24} {'left':>10} {'floor':>8}")
    for what, count in counts.items():
        print(f"{what:<24} {count:>10} {0:>8}")
    later = memory[len(memory) // 2 :]
    slope = 60 * statistics.linear_regression(range(len(later)), later).slope
    print(f"{'memory, MB':<24} {memory[-1]:>10.1f} {memory[0]:>8.1f}")
    print(f"{'its slope, MB a minute':<24} {slope:>10.2f} {0:>8}")
    return not any(counts.values())


def in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--seconds", type=float, default=600)
    arguments.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--keep", action="store_true", help="keep connections, and see")
    given = arguments.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        expected = anyio.run(truth, given.seed, Path(folder))
    with served(RATES, given.seed, **OPTIONS) as there:
        found = anyio.run(
            partial(
                soak,
                there,
                expected,
                seconds=given.seconds,
                seed=given.seed,
                natively=given.backend == "asyncio",
                keep=given.keep,
            ),
            backend=given.backend,
        )
    print(
        f"Python {platform.python_version()}, httpx {httpx.__version__}, {given.backend}; "
        f"{given.seconds:g} s of faults, seed {given.seed}"
    )
    sys.exit(0 if report(*found) else 1)


if __name__ == "__main__":
    main()
