"""`adapt export`: an adapter as a file for other programs."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from adapt.errors import RunError, SettingsError

FORMATS = ("diffusers", "kohya")


def export(
    adapter: Annotated[Path, typer.Argument(help="An adapter's folder, a run's folder, or a .safetensors file.")],
    format: Annotated[
        str, typer.Option(metavar="|".join(FORMATS), help="kohya: ComfyUI, A1111, Forge, InvokeAI.")
    ] = "kohya",
    output: Annotated[Path | None, typer.Option(help="The file; default: NAME-FORMAT.safetensors.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write an adapter in another program's format; the file is read back before it counts."""
    from adapt.adapter import Adapter

    if format not in FORMATS:
        raise SettingsError("unknown format", given=format, allowed=", ".join(FORMATS))
    name = Adapter.locate(adapter).stem if adapter.suffix else adapter.resolve().name
    path = output or Path(f"{name}-{format}.safetensors")
    if path.suffix != ".safetensors":
        raise SettingsError("adapters are written as .safetensors", given=path)
    if path.exists():
        raise RunError("the file is there already", given=path, next="give another --output")
    Adapter.load(adapter).export(path, format)
    typer.echo(json_.dumps({"path": str(path), "format": format}) if json else str(path))
