"""Events to TensorBoard, Weights & Biases, trackio and MLflow, through Accelerate's trackers. Imports no torch at the top.

Names are those of diffusers' scripts, so that dashboards line up: `loss`, `lr`, pictures under `validation` and the final ones
under `test`, each with the caption `{i}: {prompt}`. Nothing is sent anywhere unless `trackers=` names a place, and what is
created there is private where that is ours to say.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.config import TrainSettings
from adapt.errors import SettingsError
from adapt.progress import say

if TYPE_CHECKING:
    from PIL.Image import Image

PROJECT = "adapt"
UNTOLD = "a training caption, which is not told"
"""In place of the prompt of a final picture that was drawn by one."""
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",), "mlflow": ("mlflow",)
}  # fmt: skip
"""Tracker → packages, one of which must be there."""

Metrics = Mapping[str, float]
Pictures = Sequence[tuple[str, "Image"]]
"""(caption, picture)."""


def require(names: Sequence[str]) -> None:
    """Raises `SettingsError` with the line that installs what is missing."""
    missing = [n for n in names if not any(importlib.util.find_spec(package) for package in PACKAGES[n])]
    if missing:
        packages = " ".join(PACKAGES[name][0] for name in missing)
        raise SettingsError(
            f"trackers: {'a package is' if len(missing) == 1 else 'packages are'} missing",
            given=", ".join(missing),
            next=f'pip install {packages}  (all of them: pip install "adapt-diffusion[track]")',
        )


class Trackers:
    """A listener of `Events`. A tracker that fails is left aside with a warning: it must not end a training.

    Args:
        settings: what is told of them is what says nothing about this machine (`public`).
        run: the run's folder, whose name the run has there too.
        start: `start(name, run, config)` → one of Accelerate's trackers, started.
    """

    def __init__(
        self, settings: TrainSettings, run: Path, start: Callable[[str, Path, dict[str, Any]], Any] | None = None
    ) -> None:
        self.run = run
        config = public(settings)
        self._trackers = {name: (start or _start)(name, run, config) for name in settings.trackers}

    def __call__(self, event: str, values: Mapping[str, Any]) -> None:
        """Tells every tracker what concerns it."""
        step = values.get("step")
        told, pictures = metrics(event, values), list(self._pictures(event, values))
        for name, tracker in list(self._trackers.items()):
            try:
                if told:
                    tracker.log(dict(told), step=step)
                if pictures:
                    log_pictures(name, tracker, "test" if event == "finished" else "validation", pictures, step)
                if event in ("finished", "stopped"):
                    tracker.finish()
            except Exception as error:
                del self._trackers[name]
                say(f"warning: the tracker {name} failed and is left aside: {type(error).__name__}: {error}")

    def _pictures(self, event: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Image]]:
        from PIL import Image

        if event == "preview":
            folder = self.run / "previews" / f"step-{values['step']:06d}"
            shown = [(folder / f"{number:02d}.png", prompt) for number, prompt in enumerate(values["prompts"], 1)]
        elif event == "finished":
            shown = samples(self.run / "adapter")
        else:
            return
        for number, (path, prompt) in enumerate(shown):
            with Image.open(path) as picture:
                yield f"{number}: {prompt}", picture.convert("RGB")


def samples(adapter: Path) -> list[tuple[Path, str]]:
    """The final pictures of an adapter's folder, each with its prompt or class, as far as `adapter.json` tells it."""
    told = json.loads((adapter / "adapter.json").read_text("utf-8")).get("samples", ())
    words = ((each["file"], each["prompt"] or each.get("class"), each["prompt"]) for each in told)
    return [(adapter / file, word or ("" if prompt == "" else UNTOLD)) for file, word, prompt in words]


def metrics(event: str, values: Mapping[str, Any]) -> Metrics:
    """The numbers of an event by their names in trackers."""
    if event == "step":
        names = {"loss": "loss", "learning_rate": "lr", "seconds": "seconds_per_step", "memory_gib": "memory_gib"}
        found = {name: values.get(key) for key, name in names.items()}
    elif event == "validation":
        keys = ("loss", "ratio", "standard_error", "log_ratio", "gap")
        found = {f"validation/{key}": values.get(key) for key in keys}
        found |= {f"validation/loss_{name}": loss for name, loss in values["judged"].items()}
    elif event == "finished":
        found = {"chosen_step": values["chosen_step"]}
    else:
        return {}
    return {name: value for name, value in found.items() if value is not None}


def public(settings: TrainSettings) -> dict[str, Any]:
    """Settings as plain values, without paths of this machine and without what is not set."""
    found: dict[str, Any] = {}
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, str) and Path(value).exists():
            found[name] = "a local path"
        elif isinstance(value, bool | int | float | str):
            found[name] = value
        elif value:
            found[name] = ", ".join(map(str, value))
    return found


def _start(name: str, run: Path, config: dict[str, Any]) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    tracker = kind(run.name, run / "tensorboard") if name == "tensorboard" else kind(PROJECT, **_options(name, run))
    tracker.start()
    tracker.store_init_configuration(config)
    return tracker


def _options(name: str, run: Path) -> dict[str, Any]:
    """What each needs to be told: the run's name; trackio's Spaces are public unless it hears otherwise."""
    options: dict[str, dict[str, Any]] = {
        "wandb": {"name": run.name, "dir": str(run)},
        "trackio": {"name": run.name, "private": True},
        "mlflow": {"run_name": run.name},
    }
    return options[name]


def log_pictures(name: str, tracker: Any, phase: str, pictures: Pictures, step: int | None) -> None:
    """Pictures with captions, each tracker in its own way: Accelerate has no common one that keeps the captions."""
    if name == "tensorboard":
        tracker.log_images(_arrays(phase, [picture for _, picture in pictures]), step=step, dataformats="NHWC")
    elif name == "wandb":
        import wandb

        tracker.log({phase: [wandb.Image(picture, caption=caption) for caption, picture in pictures]}, step=step)
    elif name == "trackio":
        import trackio

        tracker.log({phase: [trackio.Image(picture, caption=caption) for caption, picture in pictures]}, step=step)
    elif name == "mlflow":
        import mlflow

        for number, (_, picture) in enumerate(pictures):
            mlflow.log_image(picture, key=f"{phase}/{number}", step=step)


def _arrays(phase: str, pictures: Sequence[Image]) -> dict[str, Any]:
    """One array (n, height, width, 3) as diffusers' scripts log it; one a picture where sizes differ."""
    import numpy as np

    if len({picture.size for picture in pictures}) == 1:
        return {phase: np.stack([np.asarray(picture) for picture in pictures])}
    return {f"{phase}/{number}": np.asarray(picture)[None] for number, picture in enumerate(pictures)}
