"""What only asyncio can do to us: cancel a task natively, past every scope of anyio."""

from __future__ import annotations

import asyncio

import pytest

from flipsnack_async import Flipsnack
from flipsnack_async.sandbox import Sandbox


@pytest.mark.asyncio
async def test_a_native_cancellation_comes_through() -> None:
    """
    Whoever cancels the task sees the cancellation, also while rows wait to be taken.
    """
    box = Sandbox(rates=())
    transport = box.transport()
    async with Flipsnack(box.api_key, box.api_secret, transport=transport, rates=()) as flipsnack:

        async def take_one() -> None:
            async with flipsnack.harvest(list(box.hashes)) as rows:
                await anext(rows)
                taken.set()
                await asyncio.sleep(60)

        for _ in range(10):
            taken = asyncio.Event()
            task = asyncio.create_task(take_one())
            await taken.wait()
            await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
