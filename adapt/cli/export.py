"""`adapt export`: an adapter as a file for other programs."""

from __future__ import annotations

import json as json_
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapt.cli import options
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
    strength: Annotated[
        float | None,
        typer.Option(
            help="What scale 1 of the file is to be; default: 1, as trained. The recommended scale suits best."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base it was made for: to prove the file with, and for --nearest; default: the adapter's."
        ),
    ] = None,
    no_proof: options.NoProof = False,
    json: options.Json = False,
) -> None:
    """Write an adapter in another program's format; the file is read back before it counts.

    Where the base is on this machine, a fresh pipeline loads the file too and must predict the same.
    All but diffusers' get a .json and a .png beside them, from which UIs show trigger, weight and preview. Example:

        adapt export runs/my-style --format kohya --output my-style.safetensors
    """
    from adapt.adapter import Adapter
    from adapt.cli.base_of import asked_for
    from adapt.progress import say

    if format not in FORMATS:
        raise SettingsError("unknown format", given=format, allowed=", ".join(FORMATS))
    weights = Adapter.locate(adapter)
    path = _path(weights, format, output)
    loaded, left_out = Adapter.load(weights), None
    files = list(loaded.files(path))
    beside = {file: _free(file, format) for file in files}
    backbone = asked_for(loaded, base) if base else None
    if nearest is not None:
        backbone = backbone or _own(loaded)
        loaded, left_out = _nearest(loaded, backbone, nearest)
    loaded = _at(loaded, strength)
    if loaded.words:
        say(
            f"note: the new words ({', '.join(loaded.words)}) are not in a LoRA file: adapt convert-embedding writes each"
        )
    loaded.export(path, format, text_width=_text_width(backbone), picture=_preview(weights, path))
    proofs = [None if no_proof else _proof(file, loaded, backbone, beside[file]) for file in files]
    told = {
        "path": str(files[0]),
        "format": format,
        "beside": [str(file) for each in beside.values() for file in each if file.exists()],
        "proof": proofs[0],
        **({"files": dict(zip(map(str, files), proofs, strict=True))} if len(files) > 1 else {}),
        **({} if left_out is None else {"left_out": left_out}),
    }
    typer.echo(json_.dumps(told) if json else "\n".join(map(str, files)))


def _path(weights: Path, format: str, output: Path | None) -> Path:
    """What was asked for."""
    from adapt.adapter import name_of
    from adapt.formats.described import slug

    path = output or Path(f"{slug(name_of(weights))}-{format}.safetensors")
    if path.suffix != ".safetensors":
        raise SettingsError("adapters are written as .safetensors", given=path)
    return path


def _free(path: Path, format: str) -> Sequence[Path]:
    """The files that may be written beside one; none of them, nor itself, is there yet."""
    from adapt.formats.described import STEM, sidecars
    from adapt.progress import say

    for_uis = format != "diffusers"
    beside = sidecars(path) if for_uis else ()
    if there := next((file for file in (path, *beside) if file.exists()), None):
        raise RunError("the file is there already", given=there, next="give another --output")
    if for_uis and not STEM.match(path.stem):
        say(f"note: prompts of some UIs cannot name {path.stem!r}; letters, digits, _ . - can be")
    if for_uis and path.with_suffix(".txt").exists():
        say(f"note: A1111 will show {path.with_suffix('.txt').name}, which stands beside it, as its description")
    return beside


def _at(adapter: Adapter, strength: float | None) -> Adapter:
    """With the strength inside; without one it is said where another than 1 is recommended."""
    from adapt.progress import say

    advised = adapter.recommended.get("scale", 1.0)
    if strength is None:
        if advised != 1:
            say(f"note: scale {advised:g} is recommended; --strength {advised:g} makes that scale 1 of the file")
        return adapter
    if not isfinite(strength) or not strength:
        raise SettingsError("--strength: no such scale", given=strength, allowed="a number other than 0")
    return adapter.at_strength(strength)


def _nearest(adapter: Adapter, backbone: Backbone, rank: int) -> tuple[Adapter, float]:
    """The nearest plain LoRA, and the share that it leaves out, which is said."""
    from adapt.progress import say

    found, left_out = adapter.nearest(backbone, rank)
    share = f"{100 * left_out:.2g} %"
    say(f"the nearest LoRA of rank {rank} leaves out {share} of what the adapter does to the weights")
    return found, left_out


def _preview(weights: Path, path: Path) -> Path | None:
    """One of the adapter's samples."""
    from adapt.adapter import home

    return next(iter(sorted(((home(weights) or path.parent) / "samples").glob("*.png"))), None)


def _proof(path: Path, adapter: Adapter, backbone: Backbone | None, beside: Sequence[Path]) -> dict[str, Any] | None:
    """What a fresh pipeline makes of the file; None: the base is not here."""
    from adapt.cli.proving import prove

    verdict = prove(path, adapter, backbone, beside)
    return verdict.proof.as_dict() if verdict and verdict.proof else None


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
