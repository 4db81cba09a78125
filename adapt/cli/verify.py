"""`adapt verify`: whether an adapter is sound, and whether its library takes it as it is meant."""

from __future__ import annotations

import json as json_
from typing import Annotated

import typer

from adapt.cli import options


def verify(
    adapter: Annotated[
        str, typer.Argument(help="An adapter's folder, a run's folder, a file, or user/name on the Hub.")
    ],
    base: Annotated[
        str | None, typer.Option(help="Lay it onto this base and compare predictions with the library's; default: not.")
    ] = None,
    json: options.Json = False,
) -> int:
    """Read an adapter strictly and, with --base, prove it in a fresh pipeline: 0 fine, 1 something is wrong."""
    from adapt.adapter import here
    from adapt.api.tools import verify as verified
    from adapt.backbones import Backbone
    from adapt.cli.proving import proof_line

    found = verified(here(adapter), Backbone.load(base) if base else None)
    if json:
        typer.echo(json_.dumps(found.as_dict()))
        return int(not found.fine)
    for what, fault in found.checks.items():
        typer.echo(f"{what:8} {fault or 'fine'}")
    if found.proof:
        typer.echo(proof_line(found))
    return int(not found.fine)
