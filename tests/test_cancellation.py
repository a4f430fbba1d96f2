"""Calls that are cancelled on real connections, by whom and whenever: nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from anyio.from_thread import start_blocking_portal

from flipsnack_async import Flipsnack, FlipsnackError, Quota, Rate, UserStats
from flipsnack_async._isolation import IsolatedTransport

BODY = b'{"code": 20, "status": "OK", "data": {"views": 7}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time, since there are sockets."""
    name: str = request.param
    return name


@pytest.fixture
def url() -> Iterator[str]:
    """Serve on loopback, in a loop and thread of its own; each answer takes up to 5 ms, twice."""
    chance = random.Random(1)  # noqa: S311 - no secret

    async def answer(stream: SocketStream) -> None:
        async with stream:
            try:
                while True:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        head += await stream.receive()
                    await anyio.sleep(chance.uniform(0, 0.005))
                    await stream.send(ANSWER)
                    await anyio.sleep(chance.choice([0, chance.uniform(0, 0.005)]))
                    await stream.send(BODY)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    async def serve(*, task_status: TaskStatus[int]) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
            task_status.started(port)
            await listener.serve(answer)

    with start_blocking_portal("asyncio") as portal:
        serving, port = portal.start_task(serve)
        yield f"http://127.0.0.1:{port}/v1/"
        serving.cancel()


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Accept connections, and never answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def fast() -> Quota:
    return Quota(Rate(10_000, per=0.1), linger=0.1)


class Aftermath:
    """Look into a client after the storm."""

    def __init__(self, flipsnack: Flipsnack) -> None:
        self.flipsnack = flipsnack
        isolated = flipsnack._core._signing._transport
        assert isinstance(isolated, IsolatedTransport)
        self.isolated = isolated
        connections: Any = isolated._transport
        self.pool = connections._pool

    async def see_that_all_is_well(self) -> None:
        with anyio.fail_after(1):
            assert 7 == (await self.flipsnack.user.get_stats()).views
            while self.isolated._tasks:  # noqa: ASYNC110 - asyncio's own callbacks empty it
                await anyio.sleep(0.01)
        assert [] == self.pool._requests
        assert [] == self.pool.connections
        await anyio.sleep(0.3)
        assert [10_000] == list(self.flipsnack.quota.statistics().free.values())


async def settled(expected: int) -> int:
    """Wait until the server has hung up, too, and count the descriptors."""
    for _ in range(50):
        if descriptors() <= expected:
            break
        await anyio.sleep(0.02)
    return descriptors()


@pytest.mark.asyncio
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_native_cancellations_leave_nothing_behind(url: str, times: int) -> None:
    """
    Hundreds of calls cancelled by asyncio at random, once or again and again: the client is whole.
    """
    chance = random.Random(times)  # noqa: S311 - no secret
    before, cancelled = descriptors(), 0
    async with Flipsnack("key", "secret", api_url=url, quota=fast()) as flipsnack:
        for _ in range(20):
            tasks = [asyncio.create_task(flipsnack.user.get_stats()) for _ in range(15)]
            for _ in range(times):
                await asyncio.sleep(chance.choice([0, chance.uniform(0, 0.006)]))
                for task in chance.sample(tasks, 10):
                    task.cancel()
            async with asyncio.timeout(2):
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {asyncio.CancelledError, UserStats} >= {type(end) for end in ends}
            cancelled += sum(isinstance(end, asyncio.CancelledError) for end in ends)

        await Aftermath(flipsnack).see_that_all_is_well()
        assert {asyncio.current_task()} == asyncio.all_tasks()
    assert cancelled >= 100
    assert await settled(before) <= before + 3


@pytest.mark.anyio
async def test_scopes_that_are_cancelled_leave_nothing_behind(url: str) -> None:
    """
    Hundreds of calls cancelled by their scopes at random: the client is whole.
    """
    chance = random.Random(4)  # noqa: S311 - no secret
    before, done = descriptors(), 0
    async with Flipsnack("key", "secret", api_url=url, quota=fast()) as flipsnack:

        async def call(scope: anyio.CancelScope) -> None:
            nonlocal done
            with scope:
                assert 7 == (await flipsnack.user.get_stats()).views
                done += 1

        for _ in range(20):
            scopes = [anyio.CancelScope() for _ in range(15)]
            with anyio.fail_after(2):
                async with anyio.create_task_group() as tasks:
                    for scope in scopes:
                        tasks.start_soon(call, scope)
                    await anyio.sleep(chance.choice([0, chance.uniform(0, 0.006)]))
                    for scope in chance.sample(scopes, 10):
                        scope.cancel()

        await Aftermath(flipsnack).see_that_all_is_well()
    assert 100 <= done <= 250
    assert await settled(before) <= before + 3


@pytest.mark.anyio
async def test_timeouts_leave_nothing_behind(url: str) -> None:
    """
    Hundreds of attempts that ran out of time, some of them in the body: the client is whole.
    """
    before = descriptors()
    ends: list[type] = []
    async with Flipsnack("key", "secret", api_url=url, quota=fast(), attempts=1) as flipsnack:

        async def call(seconds: float) -> None:
            try:
                await flipsnack.with_options(timeout=seconds).user.get_stats()
            except FlipsnackError as error:
                ends.append(type(error))
            else:
                ends.append(UserStats)

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(call, 0.0005 * (1 + number % 20))
                if number % 20 == 0:
                    await anyio.sleep(0.01)

        await Aftermath(flipsnack).see_that_all_is_well()
    assert {"NoAnswerError", "ConnectionFailedError"} & {kind.__name__ for kind in ends}
    assert 200 == len(ends)
    assert await settled(before) <= before + 3


@pytest.mark.asyncio
async def test_a_loop_that_ends_in_the_middle_of_calls_is_quiet(url: str) -> None:
    """
    A task group that is torn down natively with calls in flight leaves no task and no slot.
    """
    before = descriptors()
    async with Flipsnack("key", "secret", api_url=url, quota=fast()) as flipsnack:
        for pause in (0, 0.001, 0.003, 0.005):
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    for _ in range(20):
                        group.create_task(flipsnack.user.get_stats())
                    await asyncio.sleep(pause)
                    raise OSError("somebody else's trouble")

        await Aftermath(flipsnack).see_that_all_is_well()
        assert {asyncio.current_task()} == asyncio.all_tasks()
    assert await settled(before) <= before + 3


async def ends_of_calls_under_way(
    url: str, number: int, close: Callable[[Flipsnack], Awaitable[None]]
) -> list[BaseException]:
    """Start so many calls, close the client, and return what each call raised."""
    ends: list[BaseException] = []
    flipsnack = Flipsnack("key", "secret", api_url=url, quota=fast())

    async def call() -> None:
        try:
            await flipsnack.user.get_stats()
        except Exception as error:
            ends.append(error)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(number):
                tasks.start_soon(call)
            await anyio.sleep(0.1)
            with anyio.fail_after(1):
                await close(flipsnack)
    return ends


@pytest.mark.anyio
async def test_closing_ends_the_calls_under_way(silent_url: str) -> None:
    """
    Calls that wait for an answer when their client is closed end soon, with errors of ours.
    """
    before = descriptors()
    began = time.monotonic()

    ends = await ends_of_calls_under_way(silent_url, 20, Flipsnack.aclose)

    assert 20 == len(ends)
    assert [] == [end for end in ends if not isinstance(end, FlipsnackError)]
    assert time.monotonic() - began < 3
    assert await settled(before) <= before + 3


@pytest.mark.asyncio
async def test_closing_leaves_no_task(silent_url: str) -> None:
    """
    When the client is closed, the tasks that carried its calls have ended.
    """
    flipsnack = Flipsnack("key", "secret", api_url=silent_url, quota=fast(), attempts=1)
    calls = [asyncio.create_task(flipsnack.user.get_stats()) for _ in range(5)]
    await asyncio.sleep(0.05)

    async with asyncio.timeout(1):
        await flipsnack.aclose()

    assert {asyncio.current_task(), *calls} >= asyncio.all_tasks()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [] == [end for end in ends if not isinstance(end, FlipsnackError)]


@pytest.mark.asyncio
async def test_closing_that_is_cancelled_can_be_done_again(silent_url: str) -> None:
    """
    A close that is cancelled in its middle leaves no task for ever.
    """
    flipsnack = Flipsnack("key", "secret", api_url=silent_url, quota=fast(), attempts=1)
    call = asyncio.create_task(flipsnack.user.get_stats())
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(flipsnack.aclose())
    await asyncio.sleep(0)
    closing.cancel()

    async with asyncio.timeout(1):
        await asyncio.gather(closing, call, return_exceptions=True)
        await flipsnack.aclose()

    assert {asyncio.current_task()} == asyncio.all_tasks()
