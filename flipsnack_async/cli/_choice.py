"""Which collections a command is about: named, in a file, or all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class _TextFile(click.File):
    """Be a file of text, or stdin, which a shell may have closed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and sys.stdin is None:
            self.fail("stdin is closed", param, ctx)
        return super().convert(value, param, ctx)


_hashes = click.argument("hashes", metavar="[HASH ...]", nargs=-1)
_all = click.option("--all", "everything", is_flag=True, help="Every collection of the account.")
_file = click.option(
    "--from-file",
    "file",
    metavar="F",
    type=_TextFile(encoding="utf-8-sig"),
    help="Those in a file, one hash a line; - is stdin. Blank lines and # comments are skipped.",
)


def choice_options(command: F) -> F:
    """Give a command the ways to say which collections; `chosen` reads them."""
    return _hashes(_all(_file(command)))


def chosen(
    hashes: tuple[str, ...], *, everything: bool, file: TextIO | None
) -> Sequence[str] | None:
    """Return the hashes that were chosen, None for all of the account."""
    named = bool(hashes) or file is not None
    if everything == named:
        raise click.UsageError(
            "give either --all or which collections: hashes, --from-file, or both"
        )
    if everything:
        return None
    return [*hashes, *_hashes_in(file)] if file else hashes


def _hashes_in(file: TextIO) -> list[str]:
    try:
        lines = [line.partition("#")[0].strip() for line in file]
    except UnicodeDecodeError:
        raise click.UsageError("--from-file: the file is not UTF-8 text") from None
    return [line for line in lines if line]
