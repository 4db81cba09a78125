"""Names of layers of text encoders. transformers 5.6 took `text_model` out of CLIP's names; files keep it, as every version of
diffusers and every other program reads them with it. Here they are without."""

from __future__ import annotations

import re

MIDDLE = "text_model."
CLIP = re.compile(rf"({re.escape(MIDDLE)})?encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")
"""All that diffusers looks for in a text encoder."""


def is_encoder(component: str) -> bool:
    """`text_encoder`, `text_encoder_2` …"""
    return component.startswith("text_encoder")


def in_files(component: str, name: str) -> str:
    """`encoder.layers.0.mlp.fc1` → `text_model.encoder.layers.0.mlp.fc1`, in CLIP."""
    return MIDDLE + name if is_encoder(component) and CLIP.match(name) else name


def in_memory(component: str, name: str) -> str:
    """The reverse of `in_files`."""
    return name.removeprefix(MIDDLE) if is_encoder(component) else name


def by_diffusers(component: str, name: str) -> bool:
    """Whether diffusers' LoRA loader takes such a layer: of a text encoder, CLIP's only."""
    return not is_encoder(component) or CLIP.match(name) is not None
