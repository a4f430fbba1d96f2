"""One key, one quota: clients of an event loop share it, and the next loop remembers."""

from __future__ import annotations

import gc
import time
from typing import Any

import anyio
import pytest
from anyio.lowlevel import current_token

from flipsnack_async import ClientClosedError, ConfigurationError, Flipsnack, Quota, Rate
from flipsnack_async._sharing import Registry
from flipsnack_async.sandbox import Sandbox

RATES = (Rate(2, per=10.0),)
TINY = (Rate(1, per=0.3),)


def client(box: Sandbox, **options: Any) -> Flipsnack:
    settings = {"rates": RATES, "transport": box.transport(), **options}
    return Flipsnack(box.api_key, box.api_secret, **settings)


# --- in one event loop


@pytest.mark.anyio
async def test_clients_of_one_key_share_a_quota() -> None:
    """
    What one client calls, the other waits for.
    """
    box = Sandbox()
    async with client(box) as one, client(box) as other:
        start = anyio.current_time()
        for flipsnack in (one, other, one):
            await flipsnack.user.get_stats()

        assert one.quota is other.quota
        assert 10 < anyio.current_time() - start < 10.1


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/v1/", "/other/"])
async def test_what_counts_is_key_and_host(path: str) -> None:
    """
    Another path of the host is the same account; the secret and the connection don't matter.
    """
    box = Sandbox()
    async with client(box) as one:
        url = f"https://api.flipsnack.com{path}"
        async with client(box, api_url=url) as other:
            assert one.quota is other.quota


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("another-key", {}),
        (None, {"api_url": "https://staging.flipsnack.com/v1/"}),
        (None, {"quota": Quota(*RATES)}),
    ],
    ids=["key", "host", "quota"],
)
async def test_other_accounts_and_own_quotas_are_apart(
    key: str | None, options: dict[str, Any]
) -> None:
    """
    Another key, another host or a quota of one's own: no call of one is held back by the other.
    """
    box = Sandbox()
    settings = {"rates": RATES, "transport": box.transport(), **options}
    async with client(box) as one:
        async with Flipsnack(key or box.api_key, box.api_secret, **settings) as other:
            await one.user.get_stats()

            assert one.quota is not other.quota
            assert [1] == list(one.quota.statistics().free.values())
            assert [2] == list(other.quota.statistics().free.values())


@pytest.mark.anyio
async def test_two_opinions_on_the_rates_are_refused() -> None:
    """
    While a key is in use at some rates, a client at others is refused by name; later it is not.
    """
    box = Sandbox()
    others = (Rate(3, per=10.0),)
    async with client(box) as one:
        await one.user.get_stats()
        async with client(box, rates=others) as other:
            with pytest.raises(ConfigurationError) as caught:
                await other.user.get_stats()
        assert "rates" == caught.value.setting
        assert "another client uses this key at other rates; give both the same" in str(
            caught.value
        )
        assert box.api_key not in str(caught.value)
        await one.user.get_stats()
        assert [0] == list(one.quota.statistics().free.values())

    async with client(box, rates=others) as later:
        await later.user.get_stats()
    assert 3 == len(box.ledger)


@pytest.mark.anyio
async def test_the_quota_lives_as_long_as_one_of_its_clients() -> None:
    """
    Closing one client, even twice, takes nothing from the other; a third joins the second.
    """
    box = Sandbox()
    one, other = client(box), client(box)
    await one.user.get_stats()
    quota = other.quota
    assert one.quota is quota

    await one.aclose()
    await one.aclose()

    async with client(box) as third:
        assert third.quota is quota
        await other.aclose()
        assert [1] == list(third.quota.statistics().free.values())


@pytest.mark.anyio
async def test_the_last_to_close_leaves_its_tokens_to_the_next() -> None:
    """
    Clients that follow each other in one loop wait for each other's tokens.
    """
    box = Sandbox()
    start = anyio.current_time()

    for _ in range(3):
        async with client(box) as flipsnack:
            await flipsnack.user.get_stats()

    # Remembered in monotonic time, which on this clock that jumps is a few real moments off.
    assert pytest.approx(10, abs=0.5) == anyio.current_time() - start


@pytest.mark.anyio
async def test_a_view_shares_and_keeps_nothing_alive() -> None:
    """
    A view has its client's quota, and is not counted as a client.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        quota = flipsnack.with_options(lane="bulk").quota
        assert flipsnack.quota is quota

    async with client(box) as later:
        assert later.quota is not quota


# --- from one event loop to the next, in real time

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
NEXT = pytest.mark.parametrize("following", ["asyncio", "trio"])


def free_then_call(box: Sandbox, backend: str, *, close: bool = True, **options: Any) -> int:
    """Run a loop in which a client looks at its quota, and then calls."""

    async def run() -> int:
        flipsnack = client(box, **{"rates": TINY, **options})
        free = list(flipsnack.quota.statistics().free.values())
        await flipsnack.user.get_stats()
        if close:
            await flipsnack.aclose()
        return free[0]

    return anyio.run(run, backend=backend)


@NEXT
@BACKENDS
def test_the_next_loop_starts_with_the_tokens_out(backend: str, following: str) -> None:
    """
    A call of the last `anyio.run` counts in the next one, on whatever backend, until it is due.
    """
    box = Sandbox()
    assert 1 == free_then_call(box, backend)
    ended = time.monotonic()

    assert 0 == free_then_call(box, following)

    assert 0.25 <= time.monotonic() - ended < 2


@NEXT
@BACKENDS
def test_what_is_due_is_forgotten(backend: str, following: str) -> None:
    """
    After *per* the next loop starts with all tokens there.
    """
    box = Sandbox()
    free_then_call(box, backend)
    time.sleep(0.31)

    assert 1 == free_then_call(box, following)


@BACKENDS
def test_the_next_loop_may_have_other_rates(backend: str) -> None:
    """
    Calls are remembered whatever the rates: one of one a minute is one of a thousand.
    """
    box = Sandbox()
    free_then_call(box, backend, rates=(Rate(1, per=60.0),))

    assert 999 == free_then_call(box, backend, rates=(Rate(1000, per=60.0),))
    assert 8 == free_then_call(box, backend, rates=(Rate(10, per=60.0),))


@BACKENDS
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_client_that_nobody_closed_is_remembered(backend: str, is_kept: bool) -> None:
    """
    The next loop starts with the tokens out of a client that was left open, at rates of its own.
    """
    box = Sandbox()
    kept: list[Flipsnack] = []

    async def run() -> None:
        flipsnack = client(box)
        await flipsnack.user.get_stats()
        kept.extend([flipsnack] * is_kept)

    anyio.run(run, backend=backend)
    gc.collect()  # here, where the warning is expected

    assert 4 == free_then_call(box, backend, rates=(Rate(5, per=60.0),))
    kept.clear()
    gc.collect()


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_client_that_was_collected_has_left() -> None:
    """
    In its own loop, too, a client that is gone forbids no other rates, and its calls still count.
    """
    box = Sandbox()
    await client(box).user.get_stats()
    gc.collect()

    async with client(box, rates=(Rate(1, per=60.0),)) as other:
        assert [0] == list(other.quota.statistics().free.values())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_who_looks_at_the_quota_has_joined_it() -> None:
    """
    A client whose quota was looked at in one loop can't be used in another, whose clock differs.
    """
    flipsnack = client(Sandbox())

    async def look(at: Flipsnack) -> float:
        return at.quota.estimate(1)

    assert 0 == anyio.run(look, flipsnack)
    with pytest.raises(ClientClosedError, match="another event loop"):
        anyio.run(flipsnack.user.get_stats, backend="trio")
    del flipsnack
    gc.collect()  # here, where the warning is expected


@BACKENDS
def test_a_client_that_never_called_leaves_nothing(backend: str) -> None:
    """
    A client that was only made and closed holds nobody back.
    """
    box = Sandbox()

    async def run() -> None:
        async with client(box, rates=TINY):
            pass

    anyio.run(run, backend=backend)

    assert 1 == free_then_call(box, backend)


def test_whoever_leaves_in_another_loop_takes_nothing_along() -> None:
    """
    What an account did in one event loop stays there when it is closed in another one.
    """
    registry = Registry()

    async def join() -> Quota:
        return registry.join("account", RATES)

    async def leave() -> None:
        registry.leave("account", current_token())

    async def twice() -> None:
        first = await join()
        await leave()
        await leave()
        assert first is not await join()

    anyio.run(join)
    anyio.run(leave)
    anyio.run(twice)


def test_h9_a_child_is_not_held_up_by_what_its_parent_was_at() -> None:
    """
    A lock that another thread of the parent held at the fork is free in the child.
    """
    registry = Registry()
    registry._lock.acquire()
    registry.free()

    assert registry._lock.acquire(blocking=False)
