"""The options that every command shares, wherever on the line they are given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import attrs
import click

from flipsnack_async import InvalidArgumentError, Rate

F = TypeVar("F", bound=Callable[..., Any])


@attrs.define
class Settings:
    """Hold what the shared options say; *rates* is None where nothing does."""

    sandbox: bool = False
    rates: tuple[Rate, ...] | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0

    @property
    def as_table(self) -> bool:
        """Say whether a person will read the results."""
        return sys.stdout.isatty() and not self.json


def shared_options(*, rates_from: str | None = None) -> Callable[[F], F]:
    """
    Give a command all of these options.

    *rates_from* is the environment variable behind --rates. Only the program
    itself reads it: read again after the command, it would win over the line.
    """
    return _together(_SANDBOX, _rates(rates_from), _JSON, _QUIET, _VERBOSE)


def server_options() -> Callable[[F], F]:
    """Give a command the options that make sense for what calls nobody."""
    return _together(_rates(), _QUIET, _VERBOSE)


def _remember_rates(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    try:
        _remember(ctx, param, Rate.parse(value) if value else None)
    except InvalidArgumentError as error:
        raise click.BadParameter(f"{value!r}: {error.remedy}", ctx, param) from None


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    # An option that is not given after the command leaves alone what was said before it.
    if value and param.name:
        setattr(ctx.ensure_object(Settings), param.name, value)


_shared = partial(click.option, callback=_remember, expose_value=False)

_SANDBOX = _shared(
    "--sandbox",
    is_flag=True,
    help="Use a Flipsnack made up in this process: no key, no network.",
)
_JSON = _shared("--json", is_flag=True, help="Print JSON lines on a terminal too.")
_QUIET = _shared("-q", "--quiet", is_flag=True, help="Print no progress and no summary.")
_VERBOSE = _shared(
    "-v", "--verbose", count=True, help="Show what caused an error, and the log; -vv for more."
)


def _rates(envvar: str | None = None) -> Callable[[F], F]:
    return click.option(
        "--rates",
        metavar="RATES",
        callback=_remember_rates,
        expose_value=False,
        envvar=envvar,
        show_envvar=True,
        help="Your key's limits, calls/seconds. The vendor's are 5/1s,60/60s.",
    )


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        # From the last one, which is how stacked decorators are applied.
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
