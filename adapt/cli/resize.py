"""`adapt resize`: an adapter of lower rank."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli import options
from adapt.cli.saving import require_free, save
from adapt.errors import SettingsError


def resize(
    adapter: Annotated[
        str, typer.Argument(help="An adapter's folder, a run's folder, a file, or user/name on the Hub.")
    ],
    output: Annotated[Path, typer.Option(help="A new folder, or a new .safetensors file.")],
    rank: Annotated[int | None, typer.Option(min=1, help="At most so many ranks a layer.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Until each layer keeps this share of the squares of its singular values: 0.95."),
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(help="Singular values above the largest divided by this (kohya's sv_ratio).")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="For kinds other than LoRA and DoRA, and to prove it with; default: its own.")
    ] = None,
    no_proof: options.NoProof = False,
    json: options.Json = False,
) -> None:
    """Make an adapter smaller by singular values; says what that leaves out. Several rules together: the smallest rank."""
    require_free(output)
    if rank is None and energy is None and ratio is None:
        raise SettingsError("how small is not said", allowed="--rank, --energy, --ratio, or several of them")
    from adapt.adapter import Adapter
    from adapt.api.tools import resize as resized
    from adapt.cli.base_of import asked_for, needed
    from adapt.formats.factorise import Keep

    keep, loaded = Keep(rank, energy, ratio), Adapter.load(adapter)
    backbone = needed([loaded], base, without=("lora", "dora"))
    made = resized(loaded, keep, backbone)
    if base and backbone is None and not no_proof:
        backbone = asked_for(made.adapter, base)
    proof = save(made.adapter, output, backbone, proof=not no_proof)
    ranks = [layer.rank for layer in made.adapter.layers().values()]
    told = {"path": str(output), "left_out": made.left_out, "ranks": [min(ranks), max(ranks)], **proof}
    typer.echo(json_.dumps(told) if json else str(output))
    typer.echo(f"ranks {min(ranks)} to {max(ranks)}; leaves out {100 * made.left_out:.2g} % of ΔW", err=True)
