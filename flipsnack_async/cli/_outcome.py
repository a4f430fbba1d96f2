"""What became of an upload that got no answer."""

from __future__ import annotations

import click

from flipsnack_async import (
    Collection,
    Flipsnack,
    FlipsnackError,
    UploadOutcome,
    UploadOutcomeUnknownError,
)

from ._failures import say
from ._session import patience
from ._settings import Settings


async def find_out(
    flipsnack: Flipsnack, settings: Settings, error: UploadOutcomeUnknownError
) -> Collection:
    """Return what the upload created after all, or raise what is known of it."""
    if not settings.quiet:
        say(f"note: {error.reason}; finding out whether the upload was carried out")
    outcome = await _outcome(flipsnack, error)
    if outcome.collection is not None:
        say(f"note: the upload was carried out: {outcome.reason}")
        return outcome.collection
    if outcome.created is False:
        raise click.ClickException(
            f"the upload was not carried out: {error.reason}, and {outcome.reason}; "
            "it is safe to send it again"
        )
    error.reason = f"{error.reason}; {outcome.reason}"
    raise error


async def _outcome(flipsnack: Flipsnack, error: UploadOutcomeUnknownError) -> UploadOutcome:
    try:
        with patience():
            return await flipsnack.collections.reconcile(error)
    except (FlipsnackError, click.ClickException) as failure:
        return UploadOutcome(None, str(failure))
