"""What `prepare.py` wrote, as tensors. Pictures are uint8 (N, 3, 64, 64) at rest and float in [-1, 1] at work."""

import json
from pathlib import Path

import numpy as np
import torch
from iconify import CATEGORIES
from PIL import Image


def load(data: Path, sets: list[str]) -> torch.Tensor:
    """All pictures of `sets`, one after another: uint8 (N, 3, 64, 64)."""
    arrays = [np.load(data / f"{name}.npz")["pictures"] for name in sets]
    return torch.from_numpy(np.concatenate(arrays)).permute(0, 3, 1, 2).contiguous()


def learned(data: Path, name: str) -> tuple[list[str], torch.Tensor]:
    """Captions and pictures of the icons that the denoiser learns: those of `CATEGORIES`."""
    labels: list[tuple[str, str]] = json.loads((data / f"{name}.json").read_text())
    rows = [i for i, (_, category) in enumerate(labels) if category in CATEGORIES]
    return [labels[i][0] for i in rows], load(data, [name])[rows]


def scaled(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 -> float in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def grid(pictures: torch.Tensor, columns: int) -> Image.Image:
    """Pictures (N, 3, H, W) in [-1, 1] as one image, row by row."""
    rows = [torch.cat(list(row), -1) for row in pictures.split(columns)]
    page = ((torch.cat(rows, -2).clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(page.numpy())
