"""Do drawings show the class that was asked for? Eight kinds of animals, then two more.

    python benchmarks/class_adapter.py --out runs/class_adapter
    python benchmarks/class_adapter.py --each 4 --steps 40 --growth-steps 20     # a quick try
    python benchmarks/class_adapter.py --run runs/animals --grown runs/more-animals     # adapters that are there

A class adapter is trained on `examples/data/animals/train` (no captions), draws every class unguided (`class_scale=1`) and
guided from the same noise, and grows by `examples/data/animals/added`. A judge that was taught real pictures alone says what
each drawing shows: the likeliest of the kinds that the adapter knows. Its accuracy on real pictures that it never saw is printed
first. It has seen OpenMoji's pictures, as the adapter has; a second judge, the stranger, was taught without any picture of this
house, nor a twin of one, and says of the drawings of added classes what it thinks too: it can be no better than on the pictures
that the adapter was taught, which is printed. OUT gets `class_adapter.json` and `sheet.png`. Needs the extra `icons` and the
judge's packages (`classes/photo_net.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "training_scripts" / "icons"), str(ROOT / "benchmarks")]

from classes import judge  # noqa: E402
from classes.photo_net import PhotoNet  # noqa: E402
from icons.drawing import BUNDLED  # noqa: E402
from icons.measures import Mean, mean  # noqa: E402
from icons.sheet import Block, page, save  # noqa: E402

import adapt  # noqa: E402
from adapt.data.cache import default_folder  # noqa: E402

GOALS = {
    "judge": "≥ 95 % on held-out real pictures",
    "guided": "≥ 90 % of 400, better than unguided",
    "old classes": "the same bytes",
    "new classes": "≥ 80 %",
}
SHOWN, SAME = 6, 3
"""Drawings of a class on the sheet at each scale; drawings of each old class that are compared byte for byte."""


@dataclass(frozen=True)
class Shown:
    """Drawings and what was asked for.

    Attributes:
        pictures: uint8 (classes · each, 3, H, W), class by class.
        names: the classes.
        seconds: for a picture.
    """

    pictures: Tensor
    names: list[str]
    seconds: float

    @property
    def each(self) -> int:
        return len(self.pictures) // len(self.names)

    def first(self, count: int) -> Tensor:
        """The first drawings of every class, (classes, count, 3, H, W)."""
        return self.pictures.view(len(self.names), self.each, *self.pictures.shape[1:])[:, :count]


class Artist:
    """Draws classes: the n-th picture of every class starts from the same noise, whatever the adapter and the scale."""

    def __init__(self, steps: int, seed: int) -> None:
        self.base, self.steps, self.seed = adapt.Backbone.load("icons"), steps, seed

    def draw(self, adapter: adapt.Adapter, names: Sequence[str], scale: float, each: int) -> Shown:
        started, out = time.monotonic(), list[Tensor]()
        for name in names:
            drawn = adapt.generate(
                self.base,
                adapters=[adapter],
                prompt="",
                class_name=name,
                class_scale=scale,
                steps=self.steps,
                seed=self.seed,
                count=each,
                batch_size=10,
            )
            out += [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in drawn]
            print(f"class scale {scale:g}: {each} of {name}, {time.monotonic() - started:.0f} s", flush=True)
        return Shown(torch.stack(out), list(names), (time.monotonic() - started) / len(out))


class Critic:
    """The judge on drawings."""

    def __init__(self, heads: judge.Judge) -> None:
        self.heads, self.net = heads, PhotoNet()

    def right(self, shown: Shown, among: Sequence[str]) -> tuple[Tensor, dict[str, dict[str, int]]]:
        """Whether each drawing shows its class, (N,); how often each class was taken for what."""
        said = judge.judged(self.heads, self.net, shown.pictures, among)
        asked = [name for name in shown.names for _ in range(shown.each)]
        confusion: dict[str, dict[str, int]] = {name: {} for name in shown.names}
        for name, number in zip(asked, said.tolist(), strict=True):
            seen = judge.NAMES[number]
            confusion[name][seen] = confusion[name].get(seen, 0) + 1
        return said == torch.tensor([judge.NAMES.index(name) for name in asked]), confusion


def by_noise(values: Tensor, each: int) -> Mean:
    """A mean with its error: drawings from one noise stand and fall together."""
    return mean(values, [i % each for i in range(len(values))])


def trained(words: argparse.Namespace) -> tuple[Path, float]:
    """The adapter of the eight classes, and the seconds that it took."""
    if words.run:
        return words.run, 0.0
    settings = adapt.TrainSettings(
        steps=words.steps, classes=True, learning_rate=words.learning_rate, rank=words.rank, previews=()
    )
    started = time.monotonic()
    adapt.train(words.data / "train", output=words.out / "run", settings=settings, existing="fresh")
    return words.out / "run", time.monotonic() - started


def grown(words: argparse.Namespace, run: Path) -> tuple[Path, float]:
    """The adapter with the added classes, and the seconds."""
    if words.grown:
        return words.grown, 0.0
    settings = adapt.TrainSettings(
        steps=words.growth_steps, classes=True, grow_from=str(run), previews=(), seed=words.growth_seed
    )
    started = time.monotonic()
    adapt.train(words.data / "added", output=words.out / "grown", settings=settings, existing="fresh")
    return words.out / "grown", time.monotonic() - started


def folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def real(folder: Path, name: str) -> Shown:
    """The pictures of a class, as they are."""
    opened = [Image.open(file).convert("RGB") for file in sorted((folder / name).glob("*.png"))]
    return Shown(torch.from_numpy(np.stack(opened)).permute(0, 3, 1, 2), [name], 0.0)


def eight(critic: Critic, artist: Artist, run: Path, words: argparse.Namespace) -> tuple[dict[str, Any], list[Shown]]:
    """The eight classes without and with guidance, by the same noise."""
    names, adapter = folders(words.data / "train"), adapt.Adapter.load(run)
    figures, shown, right = dict[str, Any](), list[Shown](), list[Tensor]()
    for word, scale in (("unguided", 1.0), ("guided", words.scale)):
        drawn = artist.draw(adapter, names, scale, words.each)
        hits, confusion = critic.right(drawn, names)
        share = by_noise(hits, words.each)
        figures[word] = {"scale": scale, "share": vars(share), "seconds": drawn.seconds, "taken for": confusion}
        print(f"{word}: {share.percent} of {share.pictures} are judged as their class; {drawn.seconds:.2f} s a picture")
        shown.append(drawn)
        right.append(hits)
    better = by_noise(right[1].double() - right[0].double(), words.each)
    figures["guided - unguided"] = vars(better)
    print(f"guided - unguided: {better.percent}   goal: {GOALS['guided']}")
    return figures, shown


def two_more(
    critics: dict[str, Critic], artist: Artist, run: Path, grown: Path, before: Shown, words: argparse.Namespace
) -> tuple[dict[str, Any], list[Shown]]:
    """The added classes among all ten, without and with guidance; the old ones byte for byte."""
    names, adapter = folders(words.data / "added"), adapt.Adapter.load(grown)
    count = min(SAME, words.each)
    again, first = (artist.draw(one, before.names, words.scale, count) for one in (adapter, adapt.Adapter.load(run)))
    same = (again.first(count) == first.first(count)).flatten(2).all(2)  # batches of one size: others round otherwise
    print(
        f"old classes: {int(same.sum())} of {same.numel()} drawings have the same bytes   goal: {GOALS['old classes']}"
    )
    figures, shown = dict[str, Any]({"same bytes": int(same.sum()), "compared": same.numel()}), list[Shown]()
    for who, critic in critics.items():
        known = torch.cat(
            [critic.right(real(words.data / "added", name), [*before.names, *names])[0] for name in names]
        )
        figures[f"taught pictures, {who}"] = f"{int(known.sum())} of {len(known)}"
        print(f"{who}: {int(known.sum())} of the {len(known)} pictures that are taught are of their class")
    for word, scale in (("unguided", 1.0), ("guided", words.scale)):
        drawn = artist.draw(adapter, names, scale, words.added_each)
        shown.append(drawn)
        for who, critic in critics.items():
            hits, confusion = critic.right(drawn, [*before.names, *names])
            share = by_noise(hits, words.added_each)
            figures[f"{word}, {who}"] = {"scale": scale, "share": vars(share), "taken for": confusion}
            print(f"new classes, {word}, {who}: {share.percent} of {share.pictures}   goal: {GOALS['new classes']}")
    return figures, shown


def sheet(shown: Sequence[Shown], titles: Sequence[str], file: Path) -> None:
    """A row for every class."""
    blocks = []
    for drawn, title in zip(shown, titles, strict=True):
        count = min(SHOWN, drawn.each)
        blocks.append(Block(title, drawn.first(count).flatten(0, 1), drawn.names, [""] * count))
    save(page(blocks), file)


def told(accuracy: judge.Accuracy) -> None:
    print(
        f"judge: {accuracy.held_out.percent} of {accuracy.held_out.pictures} held-out real pictures   goal: {GOALS['judge']}"
    )
    print(
        f"judge, twins held out too: {accuracy.stricter.percent}; OpenMoji's held-out ones: {accuracy.openmoji.percent}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "data" / "animals")
    parser.add_argument(
        "--packages", type=Path, default=default_folder() / "icon_sets", help="where icon sets are kept"
    )
    parser.add_argument("--run", type=Path, help="a trained adapter of the eight, instead of training one")
    parser.add_argument("--grown", type=Path, help="one that grew from it, instead of growing one")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--growth-steps", type=int, default=300)
    parser.add_argument("--growth-seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--each", type=int, default=50, help="drawings of a class at each scale")
    parser.add_argument("--added-each", type=int, default=100, help="drawings of an added class at each scale")
    parser.add_argument("--scale", type=float, default=3.0, help="class scale when guided")
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/class_adapter"))
    return parser.parse_args()


def main() -> None:
    words = arguments()
    torch.set_num_threads(words.threads)
    words.out.mkdir(parents=True, exist_ok=True)
    words.packages.mkdir(parents=True, exist_ok=True)
    heads, accuracy, name = judge.obtain(words.packages, BUNDLED / "vae")
    apart, elsewhere, _ = judge.obtain(words.packages, BUNDLED / "vae", without="openmoji")
    told(accuracy)
    print(
        f"the stranger: {elsewhere.held_out.percent} of OpenMoji's {elsewhere.held_out.pictures}, of which it saw none"
    )
    run, seconds = trained(words)
    critic, artist = Critic(heads), Artist(words.sampling_steps, words.seed)
    figures, shown = eight(critic, artist, run, words)
    more, more_seconds = grown(words, run)
    critics = {"the judge": critic, "the stranger": Critic(apart)}
    added, drawn = two_more(critics, artist, run, more, shown[1], words)
    whole = {
        "judge": {"name": name, **{k: vars(v) if isinstance(v, Mean) else v for k, v in vars(accuracy).items()}},
        "stranger": vars(elsewhere.held_out),
        "training": {"steps": words.steps, "rank": words.rank, "seconds": seconds, "growth seconds": more_seconds},
        "drawing": {"steps": words.sampling_steps, "threads": words.threads},
        **{"eight": figures, "added": added, "goals": GOALS},
    }
    text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    (words.out / "class_adapter.json").write_text(text, "utf-8")
    titles = [f"{who}class scale {scale:g}" for who in ("", "added, ") for scale in (1, words.scale)]
    sheet([*shown, *drawn], titles, words.out / "sheet.png")


if __name__ == "__main__":
    main()
