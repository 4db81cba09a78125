"""`adapt inspect`: what an adapter is."""

from __future__ import annotations

import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapt.adapter import Adapter
    from adapt.formats.inspect import Inspection


def inspect(
    adapter: Annotated[
        str, typer.Argument(help="An adapter's folder, a run's folder, a file, or user/name on the Hub.")
    ],
    layers: Annotated[bool, typer.Option("--layers", help="Every layer: kind, rank, alpha, size, norm.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, with every layer.")] = False,
) -> None:
    """Say what an adapter is: dialect, family, base, trigger, ranks, strengths, norms, problems. Loads no base."""
    from adapt.adapter import Adapter
    from adapt.formats.inspect import inspect as inspected

    file = Adapter.locate(adapter)
    loaded = Adapter.load(file)
    found = inspected(file, loaded.weights)
    if json:
        told = {
            "base": dict(loaded.facts.base),
            "triggers": list(_triggers(loaded, found)),
            "words": list(loaded.words),
        }
        return typer.echo(json_.dumps({**found.as_dict(), **told}))
    for line in _lines(loaded, found, layers):
        typer.echo(line)


def _triggers(adapter: Adapter, found: Inspection) -> tuple[str, ...]:
    told = found.metadata.get("modelspec.trigger_phrase")
    return adapter.triggers or ((told,) if told else ())


def _lines(adapter: Adapter, found: Inspection, each: bool) -> Iterator[str]:
    yield f"dialect   {found.dialect}"
    yield f"family    {adapter.facts.base.get('family') or found.family or 'not told by its layers'}"
    yield f"base      {_base(adapter, found)}"
    yield f"trigger   {', '.join(_triggers(adapter, found)) or 'none told'}"
    yield "layers    " + ", ".join(f"{count} in {component}" for component, count in found.components.items())
    for label, what in (("kind", "kind"), ("rank", "rank"), ("alpha", "alpha"), ("type", "dtype")):
        told = [f"{value:g}" if isinstance(value, float) else str(value) for value in found.counted(what)]
        yield f"{label:9} {', '.join(told[:8])}" + (f" and {len(told) - 8} more" if len(told) > 8 else "")
    norms = sorted(layer.norm for layer in found.layers)
    yield f"‖ΔW‖      {norms[0]:.3g} to {norms[-1]:.3g}, median {norms[len(norms) // 2]:.3g}"
    if scale := adapter.facts.distilled.get("guidance_scale"):
        yield f"guidance  {scale:g} is inside: draw at scale 1"
    if adapter.words:
        yield f"words     {', '.join(adapter.words)}"
    for problem in found.problems:
        yield f"note      {problem}"
    if each:
        for layer in found.layers:
            out, inside = layer.size
            yield f"{layer.name}: {layer.kind}, rank {layer.rank}, alpha {layer.alpha:g}, {out} × {inside}, ‖ΔW‖ {layer.norm:.3g}"


def _base(adapter: Adapter, found: Inspection) -> str:
    told = (
        adapter.facts.base_reference,
        found.metadata.get("ss_sd_model_name"),
        found.metadata.get("ss_base_model_version"),
    )
    return str(next((name for name in told if name), "not told"))
