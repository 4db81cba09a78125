"""Does a drawing follow its control? An adapter of `control=edges` on `icons`, asked with edges of unseen pictures.

    python training_scripts/icons/prepare.py DATA --size 64
    python training_scripts/icons/prepare.py OPENMOJI --size 64 --packages openmoji@1.2.29 --plain
    python benchmarks/control.py DATA OPENMOJI --out runs/control
    python benchmarks/control.py DATA OPENMOJI --run runs/control/run --asked 60       # an adapter that is there
    python benchmarks/control.py DATA OPENMOJI --set control_as=controlnet control_learning_rate=3e-4 --out runs/net
    python benchmarks/control.py DATA OPENMOJI --taught 60 --asked 10 --steps 20        # a quick try

It is taught `--taught` nouns, each as every set of the base draws it, with their names, and asked with the names of `--asked`
others, from the same noises, along five kinds of controls and without any:

    own        the noun's picture in one of the base's own sets: `icons` draws much of it unasked, because it was trained on it
    mirrored   the same mirrored
    openmoji   the noun as OpenMoji draws it, which neither the base nor the adapter has seen
    moved      the first at three quarters of its size in a corner, by lot: icons fill their page
    other      the picture of the next noun, against the words

What is compared are edges: of a drawing, and of its control. An edge counts where the other picture has one within a tolerance.
BSDS (Martin et al. 2004) takes 0.75 % of the diagonal, which is 0.7 px here, so the very pixel; ControlNet++ (arXiv 2404.07987)
takes the pixel too. One pixel of tolerance, 2.2 % of the diagonal, is printed beside it. Chance is the F-score of drawings
without a control with the controls of the next noun. A judge that learned real icons alone says whether the noun is still there,
in drawings and in the controls themselves. Goal, for controls that the base has not seen (openmoji, moved), at the pixel: F-score
at least twice that of drawings without a control, retrieval at most 10 points lower. OUT gets `control.json` and `sheet.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

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
from icons.measures import jackknife, mean  # noqa: E402

import adapt  # noqa: E402
from adapt import config  # noqa: E402
from adapt.adapter import Adapter  # noqa: E402
from adapt.data.controls import edges  # noqa: E402
from adapt.sampling.clip import as_picture  # noqa: E402

LINE = 0.0
"""In -1 … 1: what is brighter is an edge."""


def lines(batch: Tensor) -> Tensor:
    """Where pictures uint8 (N, 3, H, W) have edges: (N, 1, H, W) of 0 and 1."""
    found = torch.stack([edges(picture) for picture in pictures.scaled(batch)])
    return (found[:, :1] > LINE).float()


def f_scores(batch: Tensor, controls: Tensor, tolerance: int) -> Tensor:
    """Harmonic mean of precision and recall of the edges, with so many pixels of tolerance (N,)."""
    drawn, wanted = lines(batch), lines(controls)
    near_wanted, near_drawn = (F.max_pool2d(x, 2 * tolerance + 1, 1, tolerance) for x in (wanted, drawn))
    precision = (drawn * near_wanted).sum((1, 2, 3)) / drawn.sum((1, 2, 3)).clamp(min=1)
    recall = (wanted * near_drawn).sum((1, 2, 3)) / wanted.sum((1, 2, 3)).clamp(min=1)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)


def moved(batch: Tensor) -> Tensor:
    """Pictures at three quarters of their size in a corner by lot, on white."""
    side = batch.shape[-1]
    small = F.interpolate(batch.float(), size=(3 * side // 4,) * 2, mode="bicubic", antialias=True)
    small = small.clamp(0, 255).round().byte()
    page, lot = torch.full_like(batch, 255), np.random.default_rng(1).integers(0, 2, (len(batch), 2))
    for whole, part, corner in zip(page, small, (lot * (side - small.shape[-1])).tolist(), strict=True):
        whole[:, corner[0] : corner[0] + part.shape[1], corner[1] : corner[1] + part.shape[2]] = part
    return page


def by_lot(
    data: pictures.Drawn, others: pictures.Drawn, args: argparse.Namespace
) -> tuple[Tensor, list[str], Tensor, list[str], Tensor]:
    """Pictures as drawn, and their nouns: those that are taught, in every set; one of each that is asked for, which OpenMoji
    has too; its pictures of these."""
    rows = data.where(lambda row: row.category in CATEGORIES and row.kind == "plain" and judged(row))
    order = np.random.default_rng(0).permutation(rows).tolist()
    first = {data.rows[i].name: i for i in reversed(order)}
    chosen = [i for i in order if first[data.rows[i].name] == i]
    also = {others.rows[i].name: i for i in others.where(lambda row: row.kind == "plain")}
    asked = [i for i in chosen[args.taught :] if data.rows[i].name in also][: args.asked]
    if len(asked) < args.asked:
        raise SystemExit(f"there are {len(asked)} nouns to ask for beside {args.taught} taught ones, not {args.asked}")
    lessons = {data.rows[i].name for i in chosen[: args.taught]}
    taught = [i for i in order if data.rows[i].name in lessons]
    names = [[data.rows[i].name for i in part] for part in (taught, asked)]
    return data.pictures(taught), names[0], data.pictures(asked), names[1], others.pictures([also[n] for n in names[1]])


def taught(batch: Tensor, names: list[str], args: argparse.Namespace) -> Adapter:
    """An adapter that learned to draw along edges."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (picture, name) in enumerate(zip(batch, names, strict=True)):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(Path(folder) / f"{number:04d}.png")
            (Path(folder) / f"{number:04d}.txt").write_text(caption(name), "utf-8")
        told = {"control": "edges", "steps": args.steps, "batch_size": args.batch, "learning_rate": args.learning_rate}
        also = {"rank": args.rank, "validation": 0, "flip": 0.5, "preview_every": args.steps, "save_every": 200}
        words = [*(f"{name}={value}" for name, value in {**told, **also}.items()), *args.set]
        settings = config.resolve(overrides=words).settings
        return adapt.train(folder, output=args.out / "run", settings=settings, existing="auto").adapter


def asked(base: adapt.Backbone, adapter: Adapter, names: list[str], controls: Tensor | None, scale: float) -> Tensor:
    """One drawing a name: uint8 (N, 3, H, W)."""
    found = []
    for number, name in enumerate(names):
        control = None if controls is None else Image.fromarray(controls[number].permute(1, 2, 0).numpy())
        found += adapt.generate(
            base, adapters=[adapter], prompt=caption(name), seed=2000 + number, control=control, control_scale=scale
        )
    return torch.stack([torch.from_numpy(np.array(as_picture(one).convert("RGB"))).permute(2, 0, 1) for one in found])


def compared(along: Tensor, free: Tensor, controls: Tensor, critic: Critic, names: list[str]) -> dict[str, Any]:
    """Drawings along a kind of controls beside those without any."""
    found: dict[str, Any] = {}
    for tolerance in (0, 1):
        followed, alone = (f_scores(batch, controls, tolerance) for batch in (along, free))
        chance = f_scores(free, controls.roll(-1, 0), tolerance)
        ratio = jackknife(len(names), lambda i, a=followed, b=alone: float(a[i].mean() / b[i].mean()))
        scores = {"along": followed, "without": alone, "chance": chance}
        found[f"F-score, {tolerance} px"] = {who: vars(mean(x)) for who, x in scores.items()} | {"ratio": vars(ratio)}
    seen = {"along": along, "without": free, "the controls": controls}
    found["retrieval"] = {who: vars(mean(critic.ranks(critic.see(x), names) < 1)) for who, x in seen.items()}
    return found


def told(kind: str, found: dict[str, Any]) -> None:
    for what, each in found.items():
        values = ", ".join(f"{who} {x['value']:.3f} ± {x['error']:.3f}" for who, x in each.items())
        print(f"{kind}, {what}: {values}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of prepare.py, 64 px")
    parser.add_argument("openmoji", type=Path, help="the same of OpenMoji")
    parser.add_argument("--run", type=Path, help="a trained adapter, instead of training one")
    parser.add_argument("--taught", type=int, default=600)
    parser.add_argument("--asked", type=int, default=200)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more training settings")
    parser.add_argument("--only-train", action="store_true", help="stop when the adapter is there")
    parser.add_argument("--scale", type=float, default=1.0, help="control scale")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/control"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    data = pictures.read(args.data)
    lessons, known, own, words, theirs = by_lot(data, pictures.read(args.openmoji), args)
    adapter = Adapter.load(args.run) if args.run else taught(lessons, known, args)
    if args.only_train:
        return
    judge, said = obtain(data, BUNDLED / "vae")
    critic, base = Critic(judge, data), adapt.Backbone.load("icons")
    kinds = {"own": own, "mirrored": own.flip(3), "openmoji": theirs, "moved": moved(own), "other": own.roll(-1, 0)}
    free, shown = asked(base, adapter, words, None, 1.0), list[Tensor]()
    settings = {k: str(v) for k, v in vars(args).items() if k not in ("data", "openmoji", "out", "run")}
    found: dict[str, Any] = {"judge": said, "settings": settings}
    for kind, controls in kinds.items():
        along = asked(base, adapter, words, controls, args.scale)
        found[kind] = compared(along, free, controls, critic, words)
        told(kind, found[kind])
        (args.out / "control.json").write_text(json.dumps(found, indent=2) + "\n")
        drawn_lines = (255 * lines(controls[:6])).byte().expand(-1, 3, -1, -1)
        shown.append(torch.stack([drawn_lines, along[:6], free[:6]], 1).flatten(0, 1))
    pictures.grid(pictures.scaled(torch.cat(shown)), 18).save(args.out / "sheet.png")
    print("wanted of openmoji and moved at 0 px: a ratio of 2, retrieval at most 10 points lower")


if __name__ == "__main__":
    main()
