"""One face for all of diffusers' schedulers, which differ in what their methods take."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor

from adapt.errors import SettingsError
from adapt.sampling.axes import AS_HERE, Axes


class Stepper:
    """A fresh scheduler, set to a number of steps, for one batch.

    Args:
        scheduler: from `schedulers.build`; moved by this loop alone.
        steps: inference steps, 1 … the number of training times.
        generators: one a picture, for schedulers that add noise on the way.
        device: where the latents are.
        eta: share of DDPM's noise that DDIM adds on the way, 0 … 1 (arXiv 2010.02502, eq. 16).
        told: what the family tells its own scheduler beside the number of steps (`Backbone.schedule`); of it, each takes what
            it knows.
        axes: the order in which the family's pipeline hands latents to its scheduler, which draws noise of that shape.

    Raises:
        SettingsError: the scheduler cannot make that many steps.
    """

    def __init__(
        self,
        scheduler: Any,
        steps: int,
        generators: Sequence[torch.Generator],
        device: torch.device,
        eta: float = 0.0,
        told: Mapping[str, Any] | None = None,
        axes: Axes = AS_HERE,
    ) -> None:
        self.scheduler, self.steps, self.axes = scheduler, steps, axes
        try:
            _set_times(scheduler, steps, device, told or {})
        except ValueError as error:
            message = f"{type(scheduler).__name__} cannot make so many steps: {error}"
            raise SettingsError(message, given=steps) from error
        self.order = int(getattr(scheduler, "order", 1))
        self._noise = {"generator": list(generators), "eta": eta}
        self._takes = set(inspect.signature(scheduler.step).parameters)
        self._before: dict[str, Any] = dict.fromkeys(("old_pred_original_sample", "timestep_back"))  # CogVideoX's DPM

    @property
    def times(self) -> Tensor:
        """Every call of the denoiser: (steps · order,) or so; falling."""
        times: Tensor = self.scheduler.timesteps
        return times

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of pure noise in the scheduler's own scale."""
        return float(getattr(self.scheduler, "init_noise_sigma", 1.0))

    def times_from(self, strength: float) -> Tensor:
        """The last `strength` of the way; the scheduler then begins there.

        Raises:
            SettingsError: steps × strength is less than one step.
        """
        made = min(int(self.steps * strength), self.steps)
        if made < 1:
            raise SettingsError("steps × strength is less than one step: nothing would change",
                                given=f"{self.steps} × {strength}", next=f"--steps {ceil(1 / strength)}")  # fmt: skip
        begin = (self.steps - made) * self.order
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(begin)
        return self.times[begin:]

    def scaled(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the denoiser is shown."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return x_t
        scaled: Tensor = self.scheduler.scale_model_input(x_t, t)
        return scaled

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t in the scheduler's own scale; t is a scalar of `times`."""
        t = t.expand(len(x))
        if hasattr(self.scheduler, "scale_noise"):
            flow: Tensor = self.scheduler.scale_noise(x, t, noise)
            return flow
        x_t: Tensor = self.scheduler.add_noise(x, noise, t)
        return x_t

    def step(self, prediction: Tensor, t: Tensor, x_t: Tensor) -> Tensor:
        """One step towards the clean x: (B, C, *dims) → the same shape."""
        known = {**self._noise, **self._before}
        extra = {name: value for name, value in known.items() if name in self._takes}
        said, laid = self.axes.theirs(prediction), self.axes.theirs(x_t)
        x, *more = self.scheduler.step(model_output=said, timestep=t, sample=laid, return_dict=False, **extra)
        self._before = {"old_pred_original_sample": more[0] if more else None, "timestep_back": t}
        return self.axes.ours(x)


def _set_times(scheduler: Any, steps: int, device: torch.device, told: Mapping[str, Any]) -> None:
    """`set_timesteps` with what of `told` this scheduler takes."""
    takes = inspect.signature(scheduler.set_timesteps).parameters
    known = {name: value for name, value in told.items() if name in takes}
    if not scheduler.config.get("use_flow_sigmas", True):
        known.pop("sigmas", None)
    scheduler.set_timesteps(steps, device=device, **known)
