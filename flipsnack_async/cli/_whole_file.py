"""Files that are there whole, or as they were before."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """
    Give a neighbour to write to, which takes the target's place when the block is done.

    Where the block raises, or the process is killed, the target is as it was.
    """
    target = target.resolve()  # what a link leads to is replaced, not the link
    if target.exists() and not target.is_file():
        raise click.UsageError(f"{target} is no file; - is stdout")
    neighbour = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.new")
    try:
        os.close(os.open(neighbour, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield neighbour
        with neighbour.open("rb+") as file:
            os.fsync(file.fileno())
        neighbour.replace(target)
    except OSError as error:
        raise click.ClickException(f"{target}: {error.strerror or 'disk error'}") from None
    finally:
        with suppress(OSError):
            neighbour.unlink()
