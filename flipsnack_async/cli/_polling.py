"""How often and how long something is asked for: the options of commands that wait."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def polling_options(*, only_with: str = "", within: float = 600.0) -> Callable[[F], F]:
    """Give a command --every and --within, which may mean something *only_with* another option."""
    when = f"With {only_with}: the" if only_with else "The"

    every_option = _seconds("--every", 5.0, f"{when} seconds between two questions.")
    within_option = _seconds("--within", within, f"{when} seconds after which to wait no longer.")
    return lambda command: every_option(within_option(command))


def _seconds(name: str, default: float, help: str) -> Callable[[F], F]:  # noqa: A002  click's word
    return click.option(
        name,
        type=float,
        metavar="S",
        default=default,
        show_default=True,
        callback=_check,
        help=help,
    )


def _check(ctx: click.Context, param: click.Parameter, value: float) -> float:
    # The library would find this out only when it begins to wait.
    if not 0 < value < math.inf:
        raise click.BadParameter("give a number of seconds above 0", ctx, param)
    return value
