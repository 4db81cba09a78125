"""How fast a run is and how much memory it takes."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence

import torch

SPAN = 20
"""Steps that the rate is taken over: one step alone jumps about."""


class Gauge:
    """Args:
    batch_size: pictures an optimizer step.
    device: where the model is.
    steps: of the whole run.
    calendar: after which steps what else is done (`measure`, `sample` …), each rising.
    """

    def __init__(
        self, batch_size: int, device: torch.device, steps: int = 0, calendar: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.batch_size, self.device, self.steps, self.calendar = batch_size, device, steps, calendar or {}
        self.lasted: dict[str, float] = {}
        self._seconds: deque[float] = deque(maxlen=SPAN)

    def tick(self, seconds: float) -> None:
        """A step has taken this long."""
        self._seconds.append(seconds)

    @property
    def rate(self) -> float:
        """Pictures a second, over the last steps."""
        seconds = sum(self._seconds)
        return self.batch_size * len(self._seconds) / seconds if seconds else 0.0

    def left(self, step: int) -> float | None:
        """Seconds that the rest of the run takes after a step: its steps as long as the last ones, and each measurement and
        round of previews as long as the one before it; None: nothing is known yet."""
        if not self._seconds:
            return None
        steps = (self.steps - step) * sum(self._seconds) / len(self._seconds)
        rest = {word: len(due) - bisect_right(due, step) for word, due in self.calendar.items()}
        return steps + sum(seconds * rest.get(word, 0) for word, seconds in self.lasted.items())

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
