"""`adapt convert-embedding`: a textual inversion for another program."""

from __future__ import annotations

import json as json_
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapt.cli import options
from adapt.cli.saving import require_free
from adapt.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.backbones import Backbone

FORMATS = ("a1111", "diffusers")


def convert_embedding(
    embedding: Annotated[Path, typer.Argument(help="A .safetensors file of A1111, ComfyUI or diffusers.")],
    output: Annotated[Path, typer.Option(help="The new file. In A1111 and ComfyUI its name is the word.")],
    format: Annotated[str, typer.Option(metavar="|".join(FORMATS))] = "a1111",
    word: Annotated[str | None, typer.Option(help="What calls it; default: as the file says, else its name.")] = None,
    base: Annotated[
        str | None, typer.Option(help="A base that knows such words: its fresh pipeline is to take the file.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Write the embedding of a new word as another program keeps it; the numbers stay, bit for bit.

    With --base diffusers' own load_textual_inversion must take the file, every vector of it.
    """
    if format not in FORMATS:
        raise SettingsError("unknown format", given=format, allowed=", ".join(FORMATS))
    if output.suffix != ".safetensors":
        raise SettingsError("embeddings are written as .safetensors", given=output)
    require_free(output)
    from adapt.formats.embeddings import read_embedding, write_embedding

    told, found = read_embedding(embedding)
    name = word or told
    backbone = _with_room(base, name, found) if base else None
    write_embedding(output, name, found, format)
    proof = _proof(output, name, found, backbone) if backbone else {}
    shapes = {component: list(tensor.shape) for component, tensor in found.items()}
    typer.echo(json_.dumps({"path": str(output), "word": name, "shapes": shapes, **proof}) if json else str(output))


def _with_room(base: str, word: str, found: Mapping[str, Tensor]) -> Backbone:
    """The base, which can take the word: said before anything is written."""
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.formats import LoraWeights

    backbone = Backbone.load(base)
    with Adapter(LoraWeights({}), words={word: found}).apply(backbone):
        return backbone


def _proof(path: Path, word: str, found: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Any]:
    from adapt.api.tools import prove_embedding
    from adapt.progress import say

    proof = prove_embedding(path, word, found, backbone)
    say(
        f"diffusers takes all {proof.layers} vectors; predictions for the word differ by {proof.difference:.1e} at most"
    )
    return {"proof": proof.as_dict()}
