"""Parts of the library that are installed only if asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ._failures import USAGE


class MissingExtraError(click.ClickException):
    """Say which extra has to be installed."""

    exit_code = USAGE

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(f"the {extra} needs {module}: pip install 'flipsnack-async[{extra}]'")


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Raise `MissingExtraError` where an import inside the block fails for want of *extra*."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = error.name or "a module"
        if module.startswith("flipsnack_async"):
            raise
        raise MissingExtraError(extra, module) from None
