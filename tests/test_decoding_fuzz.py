"""Twenty thousand odd bodies and a few huge ones, of which none does harm."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from fuzz_decoding import KINDS, feed

from flipsnack_async import InvalidAnswerError, UserStats
from flipsnack_async._envelope import decode

BODIES = 20_000
MIB = 2**20


@pytest.mark.parametrize("kind", KINDS)
def test_no_body_breaks_the_decoder(kind: str) -> None:
    """
    Whatever bytes come, one of our errors is raised, or the answer was a success beyond doubt.
    """
    wanted = BODIES // len(KINDS)
    outcomes = feed(kind, wanted)

    assert wanted <= outcomes.total()
    assert {"success", "invalid"} <= outcomes.keys()


def filled(before: str, piece: str, after: str = "}}") -> Callable[[], bytes]:
    """Repeat a piece until the body is as long as bodies can be."""
    times = (8 * MIB - len(before) - len(after)) // len(piece)
    return lambda: (before + piece * times + after).encode()


def names() -> bytes:
    return b'{"code": 20, "data": {%s}}' % b",".join(b'"%07d":1' % n for n in range(750_000))


@pytest.mark.parametrize(
    ("body", "becomes"),
    [
        pytest.param(filled("", "["), "nested too deeply", id="brackets"),
        pytest.param(filled('{"code": 20, "data": {"x": "', "x", '"}}'), "read", id="text"),
        pytest.param(
            filled('{"code": 20, "data": {"x": "', r"\ud83d", '",}}'), "read", id="halves"
        ),
        pytest.param(filled('{"code": 20, "data": {"views": ', "9"), "64 bits", id="digits"),
        pytest.param(filled('{"code": 20, "data": {"views": 0.', "1"), "whole", id="decimals"),
        pytest.param(filled('{"code": 20, "status": "', "ab"), "torn", id="torn"),
        pytest.param(names, "read", id="names"),
    ],
)
def test_a_huge_body_takes_bounded_memory(body: Callable[[], bytes], becomes: str) -> None:
    """
    The worst of 8 MiB takes not much more than any object of that many parts.
    """
    huge = body()
    tracemalloc.start()
    try:
        decode(huge, "any", UserStats, {})
        found = "read"
    except InvalidAnswerError as error:
        found = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert becomes in found
    assert peak < 32 * len(huge)
