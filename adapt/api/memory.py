"""The most memory that some work holds in tensors at once: real on a GPU, counted elsewhere."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 2**30
ROOM = {"cuda": 0.95, "cpu": 0.8}
"""Share of the free memory that a run may plan with: the rest is for what no tensor shows."""


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that come and go inside the `with`, backward passes included.

    Attributes:
        now: bytes that are held.
        peak: the most that were held.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def know(self, tensors: Sequence[Tensor]) -> None:
        """Tensors that are there already; they count as held."""
        for tensor in tensors:
            self._take(tensor)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._take(leaf)
        return found

    def _take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(storage)
        weakref.finalize(storage, self._give, size).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _give(self, size: int) -> None:
        self.now -= size


def peak_of(work: Callable[[], object], modules: Sequence[nn.Module], device: torch.device) -> float:
    """The most memory while `work` runs, in GiB, with the weights of these modules; infinite when there is not enough."""
    if device.type == "cuda":
        return _on_gpu(work, device)
    with Counted() as counted:
        counted.know(list(_held(modules)))
        work()
    return float(counted.peak) / GIB


def _on_gpu(work: Callable[[], object], device: torch.device) -> float:
    torch.cuda.reset_peak_memory_stats(device)
    try:
        work()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return float("inf")
    return float(torch.cuda.max_memory_allocated(device)) / GIB


def _held(modules: Sequence[nn.Module]) -> Iterator[Tensor]:
    for module in modules:
        yield from module.parameters()
        yield from module.buffers()


def free(device: torch.device) -> float:
    """GiB that a run may plan with on this machine."""
    if device.type == "cuda":
        unused: float = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        return ROOM["cuda"] * unused / GIB
    import psutil

    return ROOM["cpu"] * float(psutil.virtual_memory().available) / GIB
