"""Sandboxes, in process and on a port. Imported only where one is asked for: it is an extra."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import anyio
import click

from flipsnack_async import Flipsnack, Quota, Rate
from flipsnack_async.sandbox import Sandbox

from ._failures import say

VENDORS_RATES = Rate.parse("5/1s,60/60s")

# Seconds each way, so that a first look feels like the real thing.
LATENCY = 0.05

# The same in each process: an archive is about one key.
CREDENTIALS = ("sandbox-key", "sandbox-secret")

# Seconds, so that whoever awaits a conversion sees it, and no more.
CONVERSION = 4.0


def client_of_sandbox(rates: Sequence[Rate] | None) -> Flipsnack:
    """Make a client of a sandbox in this process, both of which keep the same rates."""
    rates = rates or VENDORS_RATES
    sandbox = Sandbox(
        rates=rates,
        latency=LATENCY,
        convert_seconds=CONVERSION,
        export_seconds=CONVERSION,
        credentials=CREDENTIALS,
    )
    return Flipsnack(
        sandbox.api_key,
        sandbox.api_secret,
        quota=Quota(*rates),
        transport=sandbox.transport(),
    )


async def serve_sandbox(
    port: int, collections: int, rates: Sequence[Rate] | None, *, quiet: bool
) -> None:
    """Serve a sandbox until cancelled, and say first how to reach it."""
    sandbox = Sandbox(collections=collections, rates=rates or VENDORS_RATES)
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(sandbox.serve(port))
        except OSError as error:
            problem = os.strerror(error.errno) if error.errno else str(error)
            raise click.ClickException(f"port {port}: {problem}") from None
        for name, value in _environment(sandbox, url, rates).items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        if not quiet:
            say(f"serving {collections} made-up collections until Ctrl-C")
        await anyio.sleep_forever()


def _environment(sandbox: Sandbox, url: str, rates: Sequence[Rate] | None) -> Mapping[str, str]:
    settings = {
        "FLIPSNACK_API_URL": url,
        "FLIPSNACK_UPLOAD_URL": url,
        "FLIPSNACK_API_KEY": sandbox.api_key,
        "FLIPSNACK_API_SECRET": sandbox.api_secret,
    }
    return {**settings, "FLIPSNACK_RATES": ",".join(map(str, rates))} if rates else settings
