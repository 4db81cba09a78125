"""`adapt extract`: an adapter out of a full fine-tune."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli import options
from adapt.cli.saving import require_free, save
from adapt.errors import SettingsError

KINDS = ("lora", "dora", "lokr")


def extract(
    tuned: Annotated[str, typer.Argument(help="The fine-tuned model: a diffusers folder, or a Hub id.")],
    base: Annotated[str, typer.Option(help="What it was tuned from.")],
    output: Annotated[Path, typer.Option(help="A new folder, or a new .safetensors file.")],
    rank: Annotated[int, typer.Option(min=1, help="At most so many ranks a layer.")] = 64,
    energy: Annotated[
        float, typer.Option(help="Fewer, where they hold this share of the squares of the singular values.")
    ] = 0.99,
    text_encoders: Annotated[bool, typer.Option("--text-encoders", help="Of the text encoders too.")] = False,
    kind: Annotated[
        str, typer.Option(metavar="|".join(KINDS), help="dora keeps the lengths of rows; lokr is the nearest product.")
    ] = "lora",
    no_proof: options.NoProof = False,
    json: options.Json = False,
) -> None:
    """Write the difference of a fine-tune to its base as an adapter; says what it leaves out."""
    require_free(output)
    if kind == "lokr" and output.suffix == ".safetensors":
        raise SettingsError(
            "diffusers' LoRA file cannot hold a LoKr",
            given=output,
            next="give a folder, then adapt export --format kohya",
        )
    from adapt.api.tools import extract as extracted
    from adapt.api.tools import require_extractable
    from adapt.backbones import Backbone
    from adapt.formats.factorise import Keep

    require_extractable(kind)
    keep = Keep(rank, energy)
    both = (Backbone.load(tuned), Backbone.load(base))
    made = extracted(*both, keep, text_encoders=text_encoders, name=output.stem, kind=kind)
    proof = save(made.adapter, output, both[1], proof=not no_proof)
    told = {
        "path": str(output),
        "layers": len(made.adapter.weights),
        "left_out": made.left_out,
        "elsewhere": made.elsewhere,
        **proof,
    }
    typer.echo(json_.dumps(told) if json else str(output))
    typer.echo(f"{len(made.adapter.weights)} layers; leaves out {100 * made.left_out:.2g} % of ΔW", err=True)
    if made.elsewhere:
        first = f"such as {made.elsewhere[0]}"
        typer.echo(
            f"note: {len(made.elsewhere)} changed parameters are none that an adapter can change, {first}", err=True
        )
