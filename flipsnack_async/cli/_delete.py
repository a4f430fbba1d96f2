"""The command that deletes collections."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click

from flipsnack_async import (
    AuthenticationError,
    CollectionUnavailableError,
    Flipsnack,
    FlipsnackError,
    InvalidAnswerError,
)

from ._failures import FAILED, PARTLY, say
from ._json_lines import write_line
from ._readable import counted, printable
from ._session import PATIENCE, converse, patience
from ._settings import Settings, shared_options


@click.command()
@click.argument("hashes", metavar="HASH [HASH ...]", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Delete without asking first.")
@shared_options()
@click.pass_obj
def delete(settings: Settings, hashes: tuple[str, ...], yes: bool) -> int:
    """
    Delete collections, for good.

    Asks first, and where there is no terminal to ask on it needs --yes.

    \b
    Examples:
      flipsnack delete fxh4k89
      flipsnack delete fxh4k89 fzz81kd --yes
    """
    # An unset variable of a script's must not be found out half-way.
    if not all(one.strip() for one in hashes):
        raise click.UsageError("a hash is empty")
    hashes = tuple(dict.fromkeys(hashes))
    if not yes and not _is_wanted(settings, hashes):
        say("nothing was deleted")
        return FAILED

    async def work(flipsnack: Flipsnack) -> int:
        return await _delete_each(flipsnack, settings, hashes)

    failed = converse(settings, work)
    if not failed:
        return 0
    return PARTLY if failed < len(hashes) else FAILED


def _is_wanted(settings: Settings, hashes: Sequence[str]) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("there is no terminal to ask on; --yes deletes without asking")

    async def ask(flipsnack: Flipsnack) -> list[str]:
        return [await _title(flipsnack, one) for one in hashes]

    for one, title in zip(hashes, converse(settings, ask), strict=True):
        say(f"{one}  {title}")
    # Outside of the event loop, which would swallow the first Ctrl-C.
    question = f"delete {counted(len(hashes), 'collection')}? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _title(flipsnack: Flipsnack, collection_hash: str) -> str:
    try:
        with patience():
            return (await flipsnack.collections.get(collection_hash)).title or "-"
    except (CollectionUnavailableError, InvalidAnswerError):
        return "-"  # the deletion itself will tell


async def _delete_each(flipsnack: Flipsnack, settings: Settings, hashes: Iterable[str]) -> int:
    """Delete one after the other, and return how many could not be."""
    view = flipsnack.with_options(max_wait=PATIENCE)
    failed = 0
    for one in hashes:
        try:
            await view.collections.delete(one)
        except AuthenticationError:
            raise
        except FlipsnackError as error:
            failed += 1
            _put_out(settings, one, error)
        else:
            _put_out(settings, one, None)
    return failed


def _put_out(settings: Settings, collection_hash: str, error: FlipsnackError | None) -> None:
    if error is not None:
        say(f"error: {collection_hash}: {error}")
    if not settings.as_table:
        told = {} if error is None else {"error": error}
        write_line({"collection_hash": collection_hash, "deleted": error is None, **told})
    elif error is None:
        print(printable(f"deleted {collection_hash}"))
