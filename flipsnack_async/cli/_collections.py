"""The commands for the account's collections: list, get, update and embed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import click

from flipsnack_async import Collection, Embed, Flipsnack

from ._details import Details, details_options, height_option, width_option
from ._failures import say
from ._json_lines import write_line
from ._params import params_option
from ._readable import printable
from ._session import converse, patience
from ._settings import Settings, shared_options
from ._tables import of_collection, of_collections, show


@click.command("list")
@click.option("--status", metavar="S", help="Only these: public, editable or unlisted.")
@click.option("--query", metavar="Q", help="Only what has this text in title or description.")
@click.option("--order-by", metavar="FIELD", help="What to sort by; name is known to work.")
@click.option("--order", metavar="O", help="Which way to sort; asc is known to work.")
@params_option
@shared_options()
@click.pass_obj
def list_collections(
    settings: Settings,
    status: str | None,
    query: str | None,
    order_by: str | None,
    order: str | None,
    params: Mapping[str, str],
) -> None:
    """
    List the account's collections.

    \b
    Example:
      flipsnack list --status public --query catalogue
    """
    kept: list[Collection] = []

    async def ask(flipsnack: Flipsnack) -> None:
        found = flipsnack.collections.list(
            status=status, query=query, order_by=order_by, order=order, params=params
        )
        with patience() as start_anew:
            async for collection in found:
                if settings.as_table:
                    kept.append(collection)
                else:
                    write_line(collection)
                # Only now: whoever reads the lines may have taken his time.
                start_anew()

    converse(settings, ask)
    if kept:
        show(of_collections(kept))


@click.command()
@click.argument("collection_hash", metavar="HASH")
@shared_options()
@click.pass_obj
def get(settings: Settings, collection_hash: str) -> None:
    """
    Show one collection, and how far its conversion is.

    \b
    Example:
      flipsnack get fxh4k89
    """

    async def ask(flipsnack: Flipsnack) -> Collection:
        with patience():
            return await flipsnack.collections.get(collection_hash)

    put_out(settings, converse(settings, ask))


@click.command()
@click.argument("collection_hash", metavar="HASH")
@details_options
@shared_options()
@click.pass_obj
def update(settings: Settings, collection_hash: str, **details: Unpack[Details]) -> None:
    """
    Change what is given of a collection, and show it.

    A status of public or unlisted publishes an editable collection, which
    gives it a new hash.

    \b
    Example:
      flipsnack update fxh4k89 --title "Spring catalogue" --status public
    """
    if all(value in (None, {}) for value in details.values()):
        raise click.UsageError("give at least one option that says what to change")

    async def change(flipsnack: Flipsnack) -> Collection:
        with patience():
            return await flipsnack.collections.update(collection_hash, **details)

    collection = converse(settings, change)
    put_out(settings, collection)
    if collection.collection_hash != collection_hash:
        say(f"note: its hash is {collection.collection_hash} now, no longer {collection_hash}")


@click.command()
@click.argument("collection_hash", metavar="HASH")
@width_option
@height_option
@click.option("--responsive", is_flag=True, help="Let it fill what it stands in.")
@click.option(
    "--start-page", type=click.IntRange(min=1), metavar="N", help="The page to open at, from 1."
)
@shared_options()
@click.pass_obj
def embed(
    settings: Settings,
    collection_hash: str,
    width: int | None,
    height: int | None,
    responsive: bool,
    start_page: int | None,
) -> None:
    """
    Print the HTML that shows a collection in a page.

    \b
    Examples:
      flipsnack embed fxh4k89 --width 800 --height 500
      flipsnack embed fxh4k89 --responsive --start-page 3
    """

    async def ask(flipsnack: Flipsnack) -> Embed:
        with patience():
            return await flipsnack.collections.get_embed(
                collection_hash,
                width=width,
                height=height,
                responsive=responsive or None,
                start_page=start_page,
            )

    found = converse(settings, ask)
    if settings.as_table:
        for line in found.embed_code.splitlines():
            print(printable(line))
    else:
        write_line(found)


def put_out(settings: Settings, collection: Collection) -> None:
    """Show one collection to whoever will read it."""
    if settings.as_table:
        show(of_collection(collection))
    else:
        write_line(collection)
