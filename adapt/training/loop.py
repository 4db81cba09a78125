"""The loop around the step: accumulate, clip, update, average, measure, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adapt import files
from adapt.errors import Stopped, TrainingError
from adapt.evaluation.held_out import HeldOut, Measurement, compare
from adapt.formats import LoraWeights, write_lora
from adapt.objectives import Objective, Target
from adapt.progress import Progress
from adapt.training import checkpoint, optimizer
from adapt.training.average import Average
from adapt.training.checkpoint import State
from adapt.training.events import Events
from adapt.training.signals import StopRequest
from adapt.training.step import Course, pieces, row_losses

if TYPE_CHECKING:
    from accelerate import Accelerator

Preview = Callable[[int], None]
"""`preview(step)` draws with the weights that the backbone now holds."""


@dataclass(frozen=True)
class Judge:
    """How held-out pictures are measured.

    Attributes:
        objective: with the family's own times and even weights, so that runs with other weights can be compared.
        target: what is right: the pictures, and above `anchor_above` the base.
        base: the base's losses.
    """

    pictures: HeldOut
    objective: Objective
    target: Target
    base: list[float]


@dataclass
class Trainer:
    """One run's moving parts.

    Attributes:
        course: what stays the same.
        accelerator: device, precision, processes.
        folder: the run's.
        judge: None without held-out pictures.
        preview: None on processes other than the first.
    """

    course: Course
    accelerator: Accelerator
    folder: Path
    judge: Judge | None = None
    preview: Preview | None = None
    step: int = 0
    measurements: list[Measurement] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings, injection = self.course.settings, self.course.injection
        self.names = list(injection.parameters)
        self.parameters = list(injection.parameters.values())
        self.optimizer = optimizer.make(settings, self.parameters)
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=settings.precision == "fp16")
        self.learning_rate = optimizer.learning_rate(settings)
        self.average = Average(injection.parameters, settings.ema)
        main = self.accelerator.is_main_process
        self.events = Events(self.folder if main else None)

    # ------------------------------------------------------------------------------------------------ one step
    def take_step(self) -> float:
        """One optimizer step over the global batch; returns its mean loss.

        Raises:
            TrainingError: loss or gradient is not finite; nothing is applied.
        """
        course, processes = self.course, self.accelerator.num_processes
        total = torch.zeros((), dtype=torch.float64)
        mine = pieces(course.settings, self.accelerator.process_index, processes)
        for number, positions in enumerate(mine):
            with self._unsynced() if number < len(mine) - 1 else nullcontext():
                with self.accelerator.autocast():
                    losses = row_losses(course, course.plan.rows(self.step, positions))
                # DDP takes the mean over processes, and the loss is the mean over the global batch.
                self.scaler.scale(losses.sum() * processes / course.settings.batch_size).backward()
            total += losses.detach().double().cpu().sum()
        if processes > 1:
            total = self.accelerator.reduce(total.to(self.accelerator.device), "sum")
        loss = float(total) / course.settings.batch_size
        self._update(loss)
        return loss

    def _unsynced(self) -> Any:
        return self.accelerator.no_sync(self.course.backbone.denoiser)

    def _update(self, loss: float) -> None:
        self.scaler.unscale_(self.optimizer)
        norm = optimizer.clip(self.parameters, self.course.settings.max_grad_norm)
        # fp16 gradients overflow now and then: the scaler skips such a step and lowers its scale.
        if not math.isfinite(loss) or (math.isnan(norm) and not self.scaler.is_enabled()):
            self._complain(loss)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update()
        self.step += 1

    def _complain(self, loss: float) -> None:
        course = self.course
        rows = course.plan.rows(self.step, range(course.settings.batch_size))
        names = ", ".join(sorted({course.examples.pictures[i].name for i in rows.items()})[:8])
        raise TrainingError(
            f"the {'gradient' if math.isfinite(loss) else 'loss'} of step {self.step + 1} is not finite",
            given=f"learning_rate {course.settings.learning_rate}, seed {course.settings.seed}, pictures {names}",
            next="lower learning_rate; the last checkpoint is untouched, and --resume goes on from it",
        )

    # ------------------------------------------------------------------------------------------------ the run
    def run(self, stop: StopRequest, resume_command: str) -> None:
        """Trains from `self.step` to the end.

        Raises:
            Stopped: a signal came; the step is finished and its checkpoint saved.
        """
        settings = self.course.settings
        self.course.backbone.denoiser.train()
        if self.step == 0:
            self._look(0)
        with Progress("training", settings.steps) as progress:
            progress.start_at(self.step)
            while self.step < settings.steps:
                started = time.perf_counter()
                loss = self.take_step()
                seconds = time.perf_counter() - started
                self._record(loss, seconds)
                self._look(self.step)
                self._show(loss, seconds, progress)
                stopped = self._stopped(stop)
                if stopped or self.step % settings.save_every == 0 or self.step == settings.steps:
                    self.save()
                if stopped and self.step < settings.steps:
                    raise Stopped(
                        stopped,
                        f"stopped after step {self.step} of {settings.steps}; its checkpoint is saved",
                        next=resume_command,
                    )

    def _record(self, loss: float, seconds: float) -> None:
        values = {"step": self.step, "loss": loss, "learning_rate": self.learning_rate(self.step - 1)}
        self.events.add("step", {**values, "seconds": round(seconds, 4)})

    def _show(self, loss: float, seconds: float, progress: Progress) -> None:
        speed = self.course.settings.batch_size / seconds
        if self.accelerator.is_main_process:
            progress(self.step, note=f"loss {loss:.4f}, {speed:.1f} pictures/s{self._standing()}")

    def _standing(self) -> str:
        return f", held-out {self.measurements[-1].ratio:.3f} of base" if self.measurements else ""

    def _stopped(self, stop: StopRequest) -> int:
        """The signal that any process was sent; all agree, so that all stop after the same step."""
        if self.accelerator.num_processes == 1:
            return stop.number
        number = torch.tensor([stop.number], device=self.accelerator.device)
        return int(self.accelerator.gather(number).max())

    def _look(self, step: int) -> None:
        """Measures, snapshots and previews when they are due."""
        settings, last = self.course.settings, step == self.course.settings.steps
        measure = self.judge is not None and (step % settings.validate_every == 0 or last)
        preview = self.preview is not None and step > 0 and (step % settings.preview_every == 0 or last)
        snapshot = step > 0 and (measure or step % settings.save_every == 0 or last)
        if not (measure or preview or snapshot):
            return
        with self.course.injection.holding(self.average.values):
            if measure and self.judge is not None:
                self._measure(self.judge, step)
            if preview and self.preview is not None:
                self.preview(step)
        if snapshot and self.accelerator.is_main_process:
            self.write_snapshot(step)

    def _measure(self, judge: Judge, step: int) -> None:
        losses = judge.pictures.losses(self.course.backbone, judge.objective, judge.target)
        measurement = compare(step, losses, judge.base)
        if not math.isfinite(measurement.loss):
            raise TrainingError(
                f"the held-out loss at step {step} is not finite",
                given=f"learning_rate {self.course.settings.learning_rate}",
                next="lower learning_rate; the last checkpoint is untouched, and --resume goes on from it",
            )
        self.measurements.append(measurement)
        self.events.add("validation", measurement.as_dict())

    # ------------------------------------------------------------------------------------------------ files
    def snapshot_path(self, step: int) -> Path:
        return self.folder / "snapshots" / f"{checkpoint.name(step)}.safetensors"

    def write_snapshot(self, step: int) -> None:
        """The average as a LoRA file of its own."""
        path = self.snapshot_path(step)
        path.parent.mkdir(exist_ok=True)
        backbone, injection = self.course.backbone, self.course.injection
        weights = LoraWeights({backbone.denoiser_name: injection.pairs(self.average.values)})
        write_lora(path, weights, {backbone.denoiser_name: injection.config.to_dict()})

    def save(self) -> None:
        """A resume state of this step."""
        if self.accelerator.is_main_process:
            state = State(
                step=self.step,
                parameters={n: p.detach().clone() for n, p in zip(self.names, self.parameters, strict=True)},
                average={n: v.clone() for n, v in self.average.values.items()},
                optimizer=checkpoint.optimizer_state(self.optimizer, self.names),
                measurements=[m.as_dict() for m in self.measurements],
                scaler=self.scaler.state_dict(),
            )
            checkpoint.save(self.folder, state)
            self.events.add("checkpoint", {"step": self.step})
        self.accelerator.wait_for_everyone()

    def restore(self, state: State) -> None:
        """Goes on from a resume state."""
        self.step = state.step
        self.measurements = [Measurement(**m) for m in state.measurements]
        self.course.injection.assign(state.parameters)
        self.average.restore(state.average, state.step)
        checkpoint.restore_optimizer(self.optimizer, self.names, state.optimizer)
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)

    def chosen(self) -> int:
        """The step whose snapshot becomes the adapter: the lowest held-out loss, else the last."""
        measured = [m for m in self.measurements if m.step > 0]
        return min(measured, key=lambda m: (m.loss, m.step)).step if measured else self.step


def forget_after(folder: Path, step: int) -> None:
    """Drops snapshots of steps that a resumed run has yet to take (again)."""
    for path in (folder / "snapshots").glob("step-*.safetensors"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    files.sweep(folder / "snapshots")
