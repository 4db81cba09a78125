"""Checkpoints: a resume state is whole or absent, and holds no code.

    checkpoints/step-000100/   adapter, average, optimizer (safetensors), state.json, manifest.json (sha256 of each)
    snapshots/step-000100.safetensors   the adapter of that step, small: all are kept

The newest two resume states are kept; older ones go only after a new one is complete.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from adapt import files
from adapt.errors import RunError
from adapt.progress import say
from adapt.training.optimizer.state import OptimizerState

KEPT = 2
NAME = re.compile(r"step-\d+$")


@dataclass
class State:
    """What a run needs to go on as if nothing had happened; the Plan needs nothing but the step.

    Attributes:
        step: optimizer steps done.
        parameters: LoRA by parameter name.
        average: their moving average, by parameter name; empty when it is off.
        optimizer: what the next step depends on, as tensors and JSON.
        measurements: held-out losses so far, as JSON.
        scaler: the gradient scaler's state (fp16) and the steps left out in a row, as JSON.
    """

    step: int
    parameters: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: OptimizerState
    measurements: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)


def name(step: int) -> str:
    return f"step-{step:06d}"


def save(run: Path, state: State) -> None:
    """Writes the state beside, verified and synced, renames it, then lets older ones go."""
    folder = run / "checkpoints" / name(state.step)
    rest = {"optimizer": state.optimizer.rest, "scaler": state.scaler}
    values = {"step": state.step, "measurements": state.measurements, **rest}
    tensors = {"adapter": state.parameters, "average": state.average, "optimizer": state.optimizer.tensors}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.whole_folder(folder) as inside:
            for file, content in tensors.items():
                _write(inside / f"{file}.safetensors", files.safetensors_bytes(content, {}))
            _write(inside / "state.json", files.dump_json(values).encode())
    except OSError as error:
        raise RunError(
            f"the checkpoint of step {state.step} could not be written: {error.strerror or error}",
            given=folder,
            next="make room, then the same command with --resume; older checkpoints are untouched",
        ) from error
    let_go(run, state.step)


def let_go(run: Path, step: int) -> None:
    """Deletes all resume states but the one of `step`, which is whole, and the one before. Later ones stay: they can only
    be damaged, because a whole one would have been resumed from, and are written again. What cannot be deleted now is left
    to the next time: it is no reason to end a run."""
    with suppress(OSError):
        older = [path for path in states(run) if step_of(path) < step]
        for path in older[: len(older) - KEPT + 1]:
            shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    """Writes and reads back."""
    path.write_bytes(content)
    if path.read_bytes() != content:
        raise OSError(errno.EIO, "what was written is not what is read back", str(path))


def step_of(path: Path) -> int:
    """`…/step-000100` → 100."""
    return int(path.name.removeprefix("step-"))


def states(run: Path) -> list[Path]:
    """Folders of resume states, oldest first."""
    return sorted((p for p in (run / "checkpoints").glob("step-*") if NAME.match(p.name) and p.is_dir()), key=step_of)


def newest(run: Path) -> State:
    """The newest whole resume state; damaged ones are named and skipped.

    Raises:
        RunError: there is none. A run is never started again at step 0 in silence.
    """
    for folder in reversed(states(run)):
        fault = files.damage(folder)
        if fault is None:
            return load(folder)
        say(f"checkpoint {folder.name} is damaged ({fault}): using an older one")
    raise RunError("the run has no whole checkpoint to resume from", given=run, next="start it over with --fresh")


def load(folder: Path) -> State:
    """Reads one resume state."""
    values = json.loads((folder / "state.json").read_text("utf-8"))
    parameters, average, tensors = (
        _tensors(folder / f"{file}.safetensors") for file in ("adapter", "average", "optimizer")
    )
    optimizer = OptimizerState(tensors, values.get("optimizer", {}))
    return State(values["step"], parameters, average, optimizer, values["measurements"], values["scaler"])


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))
