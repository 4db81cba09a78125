"""Are edits learned from pairs? `icons` with a wider first layer (InstructPix2Pix) is taught three edits of unlike kinds.

    python benchmarks/edit.py --out runs/edit
    python benchmarks/edit.py --taught 20 --asked 6 --steps 40        # a quick try

The bundled base is made an InstructPix2Pix that pays no heed to its source: its first layer gets four more channels of zeros, as
in the paper (section 3.2). It is taught `--taught` pictures of `examples/data`, each negative, grey and upside down, with these
words, and asked with `--asked` others. Measured are the paired held-out loss, beside a run of the same steps whose sources are
other pictures; and drawings: whether the nearest of all true results of an edit is that of the picture that was given (chance: 1
in `--asked`), and the nearest of a picture's true results that of the words that were given (chance: a third).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from PIL import Image, ImageOps

import adapt
from adapt.quiet import quiet_libraries

ROOT = Path(__file__).parents[1]
EDITS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "make it negative": ImageOps.invert,
    "make it grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "turn it upside down": ImageOps.flip,
}
SIDE = 64


def make_base(folder: Path) -> None:
    """`icons` that is given a picture and, at first, does not look at it."""
    with quiet_libraries():
        plain = adapt.Backbone.load("icons").pipeline
        unet = UNet2DConditionModel.from_config({**plain.unet.config, "in_channels": 2 * plain.unet.config.in_channels})
        held = dict(plain.unet.state_dict())
        held["conv_in.weight"] = torch.cat([held["conv_in.weight"], torch.zeros_like(held["conv_in.weight"])], 1)
        unet.load_state_dict(held)
        parts = {**plain.components, "unet": unet}
        StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)


def write_pairs(folder: Path, pictures: Sequence[Image.Image], sources: Sequence[int]) -> None:
    """`sources`: whose picture stands before each one's edits."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []
    for number, (picture, source) in enumerate(zip(pictures, sources, strict=True)):
        pictures[source].save(folder / f"{number}-before.png")
        for kind, (words, edit) in enumerate(EDITS.items()):
            edit(picture).save(folder / f"{number}-{kind}.png")
            rows.append({"file_name": f"{number}-{kind}.png", "source": f"{number}-before.png", "text": words})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")


def taught(name: str, args: argparse.Namespace) -> adapt.TrainingResult:
    """The run on the pairs of that name."""
    settings = adapt.TrainSettings(
        preset="edit", steps=args.steps, batch_size=args.batch, learning_rate=args.learning_rate, rank=args.rank,
        validation=str(args.out / "held-out"), validate_every=max(1, args.steps // 4), validation_members=0,
        previews=("make it grey",), ema=0.0,
    )  # fmt: skip
    base = str(args.out / "base")
    return adapt.train(args.out / name, output=args.out / f"run-{name}", base=base, settings=settings, existing="auto")


def drawings(args: argparse.Namespace, adapter: adapt.Adapter, pictures: Sequence[Image.Image]) -> np.ndarray:
    """One of each edit of each picture: (pictures, edits, 64, 64, 3) in [0, 1]."""
    base = adapt.Backbone.load(str(args.out / "base"))
    found = [
        [
            np.asarray(adapt.generate(base, prompt=words, image=picture, adapters=[adapter], seed=number)[0]) / 255
            for words in EDITS
        ]
        for number, picture in enumerate(pictures)
    ]
    return np.array(found)


def nearest(drawn: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """How often the nearest true result is of the given picture, and of the given words, with standard errors."""
    apart = np.square(drawn[:, :, None, None] - right[None, None]).mean((-1, -2, -3))  # (n, e, n, e)
    n, e = drawn.shape[:2]
    same_words = np.stack([apart[:, k, :, k].argmin(1) == np.arange(n) for k in range(e)], 1)
    same_picture = np.stack([apart[i, :, i].argmin(1) == np.arange(e) for i in range(n)])
    found = {"of the picture": same_words.mean(1), "of the words": same_picture.mean(1)}
    return {
        **{name: float(values.mean()) for name, values in found.items()},
        **{f"{name}, error": float(values.std(ddof=1) / n**0.5) for name, values in found.items()},
        "distance": float(np.sqrt(np.einsum("ikik->ik", apart)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taught", type=int, default=78)
    parser.add_argument("--asked", type=int, default=24)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/edit"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    files = [*sorted((ROOT / "examples/data/openmoji/train").glob("*.png")),
             *sorted((ROOT / "examples/data/animals/train").rglob("*.png"))]  # fmt: skip
    order = np.random.default_rng(0).permutation(len(files))[: args.taught + args.asked]
    every = [Image.open(files[i]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for i in order]
    learned, asked = every[: args.taught], every[args.taught :]
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "base").is_dir():
        make_base(args.out / "base")
    write_pairs(args.out / "pairs", learned, range(len(learned)))
    write_pairs(args.out / "strangers", learned, np.roll(np.arange(len(learned)), 1).tolist())
    write_pairs(args.out / "held-out", asked, range(len(asked)))
    right = np.array([[np.asarray(edit(picture)) / 255 for edit in EDITS.values()] for picture in asked])
    found: dict[str, object] = {
        "settings": {k: v for k, v in vars(args).items() if k != "out"},
        "chance": 1 / len(asked),
    }
    for name in ("pairs", "strangers"):
        result = taught(name, args)
        assert result.held_out is not None
        seen = nearest(drawings(args, result.adapter, asked), right)
        found[name] = {"held out": result.held_out.as_dict(), "nearest": seen}
        print(f"{name}: held-out loss {result.held_out.ratio:.3f} ± {result.held_out.standard_error or 0:.3f} of the base's; "
              + ", ".join(f"{key} {value:.3f}" for key, value in seen.items()), flush=True)  # fmt: skip
    (args.out / "edit.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
