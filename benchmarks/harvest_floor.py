"""
Compare harvests with the least time that the vendor's limits allow.

    python benchmarks/harvest_floor.py [--sizes 60 300 2000] [--latency 0.2] [--window sliding]

Runs the real client against the in-process sandbox, which counts both rates at
arrival, in virtual time on trio's clock: seconds are exact on any machine. The
floor is arithmetic: the earliest that so many calls can have been sent under 5
a second and 60 a minute, for all calls made, listing included, were there no
latency at all. *latency* is of a call and its answer together.
"""

from __future__ import annotations

import argparse
import time

import anyio
import attrs
from trio.testing import MockClock

from flipsnack_async import Flipsnack
from flipsnack_async.sandbox import Sandbox


@attrs.frozen
class Result:
    """What one harvest came to."""

    collections: int
    rows: int
    calls: int
    refused: int
    seconds: float

    @property
    def floor(self) -> int:
        minutes, rest = divmod(self.calls - 1, 60)
        return 60 * minutes + rest // 5


async def harvest(collections: int, latency: float, window: str) -> Result:
    box = Sandbox(
        collections=collections,
        latency=latency / 2,
        window="fixed" if window == "fixed" else "sliding",
        count_refused=True,
    )
    async with Flipsnack(box.api_key, box.api_secret, transport=box.transport()) as flipsnack:
        began = anyio.current_time()
        async with flipsnack.harvest() as rows:
            good = [row async for row in rows if row.error is None]
        return Result(
            collections=collections,
            rows=len(good),
            calls=len(box.ledger),
            refused=sum(call.code in (31, 32) for call in box.ledger),
            seconds=anyio.current_time() - began,
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--sizes", type=int, nargs="+", default=[60, 300, 2000])
    arguments.add_argument("--latency", type=float, default=0.2)
    arguments.add_argument("--window", choices=["sliding", "fixed"], default="sliding")
    given = arguments.parse_args()

    print(
        f"virtual time, {given.latency:g} s of latency a call, {given.window} windows; "
        "refused calls fill the windows too"
    )
    print(f"{'collections':>11} {'rows':>6} {'calls':>6} {'refused':>8} ", end="")
    print(f"{'floor s':>9} {'took s':>9} {'ratio':>6} {'real s':>7}")
    for size in given.sizes:
        began = time.perf_counter()
        result = anyio.run(
            harvest,
            size,
            given.latency,
            given.window,
            backend="trio",
            backend_options={"clock": MockClock(autojump_threshold=0)},
        )
        print(
            f"{size:>11} {result.rows:>6} {result.calls:>6} {result.refused:>8} "
            f"{result.floor:>9} {result.seconds:>9.1f} {result.floor / result.seconds:>6.3f} "
            f"{time.perf_counter() - began:>7.1f}"
        )


if __name__ == "__main__":
    main()
