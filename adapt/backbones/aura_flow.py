"""AuraFlow: a flow transformer with two streams first and one after, Pile-T5 as encoder (fal 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import ClassVar

from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class AuraFlow(Backbone):
    """Tokens behind the caption's end are zeros, which the network sees: it has no mask. Positions are learned, for a square
    of so many tokens a side."""

    family: ClassVar[str] = "aura-flow"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 3.5
    sampling_steps: ClassVar[int] = 50
    full_precision: ClassVar[tuple[str, ...]] = ("vae",)

    @property
    def largest(self) -> int | None:
        return isqrt(self.config["pos_embed_max_size"]) * self.multiple

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, *_ = self.pipeline.encode_prompt(
                list(captions), do_classifier_free_guidance=False, device=self.device,
                max_sequence_length=self.max_tokens,
            )  # fmt: skip
        return {"tokens": tokens}  # (B, L, D)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        prediction: Tensor = self.denoiser(
            x_t, encoder_hidden_states=self.whole_tokens_of(condition), timestep=t.to(x_t.dtype) / 1000,
            return_dict=False,
        )[0]  # fmt: skip
        return prediction
