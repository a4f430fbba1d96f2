"""The command that asks for the statistics of many collections, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO, get_args

import click

from flipsnack_async import Flipsnack, SeriesPlan
from flipsnack_async.archive import Archive, Step

from ._choice import choice_options, chosen
from ._failures import say
from ._kept_runs import archive_to_write, bring_in, shows
from ._looks import look_of_series
from ._readable import counted, duration
from ._session import converse
from ._settings import Settings, shared_options


@click.command()
@choice_options
@click.option("--start", metavar="DATE", required=True, help="The first day, as YYYY-MM-DD.")
@click.option("--end", metavar="DATE", required=True, help="The last day, as YYYY-MM-DD.")
@click.option(
    "--step",
    type=click.Choice(get_args(Step)),
    default="day",
    show_default=True,
    help="Weeks begin on Mondays; the first and the last week or month may be cut off.",
)
@click.option(
    "--out",
    metavar="FILE",
    required=True,
    type=archive_to_write,
    help="The archive to keep it in, which is made if need be.",
)
@click.option("--exact", is_flag=True, help="Ask for each step, and infer none.")
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    metavar="N",
    default=8,
    show_default=True,
    help="How many collections may be under way.",
)
@shared_options()
@click.pass_obj
def series(
    settings: Settings,
    hashes: tuple[str, ...],
    everything: bool,
    file: TextIO | None,
    start: str,
    end: str,
    step: Step,
    out: Path,
    exact: bool,
    at_once: int,
) -> int:
    """
    Ask for the statistics of each day, week or month.

    With as few calls as the answers allow: what a total of zero covers is
    zero, and where a collection's counters add up the last step is what the
    others leave. Such rows are marked: is_inferred. The plan comes first:
    between which bounds calls and time will be. A series that was interrupted
    goes on if it is started again, and what the archive knows is not asked.

    \b
    Examples:
      flipsnack series --all --start 2026-01-01 --end 2026-12-31 --out stats.db
      flipsnack series fxh4k89 --start 2026-01-01 --end 2026-06-30 --step week --out stats.db
      flipsnack rows stats.db --series --csv days.csv
    """
    refs = chosen(hashes, everything=everything, file=file)

    async def work(flipsnack: Flipsnack) -> int:
        archive = Archive.open(out)
        rows = archive.series(flipsnack, refs, start, end, step=step, exact=exact, at_once=at_once)

        async def announce() -> None:
            plan = await rows.plan()
            if not settings.quiet:
                say(_in_words(plan, step))

        return await bring_in(
            settings,
            archive,
            rows,
            lambda: look_of_series(rows.progress),
            shown_by=shows("rows --series", out),
            announce=announce,
        )

    return converse(settings, work)


def _in_words(plan: SeriesPlan, step: Step) -> str:
    each = plan.steps // max(1, plan.collections)
    calls = _between(f"{plan.least_calls:,}", f"{plan.most_calls:,}")
    time = _between(duration(plan.least_seconds), duration(plan.most_seconds))
    return (
        f"{counted(plan.collections, 'collection')}, {counted(each, step)} each: "
        f"{counted(plan.steps, 'step')}, {plan.steps_known:,} known; {calls} calls, {time}"
    )


def _between(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"
