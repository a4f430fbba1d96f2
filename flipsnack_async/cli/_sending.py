"""A document on its way: which may go, and what is said if it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import click

from ._failures import say
from ._looks import UploadMeter


def check_document(source: str) -> None:
    """Refuse what no call need be made for: standard input, and a file that is not there."""
    if source == "-":
        raise click.UsageError("a document cannot come from stdin; give a file or an address")
    if "://" in source:
        if not source.startswith("https://"):  # not repeated: such links often need no password
            raise click.UsageError("an address must start with https://")
        problem = ""
    elif not Path(source).exists():
        problem = "there is no such file"
    elif not Path(source).is_file():
        problem = "it is no file"
    else:
        problem = "" if Path(source).stat().st_size else "it is empty"
    if problem:
        raise click.UsageError(f"{source!r}: {problem}")


@contextmanager
def told_if_interrupted(meter: UploadMeter) -> Iterator[None]:
    """Say on Ctrl-C inside the block whether anything may have arrived."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        if meter.sent or meter.total is None:
            say("interrupted: the upload may or may not have arrived; look before you repeat it")
        else:
            say("interrupted: nothing was uploaded")
        raise
