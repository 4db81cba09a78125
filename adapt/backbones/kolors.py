"""Kolors: the UNet of Stable Diffusion XL with ChatGLM3 as its one encoder, for Chinese and English (Kuaishou 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from adapt.backbones.readers import Reader
from adapt.backbones.stable_diffusion_xl import StableDiffusionXL
from adapt.quiet import quiet_libraries
from conditioning import Part


class Kolors(StableDiffusionXL):
    """Captions are padded on the left, and the UNet sees the padding: it has no mask. The pooled state is the last token's."""

    family: ClassVar[str] = "kolors"
    sampling_steps: ClassVar[int] = 50

    @property
    def null_kind(self) -> str:
        return "empty"  # its pipeline has no zeros: with `force_zeros_for_empty_prompt` it fails

    @property
    def readers(self) -> tuple[Reader, ...]:
        return ()

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, _, pooled, _ = self.pipeline.encode_prompt(
                list(captions), device=self.device, do_classifier_free_guidance=False,
                max_sequence_length=self.max_tokens,
            )  # fmt: skip
        return {"tokens": tokens, "pooled": pooled}  # (B, L, D), (B, D)
