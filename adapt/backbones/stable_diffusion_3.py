"""Stable Diffusion 3 and 3.5: a transformer in which text and picture attend to each other (Esser et al. 2024, arXiv
2403.03206)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.columns import NOTHING, Span, columns_of
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class StableDiffusion3(Backbone):
    """Two CLIP encoders and a T5, which may be missing: its tokens are then zeros, as in the pipeline."""

    family: ClassVar[str] = "stable-diffusion-3"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 7.0
    sampling_steps: ClassVar[int] = 28

    @property
    def largest(self) -> int | None:
        positions: int = self.config["pos_embed_max_size"]
        return positions * self.multiple

    @property
    def idle(self) -> tuple[str, ...]:
        # The last block throws the text away: what text asks there has no effect.
        return (f"transformer_blocks.{self.config['num_layers'] - 1}.attn.add_q_proj",)

    def encode_text(self, captions: Sequence[str]) -> Part:
        texts = list(captions)
        with quiet_libraries():
            tokens, _, pooled, _ = self.pipeline.encode_prompt(
                texts, texts, texts, device=self.device, do_classifier_free_guidance=False,
                max_sequence_length=self.max_tokens,
            )  # fmt: skip
        return {"tokens": tokens, "pooled": pooled}  # (B, 77 + L, D), (B, P)

    def columns(self, caption: str) -> Sequence[Span]:
        """CLIP's, padded, then T5's, where there is one."""
        clip = columns_of(self.pipeline, "tokenizer", caption)
        t5 = super().columns(caption) if self.pipeline.tokenizer_3 is not None else []
        return [*clip, *[NOTHING] * (self.pipeline.tokenizer_max_length - len(clip)), *t5]

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        prediction: Tensor = self.denoiser(
            hidden_states=x_t, timestep=t, encoder_hidden_states=self.whole_tokens_of(condition),
            pooled_projections=condition.parts["text"]["pooled"], return_dict=False,
        )[0]  # fmt: skip
        return prediction
