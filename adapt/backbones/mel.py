"""Mel spectrograms as AudioLDM's autoencoder is trained on them (Liu et al. 2023, arXiv 2301.12503, section 4): those of HiFi-GAN
(Kong et al. 2020, arXiv 2010.05646)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.quiet import quiet_libraries

PEAK = 0.5
QUIETEST = 1e-5


@dataclass(frozen=True)
class Mel:
    """Logarithms of how loud each band of frequencies is in each frame.

    Attributes:
        rate: samples a second.
        bands: evenly spread on Slaney's mel scale from 0 to `highest` Hz, each of the same area.
        window: samples that are heard at once, under a Hann window.
        hop: samples from one frame to the next.
    """

    rate: int = 16000
    bands: int = 64
    highest: float = 8000.0
    window: int = 1024
    hop: int = 160

    def __call__(self, samples: Tensor) -> Tensor:
        """(B, N) in [-1, 1], N a multiple of the hop → (B, N / hop, bands), fp32; each row is first brought to a peak of 0.5."""
        edge = (self.window - self.hop) // 2
        heard = F.pad(_levelled(samples.float())[:, None], (edge, edge), mode="reflect")[:, 0]
        under = torch.hann_window(self.window, device=samples.device)
        spectrum = torch.stft(heard, self.window, self.hop, window=under, center=False, return_complex=True).abs()
        bands = filters(self).to(samples.device)
        return (spectrum.transpose(1, 2) @ bands).clamp(min=QUIETEST).log()


def _levelled(samples: Tensor) -> Tensor:
    """Rows around 0 whose largest value is `PEAK`; silence stays."""
    around = samples - samples.mean(1, keepdim=True)
    return around / (around.abs().amax(1, keepdim=True) + 1e-8) * PEAK


@cache
def filters(mel: Mel) -> Tensor:
    """(window / 2 + 1, bands): what each frequency adds to each band."""
    with quiet_libraries():
        from transformers.audio_utils import mel_filter_bank

        found = mel_filter_bank(
            mel.window // 2 + 1, mel.bands, 0.0, mel.highest, mel.rate, norm="slaney", mel_scale="slaney"
        )
    return torch.from_numpy(found).float()
