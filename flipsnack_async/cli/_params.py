"""Parameters by the vendor's own names, written NAME=VALUE."""

from __future__ import annotations

import click


def as_mapping(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Read *values*, each of which is sent as it is."""
    found: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} has no = in it", ctx, param)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", ctx, param)
        found[name] = value
    return found


params_option = click.option(
    "--param",
    "params",
    metavar="NAME=VALUE",
    multiple=True,
    callback=as_mapping,
    help="A further parameter by the vendor's name. May be given several times.",
)
