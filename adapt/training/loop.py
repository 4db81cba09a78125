"""The loop around the step: accumulate, clip, update, average, measure, save, stop."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adapt import files
from adapt.errors import Stopped, TrainingError
from adapt.evaluation.held_out import Measurement
from adapt.formats import LoraWeights, write_lora
from adapt.formats.conditioners import write_conditioners
from adapt.formats.embeddings import write_embeddings
from adapt.progress import Progress
from adapt.training import checkpoint
from adapt.training.average import Average
from adapt.training.checkpoint import State
from adapt.training.events import Events
from adapt.training.shortage import UNTOUCHED, measures, within_memory
from adapt.training.signals import StopRequest
from adapt.training.step import Course, pieces, row_losses
from adapt.training.update import Update
from adapt.training.validation import Judge, Preview, Watch

if TYPE_CHECKING:
    from accelerate import Accelerator

BESIDE = "words"
"""Folder of what snapshots hold beside layers."""


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

    def __post_init__(self) -> None:
        settings, injection = self.course.settings, self.course.injection
        self.update = Update(settings, injection, self.accelerator.device)
        self.average = Average(injection.parameters, settings.ema, self.update.optimizer)
        main = self.accelerator.is_main_process
        self.events = Events(self.folder if main else None)
        self.watch = Watch(
            self.course, self.accelerator, self.folder, self.average, self.events, self.write_snapshot, self.judge, self.preview
        )  # fmt: skip

    @property
    def measurements(self) -> list[Measurement]:
        """Held-out losses so far."""
        return self.watch.measurements

    # ------------------------------------------------------------------------------------------------ one step
    def take_step(self) -> float:
        """One optimizer step over the global batch; returns its mean loss.

        Raises:
            TrainingError: loss or gradient is not finite; nothing is applied. With `on_nonfinite=skip` only when that does
                not end.
        """
        course, processes = self.course, self.accelerator.num_processes
        seen = []
        self.update.begin(self.step)
        mine = pieces(course.settings, self.accelerator.process_index, processes)
        for number, positions in enumerate(mine):
            with self._unsynced() if number < len(mine) - 1 else nullcontext():
                with self.accelerator.autocast(), course.keeping():
                    losses = row_losses(course, course.plan.rows(self.step, positions))
                # DDP takes the mean over processes, and the loss is the mean over the global batch.
                torch.autograd.backward(self.update.scaled(losses.sum() * processes / course.settings.batch_size))
            seen.append(losses.detach())
        course.injection.rest()
        total = torch.cat(seen).cpu().double().sum()  # once a step: a GPU is waited for here, not between the pieces
        if processes > 1:
            self._share(course.injection.beside)
            total = self.accelerator.reduce(total.to(self.accelerator.device), "sum")
        loss = float(total) / course.settings.batch_size
        fault = self.update.apply(self.step, loss)
        if fault is None:
            course.injection.shorten(course.settings.max_norm)
            self.average.update(self.step + 1)
        else:
            self._left_out(fault)
        self.step += 1
        return loss

    def _share(self, beside: Sequence[torch.nn.Parameter]) -> None:
        """The mean of their gradients over all processes, which the wrapper of the denoiser does not know of."""
        if not beside:
            return
        there = torch.tensor([float(p.grad is not None) for p in beside], device=self.accelerator.device)
        counts = self.accelerator.reduce(there, "sum").tolist()  # of several denoisers, here one may have had no row
        if not (learning := [parameter for parameter, count in zip(beside, counts, strict=True) if count]):
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in learning])
        parts = self.accelerator.reduce(flat, "mean").split([parameter.numel() for parameter in learning])
        for parameter, part in zip(learning, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def _unsynced(self) -> Any:
        return self.accelerator.no_sync(self.course.backbone.denoiser)

    def _left_out(self, fault: str) -> None:
        """The step counts, but nothing was applied; or this ends the run."""
        if self.update.tolerates(fault):
            self.events.add("skipped", {"step": self.step + 1, "reason": f"the {fault} is not finite"})
            return
        course, row = self.course, self.update.in_a_row
        rows = course.plan.rows(self.step, range(course.settings.batch_size))
        names = ", ".join(sorted({course.examples.pictures[i].name for i in rows.items()})[:8])
        raise TrainingError(
            f"the {fault} of step {self.step + 1} is not finite"
            + (f", as of {row - 1} steps before" if row > 1 else ""),
            given=f"learning_rate {course.settings.learning_rate}, seed {course.settings.seed}, pictures {names}",
            next="lower learning_rate; the last checkpoint is untouched, and --resume goes on from it",
        )

    # ------------------------------------------------------------------------------------------------ the run
    def run(self, stop: StopRequest, resume_command: str) -> None:
        """Trains from `self.step` to the end.

        Raises:
            Stopped: a signal came; the step is finished and its checkpoint saved.
            TrainingError: see `take_step`; memory ran out.
        """
        settings = self.course.settings
        short = within_memory(
            lambda: f"after step {self.step} of {settings.steps}", f"{measures(settings)}; {UNTOUCHED}"
        )
        for network in self.course.backbone.networks:
            network.train()
        with self.watch.listening(), short, Progress("training", settings.steps) as progress:
            if self.step == 0:
                self.watch.look(0)
            progress.start_at(self.step)
            while self.step < settings.steps:
                started = time.perf_counter()
                loss = self.take_step()
                seconds = time.perf_counter() - started
                self._record(loss, seconds)
                asked = self.watch.look(self.step)
                self.watch.show(loss, seconds, progress)
                stopped = self._stopped(stop) or ("stop" in asked) * signal.SIGTERM
                if stopped or "save" in asked or self.step % settings.save_every == 0 or self.step == settings.steps:
                    self.save()
                if stopped and self.step < settings.steps:
                    raise Stopped(
                        stopped,
                        f"stopped after step {self.step} of {settings.steps}; its checkpoint is saved",
                        next=resume_command,
                    )

    def _record(self, loss: float, seconds: float) -> None:
        if not math.isfinite(loss):
            return  # a step that was left out, and no JSON
        values = {"step": self.step, "loss": loss, "learning_rate": self.update.rate(self.step - 1)}
        memory = round(self.watch.gauge.memory, 2)
        self.events.add("step", {**values, "seconds": round(seconds, 4), "memory_gib": memory})

    def _stopped(self, stop: StopRequest) -> int:
        """The signal that any process was sent; all agree, so that all stop after the same step."""
        if self.accelerator.num_processes == 1:
            return stop.number
        number = torch.tensor([stop.number], device=self.accelerator.device)
        return int(self.accelerator.gather(number).max())

    # ------------------------------------------------------------------------------------------------ files
    def snapshot_path(self, step: int) -> Path:
        return self.folder / "snapshots" / f"{checkpoint.name(step)}.safetensors"

    def beside_path(self, step: int) -> Path:
        """The folder in which a step's new words and classes are."""
        return self.folder / BESIDE / checkpoint.name(step)

    def write_snapshot(self, step: int, values: Mapping[str, torch.Tensor]) -> None:
        """These weights, by parameter name, as a LoRA file of its own."""
        self.update.require_finite(values, step)
        path = self.snapshot_path(step)
        path.parent.mkdir(exist_ok=True)
        injection = self.course.injection
        write_lora(path, LoraWeights(injection.layers(values)), injection.configs)
        if words := injection.vectors(values):
            write_embeddings(self.beside_path(step), words)
        write_conditioners(self.beside_path(step), injection.conditioners(values))

    def save(self) -> None:
        """A resume state of this step."""
        if self.accelerator.is_main_process:
            parameters = {n: p.detach().clone() for n, p in self.course.injection.parameters.items()}
            self.update.require_finite(parameters, self.step)
            optimizer, scaler = self.update.state()
            state = State(
                step=self.step,
                parameters=parameters,
                average={n: v.clone() for n, v in self.average.values.items()},
                optimizer=optimizer,
                measurements=[m.as_dict() for m in self.measurements],
                scaler=scaler,
            )
            checkpoint.save(self.folder, state)
            self.events.add("checkpoint", {"step": self.step})
        self.accelerator.wait_for_everyone()

    def restore(self, state: State) -> None:
        """Goes on from a resume state."""
        self.step = state.step
        self.watch.restore(state.measurements)
        self.course.injection.assign(state.parameters)
        self.average.restore(state.average, state.step)
        self.update.restore(state.optimizer, state.scaler)

    def chosen(self) -> int:
        """The step whose snapshot becomes the adapter: the one that `adapt.evaluation.choice` takes, else the last."""
        taken = self.watch.chosen()
        return taken.step if taken else self.step


def forget_after(folder: Path, step: int) -> None:
    """Drops snapshots of steps that a resumed run has yet to take (again)."""
    for path in (folder / "snapshots").glob("step-*.safetensors"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    for path in (folder / BESIDE).glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    files.sweep(folder / "snapshots")
