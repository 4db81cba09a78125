"""How fast a run is and how much memory it takes."""

from __future__ import annotations

from collections import deque

import torch

SPAN = 20
"""Steps that the rate is taken over: one step alone jumps about."""


class Gauge:
    """Args:
    batch_size: pictures an optimizer step.
    device: where the model is.
    """

    def __init__(self, batch_size: int, device: torch.device) -> None:
        self.batch_size, self.device = batch_size, device
        self._seconds: deque[float] = deque(maxlen=SPAN)

    def tick(self, seconds: float) -> None:
        """A step has taken this long."""
        self._seconds.append(seconds)

    @property
    def rate(self) -> float:
        """Pictures a second, over the last steps."""
        seconds = sum(self._seconds)
        return self.batch_size * len(self._seconds) / seconds if seconds else 0.0

    @property
    def memory(self) -> float:
        """GiB: the most that was held on a GPU, else what the process holds now."""
        return memory(self.device)


def memory(device: torch.device) -> float:
    """GiB: the most that was held on a CUDA device, what is held on another accelerator, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 2**30
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**30
