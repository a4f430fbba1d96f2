"""The command that carries out any action by the vendor's names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from flipsnack_async import Effect, Flipsnack

from ._json_lines import write_line
from ._looks import UploadMeter
from ._params import as_mapping
from ._progress_bar import progress_bar
from ._sending import check_document, told_if_interrupted
from ._session import converse, patience
from ._settings import Settings, shared_options


@click.command()
@click.argument("action")
@click.argument("params", metavar="[KEY=VALUE ...]", nargs=-1, callback=as_mapping)
@click.option("--file", metavar="F", help="A document to send with it: a file or an https address.")
@click.option("--read", is_flag=True, help="It changes nothing, so it may be sent again.")
@shared_options()
@click.pass_obj
def call(
    settings: Settings, action: str, params: Mapping[str, str], file: str | None, read: bool
) -> None:
    """
    Carry out any action of the API by the vendor's names.

    Values are sent as they are. An action that is not known here is never
    sent a second time, unless --read says that it may be.

    \b
    Examples:
      flipsnack call collection.getCollection collectionHash=fxh4k89
      flipsnack call collection.create title=Spring --file spring.pdf
    """
    effect = Effect.READ if read else None

    async def ask(flipsnack: Flipsnack) -> dict[str, Any]:
        with patience():
            return await flipsnack.call(action, params, effect=effect)

    async def send(flipsnack: Flipsnack, source: str) -> dict[str, Any]:
        meter = UploadMeter(source)
        with told_if_interrupted(meter):
            async with progress_bar(settings, meter.look):
                return await flipsnack.call(
                    action, params, file=source, effect=effect, on_progress=meter.moved
                )

    if file is None:
        data = converse(settings, ask)
    else:
        check_document(file)
        data = converse(settings, partial(send, source=file))
    write_line(data, indent=2 if settings.as_table else None)
