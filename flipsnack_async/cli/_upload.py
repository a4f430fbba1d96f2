"""The command that uploads a document, and awaits its conversion."""

from __future__ import annotations

from typing import Unpack

import anyio
import click

from flipsnack_async import (
    AuthenticationError,
    Collection,
    ConversionFailedError,
    Flipsnack,
    FlipsnackError,
    UploadOutcomeUnknownError,
)

from ._collections import put_out
from ._details import Details, details_options
from ._failures import PARTLY, say, tell
from ._looks import ConversionWatch, UploadMeter
from ._outcome import find_out
from ._polling import polling_options
from ._progress_bar import progress_bar
from ._sending import check_document, told_if_interrupted
from ._session import converse, patience
from ._settings import Settings, shared_options


@click.command()
@click.argument("source", metavar="FILE_OR_URL")
@details_options
@click.option("--wait", is_flag=True, help="Await the end of its conversion.")
@polling_options(only_with="--wait")
@shared_options()
@click.pass_obj
def upload(
    settings: Settings,
    source: str,
    wait: bool,
    every: float,
    within: float,
    **details: Unpack[Details],
) -> int:
    """
    Upload a document, and show the collection that it becomes.

    From an https address Flipsnack fetches it. An upload that got no answer
    is never sent again; whether it was carried out can be found out best by a
    --title that no other collection has.

    \b
    Examples:
      flipsnack upload spring.pdf --title "Spring catalogue" --wait
      flipsnack upload https://example.com/spring.pdf --status unlisted
      flipsnack --sandbox upload spring.pdf --wait
    """
    check_document(source)

    async def work(flipsnack: Flipsnack) -> tuple[Collection, int]:
        await _count_uploads(flipsnack)
        created = await _create(flipsnack, settings, source, details)
        if not wait:
            return created, 0
        return await _convert(flipsnack, settings, created, every=every, within=within)

    collection, code = converse(settings, work)
    put_out(settings, collection)
    return code


async def _count_uploads(flipsnack: Flipsnack) -> None:
    """Ask how many uploads are left, by which an unknown outcome can be told afterwards."""
    try:
        with patience():
            left = (await flipsnack.user.get_stats()).api_uploads_left
    except AuthenticationError:
        raise
    except (FlipsnackError, click.ClickException):
        return
    if left is not None and left < 1:
        raise click.ClickException("no upload is left this month; nothing was sent")


async def _create(
    flipsnack: Flipsnack, settings: Settings, source: str, details: Details
) -> Collection:
    meter = UploadMeter(source)
    with told_if_interrupted(meter):
        try:
            async with progress_bar(settings, meter.look):
                return await flipsnack.collections.create(
                    source, on_progress=meter.moved, **details
                )
        except UploadOutcomeUnknownError as error:
            return await find_out(flipsnack, settings, error)


async def _convert(
    flipsnack: Flipsnack, settings: Settings, created: Collection, *, every: float, within: float
) -> tuple[Collection, int]:
    """Await the end of the conversion, or return what is known when the wait is over."""
    watch = ConversionWatch(created)
    try:
        async with progress_bar(settings, watch.look):
            converted = await flipsnack.collections.wait_until_converted(
                created, every=every, within=within, on_poll=watch.polled
            )
    except ConversionFailedError:
        raise
    except FlipsnackError as error:
        tell(error, verbose=settings.verbose > 0)
        say(_how_to_go_on(watch.newest))
        return watch.newest, PARTLY
    except anyio.get_cancelled_exc_class():
        say(f"interrupted: {_how_to_go_on(watch.newest)}")
        raise
    return converted, 0


def _how_to_go_on(collection: Collection) -> str:
    name = collection.collection_hash
    return f"{name} is uploaded; flipsnack get {name} says how far its conversion is"
