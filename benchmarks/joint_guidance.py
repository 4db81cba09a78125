"""Two dials: does raising the scale of the words make drawings more of the words, and of the class more of the class?

    python benchmarks/class_adapter.py --out runs/class_adapter                       # trains the adapter
    python benchmarks/joint_guidance.py --run runs/class_adapter/run --out runs/joint_guidance

Every class of `--classes` is drawn with the words red, green and blue, from the same noises, at each scale of the words with
the class at `--held`, and at each scale of the class, and at 0, with the words at `--held`. 0 takes the part away, 1 tells it
without a push; the words' scale begins at 1. The class's score is the log-odds that the judge of `class_adapter.py` gives it
among all classes of the adapter: its probability is 0.86 at scale 1 already, and cannot rise much. The words' score is how much
more of the asked colour than of the other two there is in the ink, in -1 … 1. Scores of different kinds are compared in units of
their own standard deviation over all drawings. Wanted: each scale raises its own score, step by step in the mean, and lowers the
other's by less, over the whole range and from 1 on. OUT gets `joint_guidance.json` and `sheet.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "training_scripts" / "icons"), str(ROOT / "benchmarks")]

import pictures  # noqa: E402
from classes import judge  # noqa: E402
from classes.photo_net import PhotoNet  # noqa: E402
from icons.drawing import BUNDLED  # noqa: E402
from icons.measures import mean  # noqa: E402

import adapt  # noqa: E402
from adapt.data.cache import default_folder  # noqa: E402

COLOURS = ("red", "green", "blue")
INK = 0.1
"""How far from white a pixel is that counts as ink."""


def colour_score(batch: Tensor, colour: int) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] → how much more of a channel than of the other two, over the ink (N,)."""
    own = 1.5 * batch[:, colour] - 0.5 * batch.sum(1)
    ink = (1 - batch.amin(1) > INK).float()
    return (own * ink).sum((1, 2)) / ink.sum((1, 2)).clamp(min=1)


def log_odds(heads: judge.Judge, features: Tensor, label: str, labels: Sequence[str]) -> Tensor:
    """log p - log (1 - p) of a class among others, in the heads' mean (N,)."""
    names = [judge.NAMES.index(name) for name in (label, *(other for other in labels if other != label))]
    said = heads.probabilities(features)[:, :, names].log().mean(0)
    return said[:, 0] - said[:, 1:].logsumexp(1)


def draw(
    base: adapt.Backbone, adapter: adapt.Adapter, label: str, word: str, words: float, of_class: float, each: int
) -> Tensor:
    """(each, 3, H, W) in [0, 1]."""
    drawn = adapt.generate(
        base, adapters=[adapter], prompt=word, class_name=label, guidance_scale=words, class_scale=of_class, seed=500,
        count=each, batch_size=10,
    )  # fmt: skip
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in drawn]) / 255


def scores(args: argparse.Namespace, base: adapt.Backbone, adapter: adapt.Adapter, seen: tuple[judge.Judge, PhotoNet],
           words: float, of_class: float) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(score of the words, score of the class, pictures), a row a drawing: classes × colours × noises."""
    told, known, out = [], [], []
    for label in args.classes:
        for number, word in enumerate(COLOURS):
            batch = draw(base, adapter, label, word, words, of_class, args.each)
            features = seen[1].features((255 * batch).round().byte())
            known.append(log_odds(seen[0], features, label, adapter.labels))
            told.append(colour_score(batch, number))
            out.append(batch)
    return torch.cat(told), torch.cat(known), torch.cat(out)


def change(own: Sequence[float], other: Sequence[float]) -> dict[str, float | bool]:
    """What a dial does from the first scale to the last."""
    rise, fall = own[-1] - own[0], other[0] - other[-1]
    return {"rise": rise, "fall of the other": fall, "by less": fall < rise}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a class adapter of examples/data/animals")
    parser.add_argument("--classes", nargs="+", default=["cat", "fish", "horse", "monkey"])
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0, 2.0, 3.0, 4.0])
    parser.add_argument("--held", type=float, default=2.0, help="the other scale")
    parser.add_argument("--each", type=int, default=6, help="noises for a class and a colour")
    parser.add_argument("--packages", type=Path, default=default_folder() / "icon_sets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/joint_guidance"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    heads, _, name = judge.obtain(args.packages, BUNDLED / "vae")
    base, adapter, seen = adapt.Backbone.load("icons"), adapt.Adapter.load(args.run), (heads, PhotoNet())
    first, found, shown = args.scales[0], {}, []
    scales = {"words": args.scales, "class": [0.0, *args.scales]}
    for dial in ("words", "class"):
        for scale in scales[dial]:
            pair = (scale, args.held) if dial == "words" else (args.held, scale)
            told, known, batch = scores(args, base, adapter, seen, *pair)
            found[dial, scale] = {"words": told, "class": known}
            shown.append(batch[:: args.each])
            print(f"{dial} {scale:g}: words {told.mean():.3f}, class {known.mean():.3f}", flush=True)
    spread = {score: float(torch.cat([each[score] for each in found.values()]).std()) for score in ("words", "class")}
    report = {"judge": name, "spread": spread, "dials": {}}
    for dial, other in (("words", "class"), ("class", "words")):
        steps = [{score: mean(found[dial, s][score] / spread[score]) for score in spread} for s in scales[dial]]
        own, side = ([step[score].value for step in steps] for score in (dial, other))
        report["dials"][dial] = {
            "scales": scales[dial],
            "own": own,
            "own errors": [step[dial].error for step in steps],
            "other": side,
            "own rises step by step": own == sorted(own),
            **{f"from {scales[dial][k]:g} on": change(own[k:], side[k:]) for k in {0, scales[dial].index(first)}},
        }
        print(f"{dial}: {report['dials'][dial]}")
    (args.out / "joint_guidance.json").write_text(json.dumps(report, indent=2) + "\n")
    pictures.grid(torch.cat(shown) * 2 - 1, len(args.classes) * len(COLOURS)).save(args.out / "sheet.png")


if __name__ == "__main__":
    main()
