"""`adapt export`: an adapter as a file for other programs."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapt.errors import RunError, SettingsError

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone

FORMATS = ("diffusers", "kohya", "ai-toolkit", "bfl", "comfyui", "omi", "onetrainer", "simpletuner", "xlabs")


def export(
    adapter: Annotated[Path, typer.Argument(help="A folder, a run's folder, a .safetensors file, or user/name.")],
    format: Annotated[
        str, typer.Option(metavar="|".join(FORMATS), help="kohya: ComfyUI, A1111, Forge, InvokeAI.")
    ] = "kohya",
    output: Annotated[Path | None, typer.Option(help="The file; default: NAME-FORMAT.safetensors.")] = None,
    nearest: Annotated[
        int | None,
        typer.Option(
            metavar="RANK", min=1, help="Make it the nearest plain LoRA of this rank; says what that leaves out."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base it was made for: to prove the file with, and for --nearest; default: the adapter's."
        ),
    ] = None,
    no_proof: Annotated[
        bool, typer.Option("--no-proof", help="Do not load the file into a fresh pipeline of its base.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write an adapter in another program's format; the file is read back before it counts.

    Where the base is on this machine, a fresh pipeline loads the file too and must predict the same.
    All but diffusers' get a .json and a .png beside them, from which UIs show trigger, weight and preview. Example:

        adapt export runs/my-style --format kohya --output my-style.safetensors
    """
    from adapt.adapter import Adapter, home, name_of
    from adapt.cli.base_of import asked_for
    from adapt.cli.proving import prove
    from adapt.formats.described import STEM, sidecars, slug
    from adapt.progress import say

    if format not in FORMATS:
        raise SettingsError("unknown format", given=format, allowed=", ".join(FORMATS))
    weights = Adapter.locate(adapter)
    path = output or Path(f"{slug(name_of(weights))}-{format}.safetensors")
    if path.suffix != ".safetensors":
        raise SettingsError("adapters are written as .safetensors", given=path)
    for_uis = format != "diffusers"
    written = [path, *(sidecars(path) if for_uis else ())]
    if there := next((file for file in written if file.exists()), None):
        raise RunError("the file is there already", given=there, next="give another --output")
    if for_uis and not STEM.match(path.stem):
        say(f"note: prompts of some UIs cannot name {path.stem!r}; letters, digits, _ . - can be")
    if for_uis and path.with_suffix(".txt").exists():
        say(f"note: A1111 will show {path.with_suffix('.txt').name}, which stands beside it, as its description")
    loaded, left_out = Adapter.load(weights), None
    backbone = asked_for(loaded, base) if base else None
    if nearest is not None:
        backbone = backbone or _own(loaded)
        loaded, left_out = loaded.nearest(backbone, nearest)
        say(
            f"the nearest LoRA of rank {nearest} leaves out {100 * left_out:.2g} % of what the adapter does to the weights"
        )
    folder = home(weights) or path.parent
    picture = next(iter(sorted((folder / "samples").glob("*.png"))), None)
    loaded.export(path, format, text_width=_text_width(backbone), picture=picture)
    verdict = None if no_proof else prove(path, loaded, backbone)
    beside = [str(file) for file in written[1:] if file.exists()]
    told = {
        "path": str(path),
        "format": format,
        "beside": beside,
        "proof": verdict.proof.as_dict() if verdict and verdict.proof else None,
        **({} if left_out is None else {"left_out": left_out}),
    }
    typer.echo(json_.dumps(told) if json else str(path))


def _text_width(backbone: Backbone | None) -> int | None:
    """What tells one Stable Diffusion from another, where the adapter's layers do not."""
    from adapt.api.network import text_width

    return text_width(backbone) if backbone is not None else None


def _own(adapter: Adapter) -> Backbone:
    from adapt.backbones import Backbone

    if (reference := adapter.facts.base_reference) is None:
        raise SettingsError(
            "--nearest looks at the base's weights, and the adapter does not say which", next="give --base"
        )
    return Backbone.load(reference)
