"""`adapt diff`: whether two adapters do the same."""

from __future__ import annotations

import json as json_
from typing import Annotated

import typer

from adapt.cli import options


def diff(
    first: Annotated[str, typer.Argument(help="An adapter's folder, a run's folder, a file, or user/name on the Hub.")],
    second: Annotated[str, typer.Argument(help="Another, in whatever dialect.")],
    tolerance: Annotated[
        float, typer.Option(min=0, help="‖ΔW - ΔW'‖ / ‖ΔW‖ of a layer that counts as the same.")
    ] = 1e-6,
    json: options.Json = False,
) -> int:
    """Compare what two adapters do to the weights: 0 the same, 1 different, 2 cannot be read."""
    from adapt.adapter import Adapter
    from adapt.formats.agree import differences

    ours, theirs = Adapter.load(first), Adapter.load(second)
    found = differences(ours.weights, theirs.weights, tolerance)
    if json:
        typer.echo(json_.dumps({"same": not found, "differences": [each.as_dict() for each in found]}))
        return int(bool(found))
    for each in found:
        typer.echo(f"{each.layer}: {each.what}" + ("" if each.relative is None else f", by {each.relative:.3g}"))
    typer.echo(f"{len(found)} of {len(ours.weights)} layers differ" if found else "the same", err=True)
    return int(bool(found))
