"""Adapter files: one file a dialect and one a kind of adapter, pure functions on named tensors and metadata. The dialect is
told by the keys."""

from __future__ import annotations

from adapt.formats.dialects import read
from adapt.formats.diffusers_lora import FILE_NAME, read_lora, write_lora
from adapt.formats.dora import Dora
from adapt.formats.kinds import KINDS
from adapt.formats.kohya import read_kohya, write_kohya
from adapt.formats.layer import Layer
from adapt.formats.loha import LoHa
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import LoraWeights, Pair
from adapt.formats.peft_folder import read_peft, write_peft

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
