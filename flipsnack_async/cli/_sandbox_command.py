"""The command that serves a sandbox."""

from __future__ import annotations

from functools import partial

import anyio
import click

from ._extras import needing
from ._settings import Settings, server_options


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="P",
    default=8712,
    show_default=True,
    help="Where to listen on 127.0.0.1; 0 picks a free port.",
)
@click.option(
    "--collections",
    type=click.IntRange(min=0),
    metavar="N",
    default=40,
    show_default=True,
    help="How many collections to make up.",
)
@server_options()
@click.pass_obj
def sandbox(settings: Settings, port: int, collections: int) -> None:
    """
    Serve a local Flipsnack until Ctrl-C.

    Prints what to set in the shell of whoever shall use it.

    \b
    Example:
      flipsnack sandbox            in one terminal; paste its lines into another
      flipsnack harvest --all      in that one
    """
    with needing("sandbox"):
        from ._sandboxes import serve_sandbox

    serve = partial(serve_sandbox, port, collections, settings.rates, quiet=settings.quiet)
    anyio.run(serve)
