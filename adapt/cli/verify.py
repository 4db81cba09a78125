"""`adapt verify`: whether an adapter is sound, and whether its library takes it as it is meant."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapt.cli import options

if TYPE_CHECKING:
    from adapt.backbones import Backbone


def verify(
    adapter: Annotated[
        str, typer.Argument(help="An adapter's folder, a run's folder, a file, or user/name on the Hub.")
    ],
    base: Annotated[
        str | None, typer.Option(help="What it is proved on; default: its own base, if that is on this machine.")
    ] = None,
    no_proof: Annotated[bool, typer.Option("--no-proof", help="Only read it.")] = False,
    json: options.Json = False,
) -> int:
    """Read an adapter strictly, lay it onto its base and compare with the library's predictions: 0 fine, 1 something is wrong.

    Where the base is not on this machine only the file is read, and that is said.
    """
    from adapt.adapter import here
    from adapt.api.tools import verify as verified
    from adapt.cli.proving import proof_line

    path = here(adapter)
    backbone, why_not = (None, "--no-proof") if no_proof else _base(path, base)
    found = verified(path, backbone)
    if json:
        typer.echo(json_.dumps({**found.as_dict(), "unproved": why_not or None}))
        return int(not found.fine)
    for what, fault in found.checks.items():
        typer.echo(f"{what:8} {fault or 'fine'}")
    if found.proof:
        typer.echo(proof_line(found))
    elif why_not and found.fine:
        typer.echo(f"proof    none, the file was only read: {why_not}")
    return int(not found.fine)


def _base(path: Path, base: str | None) -> tuple[Backbone | None, str]:
    """What it is proved on, or why it is not."""
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.cli.base_of import own
    from adapt.cli.proving import unknown_kinds
    from adapt.errors import AdapterError

    if base:
        return Backbone.load(base), ""
    try:
        adapter = Adapter.load(path)
    except AdapterError as error:
        return None, str(error)  # verifying says it
    if why_not := unknown_kinds(adapter):
        return None, why_not
    backbone, why_not = own(adapter)
    return backbone, why_not and f"{why_not}; adapt verify {path} --base BASE proves it"
