"""Flux.1: a flow transformer of double and single blocks, distilled so that guidance is an input (Black Forest Labs 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adapt.backbones.base import Backbone
from adapt.backbones.identity import Shapes, widened
from adapt.backbones.sources import HOLE, latents_of
from adapt.backbones.sources import PART as SOURCE
from adapt.quiet import quiet_libraries
from adapt.types import Sizes
from conditioning import Condition, Part


class Flux(Backbone):
    """T5's tokens, CLIP's pooled state, and the embedded guidance as a fact. 2 × 2 latents are one token of the network. Kontext
    (Black Forest Labs 2025, arXiv 2506.15742) reads the source's tokens behind the noise's, at places of their own; Fill has the
    masked picture and the hole, pixel by pixel, as more channels of each token."""

    family: ClassVar[str] = "flux"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    )
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 1.0
    sampling_steps: ClassVar[int] = 28

    @property
    def embedded_guidance(self) -> float | None:
        own = 30.0 if self.fills else 3.5
        return own if self.config["guidance_embeds"] else None

    def schedule(self, steps: int, dims: Sequence[int]) -> Mapping[str, Any]:
        return {**super().schedule(steps, dims), "sigmas": np.linspace(1.0, 1 / steps, steps)}

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, pooled, _ = self.pipeline.encode_prompt(
                list(captions), prompt_2=None, device=self.device, max_sequence_length=self.max_tokens
            )
        return {"tokens": tokens, "pooled": pooled}  # (B, L, D), (B, P)

    def facts(self, sizes: Sequence[Sizes], guidance: float | None = None) -> Mapping[str, Tensor]:
        """`guidance` (B,), in networks that take it."""
        if self.embedded_guidance is None:
            return {}
        value = self.trained_guidance if guidance is None else guidance
        return {"guidance": torch.full((len(sizes),), value, device=self.device)}

    @property
    def needs_source(self) -> bool:
        """Kontext draws from words alone too."""
        return False

    @property
    def source_of_any_size(self) -> bool:
        return self.edits

    def variants(self, config: Mapping[str, Any], shapes: Shapes) -> Iterable[tuple[Mapping[str, Any], Shapes]]:
        """Plain or filled, each with an embedded guidance (dev) or without (schnell)."""
        widths = (4 * self.latent_channels, 4 * (2 * self.latent_channels + self.scale_factor**2))  # of a token
        for embeds in (True, False):
            yield from widened({**config, "guidance_embeds": embeds}, guided(shapes, embeds), "x_embedder", widths)

    def hole_channels(self, hole: Tensor) -> Tensor:
        """Every pixel that a latent stands for is a channel."""
        return functional.pixel_unshuffle(hole, self.scale_factor)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, (height, width) = self.whole_tokens_of(condition), x_t.shape[-2:]
        x, where = pack(x_t), places(height // 2, width // 2, x_t)
        if self.fills:
            part = condition.parts.get(SOURCE) or self.blank_source(len(x_t), height, width)
            x = torch.cat([x, pack(part["latents"].to(x_t)), pack(part[HOLE].to(x_t))], 2)
        elif (source := latents_of(condition, x_t)) is not None:
            rows, columns = (side // 2 for side in source.shape[-2:])
            x, where = torch.cat([x, pack(source)], 1), torch.cat([where, places(rows, columns, x_t, 1)])
        packed: Tensor = self.denoiser(
            hidden_states=x, timestep=t.to(x_t.dtype) / 1000, guidance=condition.facts.get("guidance"),
            pooled_projections=condition.parts["text"]["pooled"], encoder_hidden_states=tokens,
            txt_ids=x_t.new_zeros(tokens.shape[1], 3), img_ids=where, return_dict=False,
        )[0]  # fmt: skip
        return unpack(packed[:, : height // 2 * (width // 2)], height, width)


TIMES, GUIDANCE = "time_text_embed.timestep_embedder.", "time_text_embed.guidance_embedder."


def guided(shapes: Shapes, embeds: bool) -> Shapes:
    """The same network with what embeds guidance, which is built as what embeds times; or without."""
    own = {name: shape for name, shape in shapes.items() if not name.startswith(GUIDANCE)}
    alike = {name.replace(TIMES, GUIDANCE): shape for name, shape in own.items() if name.startswith(TIMES)}
    return {**own, **alike} if embeds else own


def pack(x: Tensor) -> Tensor:
    """(B, C, H, W) → tokens of 2 × 2 latents (B, H/2 · W/2, 4 C)."""
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h // 2 * (w // 2), 4 * c)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, H/2 · W/2, 4 C) → (B, C, H, W)."""
    b, _, c = tokens.shape
    return (
        tokens.view(b, height // 2, width // 2, c // 4, 2, 2)
        .permute(0, 3, 1, 4, 2, 5)
        .reshape(b, c // 4, height, width)
    )


def places(rows: int, columns: int, like: Tensor, picture: int = 0) -> Tensor:
    """Where each token stands: (rows · columns, 3) of picture, row, column."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.full_like(row, picture), row, column], -1).reshape(-1, 3).to(like)
