"""What can be set on a collection: the options that an upload and an update share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict, TypeVar

import click

from ._params import params_option

F = TypeVar("F", bound=Callable[..., Any])


class Details(TypedDict):
    """Hold the values of these options; None or empty is what was not given."""

    title: str | None
    description: str | None
    width: int | None
    height: int | None
    status: str | None
    params: Mapping[str, str]


_PIXELS: Final = click.IntRange(min=1)

width_option = click.option(
    "--width", type=_PIXELS, metavar="N", help="The player's width in pixels."
)
height_option = click.option(
    "--height", type=_PIXELS, metavar="N", help="The player's height in pixels."
)

_OPTIONS: Final = (
    click.option("--title", metavar="T", help="Its title."),
    click.option("--description", metavar="T", help="Its description."),
    width_option,
    height_option,
    click.option("--status", metavar="S", help="Who may see it: public, unlisted or editable."),
    params_option,
)


def details_options(command: F) -> F:
    """Give a command all of these options."""
    # From the last one, which is how stacked decorators are applied.
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
