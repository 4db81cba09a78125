"""Sana: linear attention on latents of an autoencoder that takes 32 px for one (Xie et al. 2024, arXiv 2410.10629)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.backbones.columns import NOTHING, Span, spans_of
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class Sana(Backbone):
    """Captions are put after the sentences of instruction that its pipeline puts before every prompt; the null is not."""

    family: ClassVar[str] = "sana"
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 4.5
    sampling_steps: ClassVar[int] = 20

    @cached_property
    def instruction(self) -> list[str] | None:
        """The pipeline's own, so that captions are read in training as prompts are in drawing."""
        found: list[str] | None
        found = inspect.signature(self.pipeline.__call__).parameters["complex_human_instruction"].default
        return found

    def encode_text(self, captions: Sequence[str]) -> Part:
        if any(captions) and not all(captions):
            parts = [self.encode_text([caption]) for caption in captions]
            return Condition.cat([Condition({"text": part}) for part in parts]).parts["text"]
        with quiet_libraries():
            tokens, mask, _, _ = self.pipeline.encode_prompt(
                list(captions), False, device=self.device, max_sequence_length=self.max_tokens,
                complex_human_instruction=self.instruction if all(captions) else None,
            )  # fmt: skip
        return {"tokens": tokens, "mask": mask}  # (B, L, D), (B, L)

    def columns(self, caption: str) -> Sequence[Span]:
        """The instruction is read and then left out: the first token stays, and as many of the last as captions have."""
        reader, limit = self.pipeline.tokenizer, int(self.max_tokens or 300)
        before = "\n".join(self.instruction or [])
        text = caption.strip()
        longest = len(reader.encode(before)) + limit - 2 if before else limit
        spans = spans_of(reader, before + text.lower(), longest)
        spans += [NOTHING] * (longest - len(spans))
        back = len(caption) - len(caption.lstrip()) - len(before)
        found = [(a + back, b + back) if b > a >= len(before) else NOTHING for a, b in spans]
        return [found[0], *found[len(found) - limit + 1 :]]

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, mask = self.tokens_of(condition)
        both: Tensor = self.denoiser(
            x_t, encoder_hidden_states=tokens, encoder_attention_mask=mask,
            timestep=t.to(x_t.dtype) * self.config["timestep_scale"], return_dict=False,
        )[0]  # fmt: skip
        return both[:, : x_t.shape[1]]
