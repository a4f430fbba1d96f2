"""The public face as a type checker sees it; what is wrong here fails the type check."""

from __future__ import annotations

from datetime import date
from typing import Any, assert_type

import pytest

from flipsnack_async import (
    Collection,
    CollectionStats,
    Flipsnack,
    FlipsnackError,
    HarvestProgress,
    HarvestRow,
    Package,
    PageStats,
    Quota,
    Rate,
    UserStats,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def test_every_call_says_what_it_returns() -> None:
    """
    The types that the docstrings promise are those that come.
    """
    box = Sandbox(collections=3, export_seconds=0, rates=())
    quota = Quota(Rate(5, per=1.0), Rate(60, per=60.0), reach=None)
    async with Flipsnack(
        box.api_key, box.api_secret, transport=box.transport(), quota=quota
    ) as flipsnack:
        assert_type(flipsnack, Flipsnack)
        assert_type(flipsnack.with_options(timeout=5), Flipsnack)
        assert_type(await flipsnack.user.get_stats(), UserStats)
        assert_type(await flipsnack.call("user.getStats", {"x": 1, "y": True}), dict[str, Any])
        collection = await anext(flipsnack.collections.list())
        assert_type(collection, Collection)
        stats = await flipsnack.collections.get_stats(
            collection, start_date=date(2026, 1, 1), pages=True
        )
        assert_type(stats, CollectionStats)
        assert_type(stats.views, int | None)
        assert_type(stats.pages, tuple[PageStats, ...] | None)
        assert_type(await flipsnack.collections.download_html(stats), Package)
        assert_type(await flipsnack.collections.export(collection), Package)
        async with flipsnack.harvest([collection, stats, "fxh4k89"]) as rows:
            async for row in rows:
                assert_type(row, HarvestRow)
                assert_type(row.error, FlipsnackError | None)
            assert_type(rows.progress, HarvestProgress)
        async with quota.permit() as permit:
            permit.answered()
        assert_type(quota.estimate(3), float)

    assert {20, 43} == {call.code for call in box.ledger}
