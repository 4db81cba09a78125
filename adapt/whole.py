"""Whether a base's files are all there: a half-downloaded one is said before anything is loaded. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapt.checkpoints import header
from adapt.errors import BackboneError
from adapt.source import PICKLES, Source, variant_of

WEIGHTED = (
    "unet",
    "transformer",
    "transformer_2",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "text_encoder_4",
    "projection_model",
    "language_model",
    "vocoder",
    "movq",
    "prior_prior",
    "prior_text_encoder",
    "prior_image_encoder",
)
"""Components that have weights."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken")
"""What a tokenizer reads words from: without, transformers makes one that knows none."""


def require_whole(where: Source, index: Mapping[str, Any]) -> None:
    """Every component that the index names is there and has weights that can be read, all of them.

    Raises:
        BackboneError: it is not.
    """
    named = dict(_named(index))
    for name in WEIGHTED:
        if name in named:
            _require_network(where, name, named[name])
    for name in named:
        if name.startswith("tokenizer"):
            _require_tokenizer(where.folder, name)
        elif name == "scheduler" and not (where.folder / name / "scheduler_config.json").is_file():
            raise _missing(where.folder, name)


def _named(index: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Components and their classes."""
    for name, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None:
            yield name, str(entry[1])


def _require_network(where: Source, name: str, kind: str) -> None:
    place = where.folder / name
    if not (place / "config.json").is_file():
        raise _missing(where.folder, name)
    if where.contents and where.contents.has(name, kind):
        return
    files = where.weights(name, kind)
    if not files:
        raise _without_weights(where, place)
    for file in files:
        header(file)  # whole?
    for index in place.glob("*.safetensors.index*.json"):
        variant = index.name.partition(".safetensors.index")[2].removesuffix("json").strip(".") or None
        if variant == variant_of(files[0].name):
            _require_shards(index)


def _require_shards(index: Path) -> None:
    """All files that an index names are there."""
    try:
        named = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackboneError("an index of weights cannot be read", given=index, next="download it again") from error
    if lost := sorted(file for file in named if not (index.parent / file).is_file()):
        raise BackboneError(
            f"the base is not whole: {len(lost)} of {len(named)} weights files of {index.parent.name} are missing",
            given=index.parent / lost[0],
            next="download it again",
        )


def _require_tokenizer(folder: Path, name: str) -> None:
    place = folder / name
    if not place.is_dir():
        raise _missing(folder, name)
    if not any(True for pattern in VOCABULARIES for _ in place.glob(pattern)):
        raise BackboneError(f"the base is not whole: {name} has no vocabulary", given=place, next="download it again")


def _missing(folder: Path, name: str) -> BackboneError:
    return BackboneError(f"the base is not whole: {name} is missing", given=folder, next="download it again")


def _without_weights(where: Source, place: Path) -> BackboneError:
    if where.contents:
        return BackboneError(
            f"neither the checkpoint nor the folder has the weights of {place.name}",
            given=f"{where.contents.file}, {where.folder}",
            next=f"a whole diffusers folder or Hub id behind the colon: --base {where.contents.file.name}:FOLDER",
        )
    pickled = next((path.name for path in place.iterdir() if path.name.endswith(PICKLES)), None)
    return BackboneError(
        f"{place.name} has no safetensors weights",
        given=f"{place}" + (f" ({pickled} can run code when opened and is never read)" if pickled else ""),
        next="save it again with safe_serialization=True"
        if pickled
        else "download it again; of a base with weights of one variant only, say it: owner/name:fp16",
    )


def unfit(component: str, reason: str, given: object) -> BackboneError:
    """Weights and configuration that are not each other's."""
    return BackboneError(
        f"the weights of {component} do not fit its configuration: {reason}",
        given=given,
        next="download the base again",
    )
