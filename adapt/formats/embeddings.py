"""Embeddings of new words (textual inversion; Gal et al. 2022, arXiv 2208.01618): `embeddings/<word>.safetensors`.

For one text encoder diffusers' file, `{"<me>": (vectors, width)}`, which `pipe.load_textual_inversion` takes as it is. For two,
`{"clip_l": …, "clip_g": …}`, as UIs and diffusers' guides have it for SDXL; the word stands in the header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import files
from adapt.errors import AdapterError
from adapt.formats.opening import open_tensors

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, WORD = "embeddings", "adapt.token"
COMPONENTS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
"""Names of the tensors in a file for two encoders."""
Embeddings = Mapping[str, "Mapping[str, Tensor]"]
"""Word → component → (vectors, width)."""


def file_of(word: str) -> str:
    """`<me>` → `embeddings/me.safetensors`."""
    return f"{FOLDER}/{re.sub(r'[^0-9A-Za-z_-]+', '', word) or 'word'}.safetensors"


def write_embeddings(folder: Path, words: Embeddings) -> None:
    """Writes one file a word below the adapter's folder, atomically; equal embeddings give equal bytes.

    Raises:
        AdapterError: two words of one file name.
    """
    names = [file_of(word) for word in words]
    if len(set(names)) < len(names):
        raise AdapterError("two new words would have the same file", given=", ".join(words), next="rename one of them")
    keys = {component: key for key, component in COMPONENTS.items()}
    for word, found in words.items():
        alone = len(found) == 1
        tensors = {word if alone else keys[component]: tensor for component, tensor in found.items()}
        path = folder / file_of(word)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, files.safetensors_bytes(tensors, {WORD: word}))


def read_embeddings(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The new words of an adapter's folder; none without `embeddings/`.

    Raises:
        AdapterError: a file that is damaged, or holds something else.
    """
    return dict(_read(path) for path in sorted((folder / FOLDER).glob("*.safetensors")))


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    tensors, metadata = open_tensors(path)
    if tensors.keys() == COMPONENTS.keys() and metadata.get(WORD):
        word, found = metadata[WORD], {COMPONENTS[key]: tensor for key, tensor in tensors.items()}
    elif len(tensors) == 1:
        word, tensor = next(iter(tensors.items()))
        found = {"text_encoder": tensor}
    else:
        raise AdapterError("the file holds no embedding of one word", given=f"{path}: {', '.join(list(tensors)[:4])}")
    found = {component: tensor[None] if tensor.ndim == 1 else tensor for component, tensor in found.items()}
    if any(tensor.ndim != 2 for tensor in found.values()) or len({len(tensor) for tensor in found.values()}) != 1:
        raise AdapterError("the embedding has a shape that no word has", given=path, allowed="(vectors, width)")
    if not all(bool(tensor.float().isfinite().all()) for tensor in found.values()):
        raise AdapterError("the embedding holds values that are not finite", given=path)
    return word, found
