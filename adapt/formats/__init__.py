"""Adapter files: one file a dialect and one a kind of adapter, pure functions on named tensors and metadata. The dialect is
told by the keys."""

from __future__ import annotations

from pathlib import Path

from adapt.formats.diffusers_lora import FILE_NAME, read_lora, write_lora
from adapt.formats.dora import Dora
from adapt.formats.kinds import KINDS
from adapt.formats.kohya import is_kohya, read_kohya, write_kohya
from adapt.formats.layer import Layer
from adapt.formats.loha import LoHa
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import LoraWeights, Pair
from adapt.formats.opening import check_file
from adapt.formats.peft_folder import is_peft, read_peft, write_peft


def read(path: Path) -> LoraWeights:
    """Reads and judges an adapter file of any dialect that is known here, told by its keys.

    Raises:
        AdapterError: see `read_lora`, `read_kohya` and `read_peft`.
    """
    names = check_file(path)
    reader = read_kohya if is_kohya(names) else read_peft if is_peft(names) else read_lora
    return reader(path)


__all__ = [
    "FILE_NAME",
    "KINDS",
    "Dora",
    "Layer",
    "LoHa",
    "LoKr",
    "LoraWeights",
    "Pair",
    "read",
    "read_kohya",
    "read_lora",
    "read_peft",
    "write_kohya",
    "write_lora",
    "write_peft",
]
