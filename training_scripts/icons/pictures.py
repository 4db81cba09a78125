"""What `prepare.py` drew, as tensors. Pictures are uint8 (N, 3, size, size) at rest and float in [-1, 1] at work."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from prepare import Row


@dataclass(frozen=True)
class Drawn:
    """A folder that `prepare.py` wrote: its rows, and their pictures when they are asked for."""

    folder: Path
    size: int
    rows: list[Row]

    @cached_property
    def _stored(self) -> np.ndarray:
        return np.load(self.folder / "pictures.npy", mmap_mode="r")

    def where(self, wanted: Callable[[Row], bool]) -> list[int]:
        """Numbers of the rows that are `wanted`."""
        return [i for i, row in enumerate(self.rows) if wanted(row)]

    def pictures(self, numbers: list[int]) -> torch.Tensor:
        """uint8 (len(numbers), 3, size, size)."""
        return torch.from_numpy(self._stored[numbers]).permute(0, 3, 1, 2).contiguous()


def read(folder: Path) -> Drawn:
    """Reads `rows.json`; pictures stay on disk until they are used."""
    said = json.loads((folder / "rows.json").read_text())
    return Drawn(folder, said["size"], [Row(**row) for row in said["rows"]])


def scaled(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 -> float in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def grid(pictures: torch.Tensor, columns: int) -> Image.Image:
    """Pictures (N, 3, H, W) in [-1, 1] as one image, row by row."""
    rows = [torch.cat(list(row), -1) for row in pictures.split(columns)]
    page = ((torch.cat(rows, -2).clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(page.numpy())
