"""What the denoiser is told while text encoders are trained: captions encoded anew at every step, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adapt.backbones import Backbone
from adapt.lora import Network
from adapt.types import Sizes
from conditioning import Condition


@dataclass(frozen=True)
class Hearing:
    """Text encoders with their adapters and new words, asked directly: no cache knows what they say now.

    Attributes:
        backbone: whose encoders.
        network: what is trained in them.
    """

    backbone: Backbone
    network: Network

    def learn(self, captions: Sequence[str], sizes: Sequence[Sizes] | None = None) -> Condition:
        """One row a caption, one caption a position of the batch: with gradients and dropout as long as they learn.

        Args:
            sizes: of each picture, for the facts; None: whole pictures of the base's own size.
        """
        if not self.network.listens:
            return self(captions, sizes)
        with self.network.practising():
            return self._said(captions, sizes)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], sizes: Sequence[Sizes] | None = None) -> Condition:
        """One row a caption, as the adapter will be used."""
        return self._said(captions, sizes)

    @torch.no_grad()
    def base(self, captions: Sequence[str], sizes: Sequence[Sizes] | None = None) -> Condition:
        """One row a caption, as the base itself has it."""
        with self.network.disabled():
            return self._said(captions, sizes)

    def _said(self, captions: Sequence[str], sizes: Sequence[Sizes] | None = None) -> Condition:
        backbone = self.backbone
        return backbone.assembled(backbone.encode_text(captions), sizes).to(backbone.device, backbone.dtype)
