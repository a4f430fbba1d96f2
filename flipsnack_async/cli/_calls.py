"""The commands that ask for statistics once: user-stats and stats."""

from __future__ import annotations

import click

from flipsnack_async import CollectionStats, Flipsnack, UserStats

from ._json_lines import write_line
from ._session import converse, patience
from ._settings import Settings, shared_options
from ._tables import of_stats, of_user, show


@click.command("user-stats")
@shared_options()
@click.pass_obj
def user_stats(settings: Settings) -> None:
    """
    Show the account's totals, and its uploads left.

    \b
    Example:
      flipsnack user-stats
    """

    async def ask(flipsnack: Flipsnack) -> UserStats:
        with patience():
            return await flipsnack.user.get_stats()

    stats = converse(settings, ask)
    if settings.as_table:
        show(of_user(stats))
    else:
        write_line(stats)


@click.command()
@click.argument("collection_hash", metavar="HASH")
@click.option("--start", metavar="DATE", help="The first day, as YYYY-MM-DD.")
@click.option("--end", metavar="DATE", help="The last day, as YYYY-MM-DD.")
@click.option("--pages", is_flag=True, help="Show each page's statistics too.")
@shared_options()
@click.pass_obj
def stats(
    settings: Settings, collection_hash: str, start: str | None, end: str | None, pages: bool
) -> None:
    """
    Show the statistics of one collection.

    \b
    Example:
      flipsnack stats fxh4k89 --start 2026-01-01 --end 2026-01-31 --pages
    """

    async def ask(flipsnack: Flipsnack) -> CollectionStats:
        with patience():
            return await flipsnack.collections.get_stats(
                collection_hash, start_date=start, end_date=end, pages=pages
            )

    found = converse(settings, ask)
    if settings.as_table:
        show(*of_stats(found))
    else:
        write_line(found)
