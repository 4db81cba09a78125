"""The UNet's layers in Stability's names (`input_blocks`, `middle_block`, `output_blocks`; Stability-AI/generative-models
`openaimodel.py`) and diffusers': both models have two residual blocks a level going down and three going up."""

from __future__ import annotations

import re

from adapt.formats.names.native import Names, Native, native
from adapt.formats.names.words import dotted

_LEVELS = range(4)
_INSIDE = (
    ("emb_layers.1", "time_emb_proj"),
    ("in_layers.2", "conv1"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
"""Of a residual block."""
_ENDS = (
    native("input_blocks.0.0", "conv_in"),
    native("out.2", "conv_out"),
    native("time_embed.0", "time_embedding.linear_1"),
    native("time_embed.2", "time_embedding.linear_2"),
    native("label_emb.0.0", "add_embedding.linear_1"),
    native("label_emb.0.2", "add_embedding.linear_2"),
)


class UNetNames(Names):
    """Names of a UNet's layers; attention layers have the same names inside their block.

    Args:
        first_with_attention: the first level going up that has attention: its upsampler then stands third, not second.
    """

    def __init__(self, first_with_attention: int) -> None:
        super().__init__((*_ENDS, *_residuals(), *(native(*pair) for pair in _samplers(first_with_attention))))

    def of_native(self, name: str, *, underscored: bool = False) -> Native | None:
        """As `Names.of_native`; layers of attention too. Upsamplers are known at either place."""
        if found := super().of_native(name, underscored=underscored):
            return found
        sign = "_" if underscored else "."
        if found_up := re.fullmatch(rf"output_blocks{sign}([258]){sign}[12]{sign}conv", name):
            return native(f"output_blocks.{found_up[1]}.2.conv", f"up_blocks.{int(found_up[1]) // 3}.upsamplers.0.conv")
        for own, module in _attentions():
            if name.startswith(start := own.replace(".", sign) + sign):
                rest = dotted(name.removeprefix(start)) if underscored else name.removeprefix(start)
                return native(f"{own}.{rest}", f"{module}.{rest}")
        return None

    def of_module(self, module: str) -> tuple[Native, int] | None:
        if found := super().of_module(module):
            return found
        for own, start in _attentions():
            if module.startswith(f"{start}."):
                return native(own + module.removeprefix(start), module), 0
        return None


def _residuals() -> tuple[Native, ...]:
    blocks = [(f"input_blocks.{1 + 3 * b + i}.0", f"down_blocks.{b}.resnets.{i}") for b in _LEVELS for i in range(2)]
    blocks += [(f"output_blocks.{3 * b + i}.0", f"up_blocks.{b}.resnets.{i}") for b in _LEVELS for i in range(3)]
    blocks += [("middle_block.0", "mid_block.resnets.0"), ("middle_block.2", "mid_block.resnets.1")]
    return tuple(native(f"{own}.{a}", f"{module}.{b}") for own, module in blocks for a, b in _INSIDE)


def _samplers(first: int) -> list[tuple[str, str]]:
    down = [(f"input_blocks.{3 * (b + 1)}.0.op", f"down_blocks.{b}.downsamplers.0.conv") for b in _LEVELS]
    up = [
        (f"output_blocks.{3 * b + 2}.{2 if b >= first else 1}.conv", f"up_blocks.{b}.upsamplers.0.conv")
        for b in _LEVELS
    ]
    return down + up


def _attentions() -> list[tuple[str, str]]:
    down = [(f"input_blocks.{1 + 3 * b + i}.1", f"down_blocks.{b}.attentions.{i}") for b in _LEVELS for i in range(2)]
    up = [(f"output_blocks.{3 * b + i}.1", f"up_blocks.{b}.attentions.{i}") for b in _LEVELS for i in range(3)]
    return [*down, *up, ("middle_block.1", "mid_block.attentions.0")]


SD_UNET, SDXL_UNET = UNetNames(first_with_attention=1), UNetNames(first_with_attention=0)
