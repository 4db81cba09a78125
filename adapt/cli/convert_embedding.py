"""`adapt convert-embedding`: a textual inversion for another program."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli import options
from adapt.cli.saving import require_free
from adapt.errors import SettingsError

FORMATS = ("a1111", "diffusers")


def convert_embedding(
    embedding: Annotated[Path, typer.Argument(help="A .safetensors file of A1111, ComfyUI or diffusers.")],
    output: Annotated[Path, typer.Option(help="The new file. In A1111 and ComfyUI its name is the word.")],
    format: Annotated[str, typer.Option(metavar="|".join(FORMATS))] = "a1111",
    word: Annotated[str | None, typer.Option(help="What calls it; default: as the file says, else its name.")] = None,
    json: options.Json = False,
) -> None:
    """Write the embedding of a new word as another program keeps it; the numbers stay, bit for bit."""
    if format not in FORMATS:
        raise SettingsError("unknown format", given=format, allowed=", ".join(FORMATS))
    if output.suffix != ".safetensors":
        raise SettingsError("embeddings are written as .safetensors", given=output)
    require_free(output)
    from adapt.formats.embeddings import read_embedding, write_embedding

    told, found = read_embedding(embedding)
    write_embedding(output, word or told, found, format)
    shapes = {component: list(tensor.shape) for component, tensor in found.items()}
    typer.echo(json_.dumps({"path": str(output), "word": word or told, "shapes": shapes}) if json else str(output))
