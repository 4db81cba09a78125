"""What the training scripts share: a budget, a learning rate, an averaged copy, a log, and going on after a stop.

Under `torchrun` every process takes its own rows and gradients are averaged: two processes of one thread each are faster on
two cores than one process of two threads.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

LOG_EVERY = 100
SAVE_EVERY = 200


def learning_rate(step: int, spent: float, *, peak: float, warmup: int, flat: float, floor: float) -> float:
    """Warm-up over `warmup` steps, `peak` until the share `flat` of the budget is spent, then a cosine to the floor."""
    fall = max(0.0, (spent - flat) / (1 - flat))
    return peak * min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fall)))


def join() -> tuple[int, int]:
    """(rank, processes): joins the others when `torchrun` has started this process."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


class Run:
    """Training of `model` in `folder` until `seconds` or `samples` are spent.

    The same command goes on where a stopped run left its state (every SAVE_EVERY steps); random numbers are drawn anew.
    `batch` is that of one process; `samples` are those of all.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        batch: int,
        seconds: float,
        samples: int | None,
        decay: float,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.optimizer = folder, model, optimizer
        self.rank, self.processes = join()
        self.batch, self.seconds, self.samples, self.decay = batch * self.processes, seconds, samples, decay
        self.average = {key: value.clone() for key, value in model.state_dict().items()}
        self.step, self.elapsed, self.losses = 0, 0.0, list[float]()
        if self._state.exists():
            self._restore()
        torch.manual_seed(self.step * self.processes + self.rank)  # other rows in every process, and after a stop

    @property
    def _state(self) -> Path:
        return self.folder / "state.safetensors"

    def steps(self) -> Iterator[float]:
        """Yields the spent share of the budget, in [0, 1), before every step."""
        started = time.monotonic() - self.elapsed
        while True:
            self.elapsed = time.monotonic() - started
            spent = self.elapsed / self.seconds
            if self.samples:
                spent = max(spent, self.step * self.batch / self.samples)
            spent = self._agreed(spent)
            if spent >= 1:
                return
            yield spent

    def _agreed(self, spent: float) -> float:
        """The first process's clock counts, so that all stop after the same step."""
        if self.processes == 1:
            return spent
        value = torch.tensor([spent], dtype=torch.float64)
        dist.broadcast(value, 0)
        return value.item()

    def _share_gradients(self) -> None:
        """The mean over processes, in one message."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for g, mean in zip(gradients, (flat / self.processes).split([g.numel() for g in gradients]), strict=True):
            g.copy_(mean.view_as(g))

    def update(self, loss: torch.Tensor, rate: float, clip: float = math.inf) -> None:
        """One optimizer step on a scalar loss; the averaged copy follows."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.processes > 1:
            self._share_gradients()
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], clip)
        self.optimizer.step()
        self._follow()
        self.losses.append(loss.item())
        if self.step % LOG_EVERY == 0 and self.rank == 0:
            self._log(rate)
        self.step += 1
        if self.step % SAVE_EVERY == 0 and self.rank == 0:
            self._save()

    def finish(self) -> None:
        """Puts the averaged weights into the model, for good."""
        if self.rank == 0:
            self._save()
        print(f"done: {self.step} steps, {self.step * self.batch} samples, {self.elapsed:.0f} s", flush=True)
        self.model.load_state_dict(self.average)
        self.model.eval()

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.decay, (self.step + 1) / (self.step + 10))  # a young average forgets its random start
        for key, value in self.model.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)  # what is frozen stays equal to the bit

    def _log(self, rate: float) -> None:
        loss, self.losses = sum(self.losses) / len(self.losses), []
        seen = (self.step + 1) * self.batch
        line = {
            "step": self.step,
            "seconds": round(self.elapsed),
            "loss": round(loss, 4),
            "rate": rate,
            "samples": seen,
        }
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(f"step {self.step}  {self.elapsed:.0f} s  loss {loss:.4f}  rate {rate:.1e}  {seen} samples", flush=True)

    def _save(self) -> None:
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.average.items()}
        tensors |= {f"moment.{i}.{key}": value for i, state in moments.items() for key, value in state.items()}
        beside = self._state.with_suffix(".part")
        facts = {"step": str(self.step), "elapsed": str(self.elapsed)}
        save_file({key: value.contiguous() for key, value in tensors.items()}, beside, metadata=facts)
        beside.replace(self._state)

    def _restore(self) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "average": {}, "moment": {}}
        with safe_open(self._state, framework="pt") as file:
            facts = file.metadata()
            for key in file.keys():  # noqa: SIM118  (safe_open is no dict)
                part, name = key.split(".", 1)
                parts[part][name] = file.get_tensor(key)
        self.step, self.elapsed = int(facts["step"]), float(facts["elapsed"])
        self.model.load_state_dict(parts["model"])
        self.average = parts["average"]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in parts["moment"].items():
            i, key = name.split(".", 1)
            moments.setdefault(int(i), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

        print(f"going on from step {self.step} after {self.elapsed:.0f} s", flush=True)
