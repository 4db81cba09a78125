"""What each number of a preset does: one setting changed at a time, on `icons`.

    python benchmarks/presets.py --out runs/presets --json presets.json               # the whole sweep
    python benchmarks/presets.py --jobs style --only anchor_above --steps 40          # a quick look

Three jobs, whose pictures come with the repository or are drawn here: `style` (OpenMoji's hand), `subject` (one pictogram in
other places, sizes and colours, as `zxc`), `class` (flags of stripes). Two things are measured, both paired, at the same times
and noise, over all times, in parts of the base's own loss:

* learned: the loss on held-out pictures of the job, 1 is the base, lower is better;
* drift: how far predictions move for words that were not taught, 0 is the base, lower is better.

A setting is worth its place in a preset when it moves one of them by more than its standard error and the other by less. Each run
keeps its step by its own held-out pictures, as users' runs do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import adapt
from adapt.config.presets import PRESETS
from adapt.data import decode, find, fit, pixels
from adapt.evaluation.held_out import HeldOut, compare
from adapt.objectives import Anchored

OPENMOJI = Path(__file__).parents[1] / "examples" / "data" / "openmoji"
OTHERS = ("red apple", "penguin", "mushroom", "sailboat", "guitar", "cactus", "umbrella", "violin", "rocket", "teapot", "owl",
          "bicycle")  # fmt: skip
COMMON = {"batch_size": 8, "learning_rate": 1e-3, "schedule": "cosine", "validate_every": 40, "save_every": 1000,
          "preview_every": 100000, "validation_members": 0, "previews": ["penguin"], "sampling_steps": 2}  # fmt: skip
SWEEP: dict[str, dict[str, tuple[Any, ...]]] = {
    "style": {"anchor_above": (None, 0.42, 0.55, 0.7, 0.85), "flip": (0.0, 0.5), "rank": (4, 16, 32),
              "caption_dropout": (0.05, 0.1)},
    "subject": {"rank": (2, 4, 8, 16), "epochs": (25.0, 50.0, 100.0, 200.0), "caption_dropout": (0.0, 0.05, 0.1),
                "prior_prompt": (None, "a thing")},
    "class": {"flip": (0.0, 0.5), "rank": (4, 16, 32), "anchor_above": (None, 0.7), "caption_dropout": (0.05, 0.1)},
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Folders of pictures with captions: to train on, and to measure with."""

    train: Path
    held_out: Path


# ---------------------------------------------------------------------------------------------------- pictures
def subject(folder: Path) -> Job:
    """One pictogram, 12 times to train on and 8 to measure with."""
    glyph = Image.open(find(OPENMOJI / "train").pictures[0].path or "").convert("RGB").resize((64, 64))
    return Job(*(_drawn(folder / part, count, seed, lambda d: (_placed(glyph, d), "zxc"))
                 for part, count, seed in (("train", 12, 1), ("held-out", 8, 2))))  # fmt: skip


def _placed(glyph: Image.Image, dice: np.random.Generator) -> Image.Image:
    side = int(dice.integers(28, 60))
    page = Image.new("RGB", (64, 64), tuple(int(v) for v in dice.integers(150, 256, 3)))
    small = glyph.resize((side, side)).rotate(float(dice.uniform(-25, 25)), fillcolor="white")
    mask = small.convert("L").point(lambda v: 255 if v < 250 else 0)
    page.paste(small, tuple(int(v) for v in dice.integers(0, 64 - side + 1, 2)), mask)
    return page


def flags(folder: Path) -> Job:
    """Stripes of two or three colours, upright or lying: 48 to train on and 16 to measure with."""
    return Job(*(_drawn(folder / part, count, seed, _flag)
                 for part, count, seed in (("train", 48, 1), ("held-out", 16, 2))))  # fmt: skip


def _flag(dice: np.random.Generator) -> tuple[Image.Image, str]:
    names = dice.permutation(["red", "blue", "green", "yellow", "white", "black", "orange"])[: int(dice.integers(2, 4))]
    upright = bool(dice.integers(0, 2))
    page, pen_at = Image.new("RGB", (64, 64), "white"), 40 / len(names)
    pen = ImageDraw.Draw(page)
    for number, name in enumerate(names):
        low, high = 12 + number * pen_at, 12 + (number + 1) * pen_at
        pen.rectangle((low, 18, high, 46) if upright else (8, low, 56, high), fill=str(name))
    return page, f"flag of {'upright' if upright else 'lying'} stripes, {' and '.join(names)}"


def _drawn(folder: Path, count: int, seed: int, draw: Callable[[np.random.Generator], tuple[Image.Image, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture, caption = draw(np.random.default_rng([seed, number]))
        picture.save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(caption, "utf-8")
    return folder


# ---------------------------------------------------------------------------------------------------- measures
class Measures:
    """What the base loses and says, once; adapters are compared with it."""

    def __init__(self, job: Job) -> None:
        self.base, self.teacher = adapt.Backbone.load("icons"), adapt.Backbone.load("icons")
        self.objective = self.base.objective()
        pictures = find(job.held_out).pictures
        x = torch.cat([self._latents(decode(p.read())) for p in pictures])
        self.known = HeldOut(x, self.base.condition([p.captions[0] for p in pictures]), times=8, batch=16, pairs=True)
        drawn = adapt.generate(self.base, prompt=list(OTHERS), steps=12)
        others = torch.cat([self._latents(picture) for picture in drawn])
        self.others = HeldOut(others, self.base.condition(list(OTHERS)), times=8, batch=16, pairs=True)
        self.losses = self.known.table(self.base, self.objective)
        self.scale = float(self.others.table(self.base, self.objective).mean())

    def _latents(self, picture: Any) -> torch.Tensor:
        return self.base.encode_media(pixels(fit(picture, 64, 64))[None])[0]

    def of(self, adapter: adapt.Adapter) -> dict[str, float]:
        """`learned` and `drift`, each with its standard error."""
        as_base = Anchored(self.objective, self.teacher.predict, above=0.0)
        with adapter.apply(self.base):
            now = compare(0, self.known.table(self.base, self.objective), self.losses)
            moved = self.others.table(self.base, self.objective, as_base).mean(1) / self.scale
        return {"learned": now.ratio, "learned_error": now.standard_error or 0.0,
                "drift": float(moved.mean()), "drift_error": float(moved.std() / len(moved) ** 0.5)}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- the sweep
def runs(job: str, only: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The preset itself, then each setting at each other value."""
    preset = {name: value for name, (value, _) in PRESETS[job].values.items() if name not in ("validation", "buckets")}
    yield "preset", preset
    for name, values in SWEEP[job].items():
        for value in values:
            if (not only or name in only) and value != preset.get(name, "none"):
                yield f"{name}={value}", {**preset, name: value}


def settings_of(job: str, own: dict[str, Any], held_out: Path, steps: int, seed: int) -> adapt.TrainSettings:
    """Of one run; `epochs` counts as steps of the job's own number of pictures, at most `steps` where that is lower."""
    length = {} if own.get("epochs") and steps >= 160 else {"steps": steps}
    told = {name: value for name, value in own.items() if name != "epochs" or not length}
    return adapt.TrainSettings(**{**COMMON, **length, **told, "validation": str(held_out), "seed": seed})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=list(SWEEP), default=list(SWEEP))
    parser.add_argument("--only", nargs="+", default=[], help="settings that are changed; none: all")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each")
    parser.add_argument("--out", type=Path, default=Path("runs/presets"))
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    words = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in words.jobs:
        makers = {"subject": subject, "class": flags}
        folder = words.out / name
        job = makers[name](folder / "pictures") if name in makers else Job(OPENMOJI / "train", OPENMOJI / "held-out")
        measures = Measures(job)
        print(f"\n{name:28} learned         drift           seconds")
        for label, own in runs(name, words.only):
            for seed in range(words.seeds):
                started, run = time.perf_counter(), folder / f"{label}-{seed}".replace(" ", "_")
                settings = settings_of(name, own, job.held_out, words.steps, seed)
                result = adapt.train(job.train, output=run, base="icons", settings=settings, existing="auto")
                row = {"job": name, "run": label, "seed": seed, **measures.of(result.adapter)}
                rows.append({**row, "seconds": round(time.perf_counter() - started, 1)})
                print(f"{label:24} {seed:3} {row['learned']:.3f} ± {row['learned_error']:.3f}   {row['drift']:.4f} ± "
                      f"{row['drift_error']:.4f} {rows[-1]['seconds']:7}")  # fmt: skip
    if words.json:
        words.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
