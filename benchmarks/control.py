"""Does a drawing follow its control? An adapter of `control=edges` on `icons`, asked with edges of unseen pictures.

    python training_scripts/icons/prepare.py DATA --size 64
    python benchmarks/control.py DATA --out runs/control
    python benchmarks/control.py DATA --taught 60 --asked 10 --steps 20        # a quick try

It is taught `--taught` icons with their names, and asked with the names and edges of `--asked` others. The edges of each
drawing are compared with its control's (F-score; an edge counts where the other has one within a pixel), beside drawings of
the same captions and noises without a control; a judge that learned real icons alone says whether the noun is still there.
Goal: F-score at least twice the other's, retrieval at most 10 points lower. OUT gets `control.json` and `sheet.png`:
control, drawing, without …
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "training_scripts" / "icons"), str(ROOT / "benchmarks")]

import pictures  # noqa: E402
from iconify import CATEGORIES, caption  # noqa: E402
from icons.critic import Critic  # noqa: E402
from icons.drawing import BUNDLED  # noqa: E402
from icons.lessons import judged, obtain  # noqa: E402
from icons.measures import mean  # noqa: E402

import adapt  # noqa: E402
from adapt.adapter import Adapter  # noqa: E402
from adapt.data.controls import edges  # noqa: E402
from adapt.sampling.clip import as_picture  # noqa: E402

LINE = 0.0
"""In -1 … 1: what is brighter is an edge."""


def lines(batch: Tensor) -> Tensor:
    """Where pictures uint8 (N, 3, H, W) have edges: (N, 1, H, W) of 0 and 1."""
    found = torch.stack([edges(picture) for picture in pictures.scaled(batch)])
    return (found[:, :1] > LINE).float()


def f_scores(batch: Tensor, controls: Tensor) -> Tensor:
    """Harmonic mean of precision and recall of the edges, with a pixel of tolerance (N,)."""
    drawn, wanted = lines(batch), lines(controls)
    near_wanted, near_drawn = (F.max_pool2d(x, 3, 1, 1) for x in (wanted, drawn))
    precision = (drawn * near_wanted).sum((1, 2, 3)) / drawn.sum((1, 2, 3)).clamp(min=1)
    recall = (wanted * near_drawn).sum((1, 2, 3)) / wanted.sum((1, 2, 3)).clamp(min=1)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)


def by_lot(data: pictures.Drawn, count: int) -> tuple[Tensor, list[str]]:
    """Pictures as drawn, one of each noun, and the nouns."""
    rows = data.where(lambda row: row.category in CATEGORIES and row.kind == "plain" and judged(row))
    order = np.random.default_rng(0).permutation(rows).tolist()
    first = {data.rows[i].name: i for i in reversed(order)}
    chosen = [i for i in order if first[data.rows[i].name] == i][:count]
    if len(chosen) < count:
        raise SystemExit(f"there are {len(chosen)} nouns: --taught and --asked are {count} together")
    return data.pictures(chosen), [data.rows[i].name for i in chosen]


def taught(batch: Tensor, names: list[str], args: argparse.Namespace) -> Adapter:
    """An adapter that learned to draw along edges."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (picture, name) in enumerate(zip(batch, names, strict=True)):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(Path(folder) / f"{number:04d}.png")
            (Path(folder) / f"{number:04d}.txt").write_text(caption(name), "utf-8")
        settings = adapt.TrainSettings(
            control="edges", steps=args.steps, batch_size=args.batch, learning_rate=args.learning_rate, rank=args.rank,
            validation=0, flip=0.5, previews=("",),
        )  # fmt: skip
        return adapt.train(folder, output=args.out / "run", settings=settings, existing="auto").adapter


def asked(base: adapt.Backbone, adapter: Adapter, names: list[str], controls: list[Image.Image | None]) -> Tensor:
    """One drawing a name: uint8 (N, 3, H, W)."""
    found = []
    for number, (name, control) in enumerate(zip(names, controls, strict=True)):
        found += adapt.generate(base, adapters=[adapter], prompt=caption(name), seed=2000 + number, control=control)
    return torch.stack([torch.from_numpy(np.array(as_picture(one).convert("RGB"))).permute(2, 0, 1) for one in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of prepare.py, 64 px")
    parser.add_argument("--taught", type=int, default=600)
    parser.add_argument("--asked", type=int, default=200)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument(
        "--mirrored", action="store_true", help="ask with mirrored pictures, which the base would not draw"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/control"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    data = pictures.read(args.data)
    every, names = by_lot(data, args.taught + args.asked)
    controls, words = every[args.taught :], names[args.taught :]
    controls = controls.flip(3) if args.mirrored else controls
    adapter = taught(every[: args.taught], names[: args.taught], args)
    judge, said = obtain(data, BUNDLED / "vae")
    critic, base = Critic(judge, data), adapt.Backbone.load("icons")
    shown: list[Image.Image | None] = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in controls]
    along, free = asked(base, adapter, words, shown), asked(base, adapter, words, [None] * len(words))
    found = {"judge": said, "settings": {k: str(v) for k, v in vars(args).items() if k not in ("data", "out")}}
    for name, batch in (("along the control", along), ("without", free)):
        score, right = mean(f_scores(batch, controls)), mean(critic.ranks(critic.see(batch), words) < 1)
        found[name] = {"F-score": vars(score), "retrieval": vars(right)}
        print(f"{name}: F-score {score.value:.3f} ± {score.error:.3f}, retrieval {right.percent}")
    (args.out / "control.json").write_text(json.dumps(found, indent=2) + "\n")
    drawn_lines = (255 * lines(controls)).byte().expand(-1, 3, -1, -1)
    both = torch.stack([drawn_lines[:40], along[:40], free[:40]], 1).flatten(0, 1)
    pictures.grid(pictures.scaled(both), 15).save(args.out / "sheet.png")
    print("wanted: F-score at least twice the other's, retrieval at most 10 points lower")


if __name__ == "__main__":
    main()
