"""Latents of a video's autoencoder, normalised channel by channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapt.backbones.media import posterior


@contextmanager
def same_noise(device: torch.device) -> Iterator[None]:
    """What draws from torch's global generators draws the same every time, inside the `with`, and leaves them as they were: the
    decoders of some video models (LTX-Video from 0.9.1 on) add noise of one picture, for all rows and frames alike."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


class ByChannel:
    """`encode_media` and `decode` of families whose autoencoder tells a mean and a standard deviation of each channel.

    A mixin, before `Backbone`. Its family says what they are in `statistics`, and what its decoder is told in `decoder_told`.
    """

    if TYPE_CHECKING:
        pipeline: Any

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, (C,) each."""
        config = self.pipeline.vae.config
        return torch.tensor(config.latents_mean), torch.tensor(config.latents_std)

    def decoder_told(self, latents: Tensor) -> tuple[Any, ...]:
        """What the decoder is given behind these latents."""
        return ()

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, T, H, W) in [-1, 1] → mean and standard deviation of the latents, each (B, C, *dims)."""
        vae = self.pipeline.vae
        mean, std = posterior(vae.encode(pixels.to(vae.device, vae.dtype)))
        shift, scale = self._broadcast(mean)
        return (mean - shift) / scale, std / scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, *dims) → pixels (B, 3, T, H, W) in about [-1, 1]."""
        vae = self.pipeline.vae
        shift, scale = self._broadcast(latents.to(vae.dtype))
        given = latents.to(vae.dtype) * scale + shift
        with same_noise(given.device):
            pixels: Tensor = vae.decode(given, *self.decoder_told(given), return_dict=False)[0]
        return pixels

    def _broadcast(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (values.view(1, -1, 1, 1, 1).to(like) for values in self.statistics())
        return mean, std
