"""Chroma: Flux.1 schnell made smaller and trained again without distillation, one text encoder (lodestones 2025)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from adapt.backbones.base import Backbone
from adapt.backbones.flux import Flux, pack, places, unpack
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class Chroma(Backbone):
    """T5's tokens, with a mask that leaves one token of padding in. As in diffusers' pipeline, the mask is *added* to the
    attention: 1 for a token that counts, 0 for another, which is seen less and still seen (diffusers issue 12116)."""

    family: ClassVar[str] = "chroma"
    lora_targets: ClassVar[tuple[str, ...]] = Flux.lora_targets
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 5.0
    sampling_steps: ClassVar[int] = 35

    def schedule(self, steps: int, dims: Sequence[int]) -> Mapping[str, Any]:
        return {**super().schedule(steps, dims), "sigmas": np.linspace(1.0, 1 / steps, steps)}

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, _, mask, *_ = self.pipeline.encode_prompt(
                list(captions), device=self.device, do_classifier_free_guidance=False,
                max_sequence_length=self.max_tokens,
            )  # fmt: skip
        return {"tokens": tokens, "mask": mask}  # (B, L, D), (B, L)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        (tokens, mask), (height, width) = self.tokens_of(condition), x_t.shape[-2:]
        image = pack(x_t)
        counts = torch.ones(image.shape[:2], dtype=x_t.dtype, device=x_t.device)
        said = torch.ones_like(tokens[..., 0]) if mask is None else mask
        seen = torch.cat([said.to(counts), counts], 1)
        with masked_when_computed_again(self.modules[self.denoiser_name], seen):
            packed: Tensor = self.denoiser(
                hidden_states=image, timestep=t.to(x_t.dtype) / 1000, encoder_hidden_states=tokens, attention_mask=seen,
                txt_ids=x_t.new_zeros(tokens.shape[1], 3), img_ids=places(height // 2, width // 2, x_t),
                return_dict=False,
            )[0]  # fmt: skip
        return unpack(packed, height, width)


@contextmanager
def masked_when_computed_again(network: nn.Module, seen: Tensor) -> Iterator[None]:
    """diffusers forgets the mask of the single blocks where it checkpoints gradients: it is told inside the `with`.

    Args:
        seen: (B, text + image tokens).
    """
    checkpointed: Callable[..., Any] | None = getattr(network, "_gradient_checkpointing_func", None)
    if checkpointed is None or not getattr(network, "gradient_checkpointing", False):
        yield
        return

    def masked(block: nn.Module, *given: Any) -> Any:
        # A block of two streams is given five things, the mask last; a single one is given three.
        return checkpointed(block, *given, seen) if len(given) == 3 else checkpointed(block, *given)

    network._gradient_checkpointing_func = masked  # type: ignore[assignment]
    try:
        yield
    finally:
        network._gradient_checkpointing_func = checkpointed  # type: ignore[assignment]
