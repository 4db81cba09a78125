"""The most memory that some work holds at once: in tensors (real on a GPU, counted elsewhere), and by the whole process."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adapt.training.gauge import memory

GIB = 2**30
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET = "5"
"""What makes Linux take what a process holds now for the most that it has held (`man 5 proc`)."""
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


# ---------------------------------------------------------------------------------------------------- the process
def forget_peak(device: torch.device) -> None:
    """`highest` counts from here on: on CUDA devices and Linux. Elsewhere it goes on counting from the start of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # not Linux, or a container that keeps it to itself
        CLEAR_REFS.write_text(FORGET)


def highest(device: torch.device) -> float:
    """GiB, the most since `forget_peak`: in tensors on a CUDA device; on another accelerator what is held now, since none of
    them keeps a peak; else by the process."""
    return memory(device) if device.type != "cpu" else _most_resident() / GIB


def _most_resident() -> int:
    """Bytes."""
    lines = STATUS.read_text("utf-8").splitlines() if STATUS.is_file() else []
    if found := [line.split()[1] for line in lines if line.startswith("VmHWM:")]:
        return 1024 * int(found[0])
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
