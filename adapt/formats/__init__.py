"""Adapter files: one file a dialect, pure functions on named tensors and metadata."""

from adapt.formats.diffusers_lora import FILE_NAME, read_lora, write_lora
from adapt.formats.lora_weights import LoraWeights, Pair

__all__ = ["FILE_NAME", "LoraWeights", "Pair", "read_lora", "write_lora"]
