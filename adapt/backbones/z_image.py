"""Z-Image: one stream of text and picture, Qwen3 as encoder (Tongyi 2025, arXiv 2511.22699)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class ZImage(Backbone):
    """Its time runs from noise (0) to picture (1), and it predicts picture - noise. Guidance s of its pipeline is s + 1 here."""

    family: ClassVar[str] = "z-image"
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 5.0
    guidance_offset: ClassVar[float] = 1.0

    def schedule(self, steps: int, dims: Sequence[int]) -> Mapping[str, Any]:
        return {**super().schedule(steps, dims), "sigmas": np.linspace(1.0, 1 / steps, steps)}

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():  # the pipeline writes into the list that it is given
            found = self.pipeline._encode_prompt(
                list(captions), device=self.device, max_sequence_length=self.max_tokens
            )
        lengths = [len(tokens) for tokens in found]
        places = torch.arange(max(lengths), device=found[0].device)
        mask = (places < torch.tensor(lengths, device=places.device)[:, None]).long()
        return {"tokens": torch.nn.utils.rnn.pad_sequence(found, batch_first=True), "mask": mask}  # (B, L, D), (B, L)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens, mask = self.tokens_of(condition)
        rows = list(tokens) if mask is None else [row[said.bool()] for row, said in zip(tokens, mask, strict=True)]
        frames = list(x_t.unsqueeze(2).unbind(0))  # (C, 1, H, W) each
        towards_the_picture = self.denoiser(frames, 1 - t.to(x_t.dtype) / 1000, rows, return_dict=False)[0]
        return -torch.stack([row.to(x_t.dtype) for row in towards_the_picture]).squeeze(2)
