"""Embeddings of new words (textual inversion; Gal et al. 2022, arXiv 2208.01618): of one word, and of an adapter.

For one text encoder diffusers' file is `{"<me>": (vectors, width)}`, which `pipe.load_textual_inversion` takes as it is. For two
it is `{"clip_l": …, "clip_g": …}`, as UIs and diffusers' guides have it for SDXL; the word stands in the header. A1111, Forge and
ComfyUI have `emb_params` for one, and the word is the file's name. Pickles (`.pt`, `.bin`) are never opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import files
from adapt.errors import AdapterError, SettingsError
from adapt.formats.opening import open_tensors, read_header

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, WORD = "embeddings", "adapt.token"
COMPONENTS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
"""Names of the tensors in a file for two encoders."""
FORMATS = ("a1111", "diffusers")
A1111 = "emb_params"
BUNDLED = re.compile(r"^bundle_emb\.(.+)\.(string_to_param\.\*|string_to_token\.\*|emb_params|clip_l|clip_g)$")
Embeddings = Mapping[str, "Mapping[str, Tensor]"]
"""Word → component → (vectors, width)."""


# ------------------------------------------------------------------------------------------------------- of an adapter
def file_of(word: str) -> str:
    """`<me>` → `embeddings/me.safetensors`."""
    return f"{FOLDER}/{re.sub(r'[^0-9A-Za-z_-]+', '', word) or 'word'}.safetensors"


def write_embeddings(folder: Path, words: Embeddings) -> None:
    """Writes one file a word below the adapter's folder, in diffusers' format; see `write_embedding`.

    Raises:
        AdapterError: two words of one file name.
    """
    names = [file_of(word) for word in words]
    if len(set(names)) < len(names):
        raise AdapterError("two new words would have the same file", given=", ".join(words), next="rename one of them")
    for name, (word, found) in zip(names, words.items(), strict=True):
        write_embedding(folder / name, word, found, "diffusers")


def read_embeddings(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The new words of an adapter's folder; none without `embeddings/`.

    Raises:
        AdapterError: a file that is damaged, or holds something else.
    """
    return dict(read_embedding(path) for path in sorted((folder / FOLDER).glob("*.safetensors")))


# ---------------------------------------------------------------------------------------------- bundled with a LoRA
def is_bundled(name: str) -> bool:
    """Whether a tensor of a LoRA file is of a new word that is bundled with it."""
    return BUNDLED.match(name) is not None


def read_bundled(path: Path) -> dict[str, dict[str, Tensor]]:
    """The new words that a LoRA file brings, as A1111, Forge and OneTrainer bundle them: `bundle_emb.<word>.string_to_param.*`,
    `.emb_params`, or `.clip_l` and `.clip_g`. None in most.

    Raises:
        AdapterError: an embedding of no word's shape, or values that are not finite.
    """
    if not any(is_bundled(name) for name in read_header(path).entries):
        return {}
    words: dict[str, dict[str, Tensor]] = {}
    for name, tensor in open_tensors(path)[0].items():
        if (found := BUNDLED.match(name)) and found[2] != "string_to_token.*":
            vectors = tensor[None] if tensor.ndim == 1 else tensor
            words.setdefault(found[1], {})[COMPONENTS.get(found[2], "text_encoder")] = vectors
    for found_here in words.values():
        _judge(path, found_here)
    return words


# --------------------------------------------------------------------------------------------------------- of one word
def read_embedding(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The word and its embedding by text encoder, each (vectors, width).

    Raises:
        AdapterError: damaged, a pickle, something else, or values that are not finite.
    """
    tensors, metadata = open_tensors(path)
    word = metadata.get(WORD) or path.stem
    if tensors.keys() == {A1111}:
        found = {"text_encoder": tensors[A1111]}
    elif tensors and tensors.keys() <= COMPONENTS.keys():
        found = {COMPONENTS[key]: tensor for key, tensor in tensors.items()}
    elif len(tensors) == 1:
        word, tensor = next(iter(tensors.items()))
        found = {"text_encoder": tensor}
    else:
        raise AdapterError("the file holds no embedding of one word", given=f"{path}: {', '.join(list(tensors)[:4])}")
    found = {component: tensor[None] if tensor.ndim == 1 else tensor for component, tensor in found.items()}
    _judge(path, found)
    return word, found


def _judge(path: Path, found: Mapping[str, Tensor]) -> None:
    if (
        any(tensor.ndim != 2 or not tensor.numel() for tensor in found.values())
        or len({len(t) for t in found.values()}) != 1
    ):
        raise AdapterError("the embedding has a shape that no word has", given=path, allowed="(vectors, width)")
    if not all(tensor.is_floating_point() and bool(tensor.float().isfinite().all()) for tensor in found.values()):
        raise AdapterError("the embedding holds values that are not finite numbers", given=path)


def write_embedding(path: Path, word: str, found: Mapping[str, Tensor], format: str) -> None:
    """Writes atomically; the numbers are the same, bit for bit, and equal embeddings give equal bytes.

    Raises:
        SettingsError: an unknown format.
        AdapterError: encoders that the format has no names for.
    """
    if format not in FORMATS:
        raise SettingsError("unknown format", given=format, allowed=", ".join(FORMATS))
    keys = {component: key for key, component in COMPONENTS.items()}
    if strange := set(found) - set(keys):
        raise AdapterError("the format has no name for a text encoder", given=", ".join(sorted(strange)))
    alone = A1111 if format == "a1111" else word
    tensors = {alone if len(found) == 1 else keys[component]: tensor for component, tensor in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, files.safetensors_bytes(tensors, {WORD: word}))
    if not all(tensor.equal(open_tensors(path)[0][name]) for name, tensor in tensors.items()):
        kept = files.set_aside(path)
        raise AdapterError("the written file reads differently, so it is set aside", given=word, next=f"look at {kept}")
