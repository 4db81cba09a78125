"""What happens beside the steps: measuring, keeping a snapshot, drawing previews, and what a user asks for meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.errors import AdaptError, TrainingError
from adapt.evaluation.choice import best, choose
from adapt.evaluation.held_out import ROUNDING, HeldOut, Measurement, compare
from adapt.objectives import Objective, Target
from adapt.progress import Progress, say
from adapt.training.average import Average
from adapt.training.events import Events
from adapt.training.gauge import Gauge
from adapt.training.requests import WORDS, Requests
from adapt.training.schedule import calendar, due
from adapt.training.step import Course

if TYPE_CHECKING:
    from accelerate import Accelerator

Preview = Callable[[int], Sequence[str]]
"""`preview(step)` draws with the weights that the backbone now holds, and returns the prompts in order."""
Snapshot = Callable[[int, Mapping[str, Tensor]], None]
"""`snapshot(step, weights)` writes these weights, by parameter name, as the adapter of that step."""


@dataclass(frozen=True)
class Measured:
    """Pictures, and what the base loses on them.

    Attributes:
        pictures: the grid of times and noise.
        base: the base's losses (pictures, times).
        rounding: relative differences up to it are none.
    """

    pictures: HeldOut
    base: Tensor
    rounding: float = ROUNDING


@dataclass(frozen=True)
class Judge:
    """How held-out pictures are measured.

    Attributes:
        objective: with the family's own times and even weights, so that runs with other weights can be compared.
        target: what is right: the pictures, and above `anchor_above` the base.
        held_out: pictures that are not trained on.
        members: as many that are; None: the gap between the two is not measured.
    """

    objective: Objective
    target: Target
    held_out: Measured
    members: Measured | None = None

    def losses(self, measured: Measured, backbone: Backbone) -> Tensor:
        """Losses of the weights that the backbone holds (pictures, times)."""
        return measured.pictures.table(backbone, self.objective, self.target)

    def compare(self, step: int, measured: Measured, losses: Tensor) -> Measurement:
        """These losses beside the base's."""
        shares = measured.pictures.shares(self.objective)
        return compare(step, losses, measured.base, shares, measured.rounding)


def measure_base(
    pictures: HeldOut, backbone: Backbone, objective: Objective, target: Target, anchor_above: float | None = None
) -> Measured:
    """Measures the base, which the backbone must hold, once and for all. Where it is itself what is right, its loss is 0:
    exactly, whatever rounding makes of it."""
    base = pictures.table(backbone, objective, target)
    if anchor_above is not None:
        base[pictures.shares(objective) >= anchor_above] = 0.0
    half = torch.finfo(backbone.dtype).bits < 32
    return Measured(pictures, base, 10 * ROUNDING if half else ROUNDING)


@dataclass
class Watch:
    """Attributes:
    course: what stays the same.
    accelerator: device, precision, processes.
    folder: the run's.
    average: the moving average of the weights.
    events: the run's record.
    snapshot: writes weights as a step's adapter.
    judge: None without held-out pictures.
    preview: None on processes other than the first.
    measurements: held-out losses so far.
    """

    course: Course
    accelerator: Accelerator
    folder: Path
    average: Average
    events: Events
    snapshot: Snapshot
    judge: Judge | None = None
    preview: Preview | None = None
    measurements: list[Measurement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.step = 0
        settings = self.course.settings
        self.gauge = Gauge(settings.batch_size, self.accelerator.device, settings.steps, calendar(settings))
        self._requests = Requests(self.folder if self.accelerator.is_main_process else None)

    # ------------------------------------------------------------------------------------------------ the run
    @contextmanager
    def listening(self) -> Iterator[None]:
        """Requests are heard inside the `with`; what ends the run early is recorded."""
        with self._requests:
            try:
                yield
            except AdaptError as error:
                with suppress(OSError):
                    self.events.add("stopped", {"step": self.step, "reason": error.message})
                raise

    def look(self, step: int) -> set[str]:
        """Measures, keeps a snapshot and draws previews when they are due or asked for. Returns what was asked for:
        to `save` and to `stop` is the loop's."""
        self.step = step
        asked = self._asked(step)
        wanted = due(self.course.settings, step) | asked
        measure, sample = self.judge is not None and "measure" in wanted, "sample" in wanted
        snapshot = step > 0 and (measure or "save" in wanted)
        if measure or sample or snapshot:
            weights = self._measure(self.judge, step) if measure and self.judge is not None else self._usual()
            if snapshot:
                self._keep(step, weights)
            if sample:
                self._draw(step, weights)
        return asked

    def _asked(self, step: int) -> set[str]:
        """What was asked of any process; all agree."""
        asked = agreed(self.accelerator, self._requests.taken())
        for word in sorted(asked):
            self.events.add("request", {"step": step, "request": word})
        if "measure" in asked and self.judge is None and self.accelerator.is_main_process:
            say("nothing is held out, so there is nothing to measure: give validation=")
        return asked

    # ------------------------------------------------------------------------------------------------ measuring
    def candidates(self) -> dict[str, Mapping[str, Tensor]]:
        """Weights that may become the adapter, by name; the usual ones first."""
        settings = self.course.settings
        if not settings.ema:
            return {"raw": self.average.values}
        raw = {name: p.detach() for name, p in self.course.injection.parameters.items()}
        found: dict[str, Mapping[str, Tensor]] = {"ema": self.average.values, "raw": raw}
        return found if settings.keep == "best" else {settings.keep: found[settings.keep]}

    def _usual(self) -> str:
        return next(iter(self.candidates()))

    def _measure(self, judge: Judge, step: int) -> str:
        """Measures every candidate and returns the name of the best; members only with that one."""
        started, backbone, candidates = time.perf_counter(), self.course.backbone, self.candidates()
        found = {}
        for name, values in candidates.items():
            with self.course.injection.holding(values):
                found[name] = judge.compare(step, judge.held_out, judge.losses(judge.held_out, backbone))
        self._require_finite(step, found)
        taken = best([replace(m, weights=name) for name, m in found.items()])  # the usual weights of a tie
        kept = str(taken.weights)
        measurement = replace(taken, judged={name: m.loss for name, m in found.items()})
        if judge.members is not None:
            with self.course.injection.holding(candidates[kept]):
                losses = judge.losses(judge.members, backbone)
            measurement = measurement.beside(judge.compare(step, judge.members, losses))
        self.measurements.append(measurement)
        self.gauge.lasted["measure"] = time.perf_counter() - started
        self.events.add("validation", measurement.as_dict())
        return kept

    def _require_finite(self, step: int, found: Mapping[str, Measurement]) -> None:
        if not all(math.isfinite(m.loss) for m in found.values()):
            raise TrainingError(
                f"the held-out loss at step {step} is not finite",
                given=f"learning_rate {self.course.settings.learning_rate}",
                next="lower learning_rate; the last checkpoint is untouched, and --resume goes on from it",
            )

    def restore(self, measurements: Sequence[Mapping[str, Any]]) -> None:
        """Goes on with these, as `Measurement.as_dict` gave them."""
        self.measurements = [Measurement.of(values) for values in measurements]

    def chosen(self) -> Measurement | None:
        """The measurement of the step that becomes the adapter; None: nothing was measured, and it is the last."""
        return choose(self.measurements)

    def weights_of(self, step: int) -> str:
        """Which weights the snapshot of a step holds."""
        return next((m.weights for m in self.measurements if m.step == step and m.weights), self._usual())

    # ------------------------------------------------------------------------------------------------ keeping, drawing
    def _keep(self, step: int, weights: str) -> None:
        if self.accelerator.is_main_process:
            self.snapshot(step, self.candidates()[weights])
            self.events.add("snapshot", {"step": step, "weights": weights})

    def _draw(self, step: int, weights: str) -> None:
        if self.preview is None:
            return
        started = time.perf_counter()
        with self.course.injection.holding(self.candidates()[weights]):
            prompts = self.preview(step)
        self.gauge.lasted["sample"] = seconds = time.perf_counter() - started
        self.events.add("preview", {"step": step, "prompts": list(prompts), "seconds": round(seconds, 2)})

    # ------------------------------------------------------------------------------------------------ the line
    def show(self, loss: float, seconds: float, progress: Progress) -> None:
        """Rate, memory, loss and how it stands, behind the bar."""
        self.gauge.tick(seconds)
        if self.accelerator.is_main_process:
            rate = f"{self.gauge.rate:.1f} pictures/s, {self.gauge.memory:.1f} GiB"
            note = f"loss {loss:.4f}, {rate}{self._standing()}"
            progress(self.step, note=note, left=self.gauge.left(self.step))

    def _standing(self) -> str:
        if not self.measurements:
            return ""
        last = self.measurements[-1]
        error = "" if last.standard_error is None else f" ± {last.standard_error:.3f}"
        return f", held-out {last.ratio:.3f}{error} of base"


def agreed(accelerator: Accelerator, words: set[str]) -> set[str]:
    """The words that any process has heard, the same on all of them."""
    if accelerator.num_processes == 1:
        return words
    mine = torch.tensor([[int(word in words) for word in WORDS]], device=accelerator.device)
    heard = accelerator.gather(mine).amax(0).tolist()
    return {word for word, here in zip(WORDS, heard, strict=True) if here}
