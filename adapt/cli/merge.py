"""`adapt merge`: several adapters as one, or in a base for good."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from adapt.cli import options
from adapt.cli.saving import require_free, save
from adapt.cli.scaled import scaled_adapter
from adapt.errors import SettingsError

METHODS = ("linear", "svd", "ties", "dare", "magnitude-prune")


def merge(
    adapters: Annotated[
        list[str], typer.Argument(metavar="PATH[:WEIGHT]…", help="Adapters; a weight of 1 is as trained.")
    ],
    output: Annotated[Path, typer.Option(help="A new folder, or a new .safetensors file.")],
    method: Annotated[
        str, typer.Option(metavar="|".join(METHODS), help="linear: the exact sum, whose rank is the sum of ranks.")
    ] = "linear",
    rank: Annotated[
        int | None, typer.Option(min=1, help="Of the merged adapter, but for linear; default: the largest rank.")
    ] = None,
    density: Annotated[
        float, typer.Option(help="ties, dare, magnitude-prune: share of the entries that is kept.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Of dare's random choice.")] = 0,
    into_base: Annotated[
        bool, typer.Option("--into-base", help="Write the whole base with the adapters in it.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            help="With --into-base, for kinds other than LoRA, and to prove it with; default: the first adapter's own."
        ),
    ] = None,
    no_proof: options.NoProof = False,
    json: options.Json = False,
) -> None:
    """Merge adapters into one, or into their base as a diffusers pipeline folder."""
    require_free(output)
    if method not in METHODS:
        raise SettingsError("unknown method", given=method, allowed=", ".join(METHODS))
    if method == "linear" and rank is not None:
        raise SettingsError("linear keeps every rank", given=f"--rank {rank}", next="--method svd")
    from adapt.adapter import Adapter

    found = [scaled_adapter(text) for text in adapters]
    loaded = [(Adapter.load(path), 1.0 if scale is None else scale) for path, scale in found]
    if into_base:
        proof = _into_base(loaded, base, output, proof=not no_proof)
        typer.echo(json_.dumps({"path": str(output), "proof": proof}) if json else str(output))
        return
    from adapt.api.tools import merge as merged
    from adapt.cli.base_of import asked_for, needed
    from adapt.formats.factorise import Keep

    reference = needed([adapter for adapter, _ in loaded], base, without=("lora",))
    keep = Keep(rank=rank) if rank else None
    made = merged(loaded, method, keep, density=density, seed=seed, name=output.stem, base=reference)
    if base and reference is None and not no_proof:
        reference = asked_for(made.adapter, base)
    proof = save(made.adapter, output, reference, proof=not no_proof)
    ranks = [layer.rank for layer in made.adapter.layers().values()]
    told = {
        "path": str(output),
        "method": method,
        "layers": len(ranks),
        "ranks": [min(ranks), max(ranks)],
        "left_out": made.left_out,
        **proof,
    }
    typer.echo(json_.dumps(told) if json else str(output))
    if method != "linear":
        typer.echo(f"its rank leaves out {100 * made.left_out:.2g} % of the merged ΔW", err=True)


def _into_base(loaded: list, base: str | None, output: Path, proof: bool) -> dict[str, Any] | None:  # type: ignore[type-arg]
    """Writes the pipeline's folder; what a fresh one made of it."""
    from adapt.api.tools import merge_into_base
    from adapt.backbones import Backbone

    reference = base or loaded[0][0].facts.base_reference
    if reference is None:
        raise SettingsError("the adapter does not say its base", next="give --base")
    proved = merge_into_base(loaded, Backbone.load(reference), output, proof=proof)
    if proved is None:
        return None
    typer.echo(
        f"a fresh pipeline of it predicts what the base here does now: they differ by {proved.difference:.1e} at most, "
        f"and the adapters move predictions by {proved.effect:.1e}",
        err=True,
    )
    return proved.as_dict()
