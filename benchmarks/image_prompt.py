"""Does a drawing follow its reference picture? An adapter of `image_prompts=true` on `icons`, asked with unseen pictures.

    python training_scripts/icons/prepare.py OPENMOJI --size 64 --packages openmoji@1.2.29 --plain
    python benchmarks/image_prompt.py OPENMOJI --out runs/image_prompt
    python benchmarks/image_prompt.py OPENMOJI --taught 60 --asked 20 --steps 20        # a quick try

It is taught `--taught` OpenMoji drawings without captions and asked with `--asked` others, one drawing each, without words. A
drawing is right when of all references its own is the nearest, by palette (means of 4 × 4 places) and shape (ink on 8 × 8);
chance is 1 / asked. Beside it: the reference after the autoencoder, which is what a perfect adapter would reach, and drawings
without any reference. OUT gets `image_prompt.json` and `sheet.png`: reference, drawing, reference, drawing …
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "training_scripts" / "icons")]

import pictures  # noqa: E402

import adapt  # noqa: E402
from adapt.adapter import Adapter  # noqa: E402
from adapt.sampling.clip import as_picture  # noqa: E402


def drawn_by_lot(folder: Path, count: int, seed: int) -> Tensor:
    """So many pictures of the data, in an order by lot: uint8 (count, 3, size, size)."""
    data = pictures.read(folder)
    rows = data.where(lambda row: row.kind == "plain")
    lot = np.random.default_rng(seed).permutation(rows)[:count]
    if len(lot) < count:
        raise SystemExit(f"{folder} holds {len(rows)} pictures: --taught and --asked are {count} together")
    return data.pictures(sorted(lot.tolist()))[torch.from_numpy(np.random.default_rng(seed + 1).permutation(count))]


def features(batch: Tensor) -> Tensor:
    """Palette and shape of pictures (N, 3, H, W) in [0, 1] → (N, 112), each half of unit spread."""
    palette = F.adaptive_avg_pool2d(batch, 4).flatten(1)
    shape = F.adaptive_avg_pool2d((1 - batch.amin(1, keepdim=True)).clamp(0, 1), 8).flatten(1)
    return torch.cat(
        [palette / palette.std() / palette.shape[1] ** 0.5, shape / shape.std() / shape.shape[1] ** 0.5], 1
    )


def right(drawings: Tensor, references: Tensor) -> Tensor:
    """Whether each drawing's nearest reference is its own (N,), bool."""
    both = features(torch.cat([drawings, references]))
    distances = torch.cdist(both[: len(drawings)], both[len(drawings) :])
    return distances.argmin(1) == torch.arange(len(drawings))


def share(found: Tensor) -> dict[str, float]:
    """Of those that are true, with its standard error."""
    p = float(found.double().mean())
    return {"share": round(p, 4), "error": round((p * (1 - p) / len(found)) ** 0.5, 4)}


def taught(batch: Tensor, out: Path, args: argparse.Namespace) -> Adapter:
    """An adapter that learned to draw what it is shown."""
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(batch):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(Path(folder) / f"{number:04d}.png")
        settings = adapt.TrainSettings(
            image_prompts=True, steps=args.steps, batch_size=args.batch, learning_rate=args.learning_rate, rank=args.rank,
            image_prompt_learning_rate=args.projector_rate, validation=0, flip=0.5, caption_dropout=0, joint_dropout=0,
            previews=("",),
        )  # fmt: skip
        return adapt.train(folder, output=out / "run", settings=settings, existing="auto").adapter


def asked(base: adapt.Backbone, adapter: Adapter, references: list[Image.Image | None], scale: float) -> Tensor:
    """One drawing a reference: (N, 3, H, W) in [0, 1]."""
    found = []
    for number, picture in enumerate(references):
        strength = None if picture is None else scale
        found += adapt.generate(
            base, adapters=[adapter], prompt="", seed=1000 + number, image_prompt=picture, image_prompt_scale=strength
        )
    return torch.stack([as_tensor(as_picture(drawing)) for drawing in found])


def as_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1) / 255


def sheet(references: Tensor, drawings: Tensor, path: Path, pairs: int = 40) -> None:
    both = torch.stack([references[:pairs], drawings[:pairs]], 1).flatten(0, 1)
    pictures.grid(both * 2 - 1, 16).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of prepare.py with OpenMoji, 64 px")
    parser.add_argument("--taught", type=int, default=700)
    parser.add_argument("--asked", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--projector-rate", type=float, default=1e-3)
    parser.add_argument("--scale", type=float, default=3.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/image_prompt"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    every = drawn_by_lot(args.data, args.taught + args.asked, seed=0)
    references = every[args.taught :] / 255
    shown = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in every[args.taught :]]
    started = time.perf_counter()
    adapter = taught(every[: args.taught], args.out, args)
    seconds = time.perf_counter() - started
    base = adapt.Backbone.load("icons")
    mean, _ = base.encode_media(references * 2 - 1)
    again = (base.decode(mean).clamp(-1, 1) + 1) / 2
    drawings, alone = asked(base, adapter, list(shown), args.scale), asked(base, adapter, [None] * len(shown), 1.0)
    found = {
        "drawings": share(right(drawings, references)),
        "drawings without a reference": share(right(alone, references)),
        "references after the autoencoder": share(right(again, references)),
        "chance": 1 / args.asked,
        "seconds of training": round(seconds, 1),
        "settings": {name: str(value) for name, value in vars(args).items() if name not in ("data", "out")},
    }
    (args.out / "image_prompt.json").write_text(json.dumps(found, indent=2) + "\n")
    sheet(references, drawings, args.out / "sheet.png")
    for name, value in found.items():
        print(f"{name}: {value}")
    print("wanted: drawings ≥ 0.80")


if __name__ == "__main__":
    main()
