"""What a run's folder tells, while the run goes on or afterwards. A folder may hold half a run, or lines that are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from adapt.config import SECTIONS, TrainSettings
from adapt.config.table import names
from adapt.errors import RunError
from adapt.evaluation.choice import choose
from adapt.evaluation.measurement import Measurement
from adapt.training import events, folder

State = Literal["finished", "training", "stopped"]
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One row of the table: `origin` is `default`, `command line`, a file …"""

    section: str
    name: str
    value: str
    origin: str

    @property
    def changed(self) -> bool:
        return self.origin != "default"


@dataclass(frozen=True)
class Round:
    """One round of previews."""

    step: int
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Speed:
    """Attributes:
    step_seconds: median of a step.
    pictures: pictures a second, from it.
    steps_seconds, preview_seconds: in all.
    wall_seconds: from the first event to the last, pauses included; None where times were not recorded.
    memory_gib: the most; None where it was not recorded.
    """

    step_seconds: float | None
    pictures: float | None
    steps_seconds: float
    preview_seconds: float
    wall_seconds: float | None
    memory_gib: float | None


@dataclass(frozen=True)
class Facts:
    """Attributes:
    name: of the folder.
    state: `finished`; `training`: a process holds the folder; `stopped`: none does.
    reason: why it stopped, where that was recorded.
    base: its name or path.
    step, steps: done, wanted.
    trained, held_out: number of pictures.
    findings: what was remarkable about the data.
    losses: training loss by step.
    measurements: of held-out pictures, by step; the newest of each.
    chosen: the step that became the adapter, or would now; None without a step.
    weights: `ema` or `raw`, of that step.
    rounds: of previews, by step.
    proof: `layers`, `difference`, `effect`; None before the end.
    speed: how fast, how much memory.
    settings: all, in the order of their sections.
    happened: resumes, requests and stops, in order: (step, text).
    machine: versions, device, processes.
    """

    name: str
    state: State
    reason: str | None
    base: str
    step: int
    steps: int
    trained: int
    held_out: int
    findings: tuple[str, ...]
    losses: Mapping[int, float]
    measurements: tuple[Measurement, ...]
    chosen: int | None
    weights: str | None
    rounds: tuple[Round, ...]
    proof: Mapping[str, Any] | None
    speed: Speed
    settings: tuple[Setting, ...]
    happened: tuple[tuple[int, str], ...]
    machine: Mapping[str, Any]

    @property
    def measurement(self) -> Measurement | None:
        """That of the chosen step."""
        return next((m for m in self.measurements if m.step == self.chosen), None)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def facts_of(run: Path) -> Facts:
    """Reads the folder; changes nothing.

    Raises:
        RunError: the folder holds no run.
    """
    if not (run / folder.RUN).is_file():
        raise RunError("there is no run in this folder", given=run, next="give the --output of a training")
    record, everything = folder.read(run), _events(run)
    told = standing(everything)
    losses = {step: loss for step, loss in _by_step(told, "step", "loss").items() if loss is not None}
    measurements = _measurements(told)
    end = next((e for e in reversed(told) if e["event"] == "finished"), None)
    taken = choose(measurements)
    step = max(losses, default=0)
    chosen = _whole(end, "chosen_step") if end else taken.step if taken else step or None
    weights = end.get("weights") if end else taken.weights if taken else None
    counts = record.get("pictures") or (0, 0)
    settings = record["settings"]
    state: State = "finished" if end else "training" if folder.is_training(run) else "stopped"
    return Facts(
        name=run.absolute().name, state=state, reason=_reason(told) if state == "stopped" else None,
        base=str(record.get("base_reference", "")), step=step, steps=int(settings.get("steps") or 0),
        trained=int(counts[0]), held_out=int(counts[1]), findings=tuple(map(str, record.get("findings") or ())),
        losses=losses, measurements=tuple(measurements), chosen=chosen, weights=weights, rounds=_rounds(told),
        proof=_proof(end) if end else None, speed=_speed(told, int(settings.get("batch_size") or 1)),
        settings=_settings(settings, record.get("origins") or {}), happened=tuple(_happened(everything)),
        machine=record.get("machine") or {},
    )  # fmt: skip


def _events(run: Path) -> Sequence[Event]:
    """Events up to the present end; none where nothing was recorded yet."""
    try:
        return events.read(run)
    except OSError:
        return []


def standing(told: Sequence[Event]) -> list[Event]:
    """Without what a resumed run has taken back: what came after the checkpoint that it went on from, and an end that was
    none."""
    kept: list[Event] = []
    for event in told:
        if event["event"] == "resume":
            since = _whole(event, "step") or 0
            kept = [e for e in kept if e["event"] != "finished" and (_whole(e, "step") or 0) <= since]
        kept.append(event)
    return kept


# ---------------------------------------------------------------------------------------------------- from events
def _whole(event: Event, name: str) -> int | None:
    value = event.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(event: Event, name: str) -> float | None:
    value = event.get(name)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None  # type: ignore[arg-type]


def _latest(told: Sequence[Event], kind: str) -> dict[int, Event]:
    """The newest event of each step, by step."""
    found = {step: e for e in told if e["event"] == kind and (step := _whole(e, "step")) is not None}
    return dict(sorted(found.items()))


def _by_step(told: Sequence[Event], kind: str, name: str) -> dict[int, float | None]:
    return {step: _number(event, name) for step, event in _latest(told, kind).items()}


def _measurements(told: Sequence[Event]) -> list[Measurement]:
    found = []
    for event in _latest(told, "validation").values():
        try:
            found.append(Measurement.of(event))
        except (TypeError, ValueError):
            continue  # of another program, or half a line
    return [m for m in found if all(isinstance(x, int | float) and math.isfinite(x) for x in (m.loss, m.ratio))]


def _rounds(told: Sequence[Event]) -> tuple[Round, ...]:
    rounds = _latest(told, "preview").items()
    return tuple(Round(step, tuple(map(str, e.get("prompts") or ()))) for step, e in rounds)


def _speed(told: Sequence[Event], batch_size: int) -> Speed:
    seconds = [s for s in _by_step(told, "step", "seconds").values() if s]
    memory = [m for m in _by_step(told, "step", "memory_gib").values() if m]
    times = [t for e in told if (t := _number(e, "time")) is not None]
    typical = median(seconds) if seconds else None
    return Speed(
        step_seconds=typical,
        pictures=batch_size / typical if typical else None,
        steps_seconds=sum(seconds),
        preview_seconds=sum(s for s in _by_step(told, "preview", "seconds").values() if s),
        wall_seconds=max(times) - min(times) if times else None,
        memory_gib=max(memory) if memory else None,
    )


def _proof(end: Event) -> dict[str, Any]:
    proof = end.get("proof")
    return {
        name: proof.get(name) if isinstance(proof, Mapping) else None
        for name in ("layers", "difference", "effect", "reader")
    }


def _reason(told: Sequence[Event]) -> str | None:
    last = told[-1] if told else {}
    return str(last["reason"]) if last.get("event") == "stopped" and "reason" in last else None


def _happened(told: Sequence[Event]) -> list[tuple[int, str]]:
    texts: dict[str, Callable[[Event], str]] = {
        "resume": lambda e: "resumed" + _changes(e.get("changes")),
        "request": lambda e: f"asked for: {e.get('request')}",
        "stopped": lambda e: f"stopped: {e.get('reason')}",
        "finished": lambda e: f"finished; step {e.get('chosen_step')} became the adapter",
    }
    return [(_whole(e, "step") or 0, texts[e["event"]](e)) for e in told if e["event"] in texts]


def _changes(changes: object) -> str:
    if not isinstance(changes, Mapping) or not changes:
        return ""
    return ", with changes: " + "; ".join(f"{name} {change}" for name, change in changes.items())


# ---------------------------------------------------------------------------------------------------- settings
def _settings(values: Mapping[str, Any], origins: Mapping[str, str]) -> tuple[Setting, ...]:
    """In the order of the sections; names that this version does not know come last."""
    sections = {name: _title(section) for section in SECTIONS for name in names(section)}
    ordered = [*(name for name in sections if name in values), *(name for name in values if name not in sections)]
    return tuple(
        Setting(
            sections.get(name, "Others"), name, _value(values[name]), origins.get(name) or _origin(name, values[name])
        )
        for name in ordered
    )


def _title(section: type) -> str:
    return (section.__doc__ or "").strip().split("\n")[0].removesuffix(".")


def _value(value: object) -> str:
    if value is None or value in ([], {}):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _origin(name: str, value: object) -> str:
    """For runs that recorded none."""
    field = TrainSettings.model_fields.get(name)
    default = field.default if field else None
    plain = list(default) if isinstance(default, tuple) else default
    return "default" if field and value == plain else "not recorded"
