"""Is filling learned from pictures alone? `icons` with a wider first layer (an inpainting base) is taught holes.

    python benchmarks/inpainting.py --out runs/inpainting
    python benchmarks/inpainting.py --taught 16 --asked 6 --steps 30        # a quick try

The bundled base is made an inpainting base that looks neither at the hole nor at what is around it: its first layer gets five
more channels of zeros. It is taught `--taught` pictures of `examples/data`, and asked to fill a box in the middle of `--asked`
others that it never saw. Beside it stands a run of the same steps on the same pictures whose masks are white all over, so that
no row shows anything of its picture. Measured are the paired held-out loss around holes, and drawings: how far what is outside
the hole is from the picture, and whether of all pictures' boxes the nearest to what was filled in is the picture's own (chance:
1 in `--asked`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionInpaintPipeline, UNet2DConditionModel
from PIL import Image

import adapt
from adapt.quiet import quiet_libraries

ROOT = Path(__file__).parents[1]
SIDE, BOX = 64, (20, 20, 44, 44)
WORDS = "an icon"


def make_base(folder: Path) -> None:
    """`icons` that is shown a hole and what is around it, and at first does not look at them."""
    with quiet_libraries():
        plain = adapt.Backbone.load("icons").pipeline
        weight = plain.unet.conv_in.weight
        unet = UNet2DConditionModel.from_config({**plain.unet.config, "in_channels": 2 * weight.shape[1] + 1})
        wider = torch.cat([weight, weight.new_zeros(len(weight), weight.shape[1] + 1, *weight.shape[2:])], 1)
        unet.load_state_dict({**plain.unet.state_dict(), "conv_in.weight": wider})
        parts = {**plain.components, "unet": unet}
        StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)


def write(folder: Path, pictures: Sequence[Image.Image], white: bool = False) -> None:
    """Pictures with the same words; `white`: each with a mask that is white all over."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(WORDS, "utf-8")
        if white:
            Image.new("L", picture.size, 255).save(folder / f"{number}-masklabel.png")


def taught(name: str, args: argparse.Namespace) -> adapt.TrainingResult:
    """The run on the pictures of that name; it is measured around holes in any case."""
    settings = adapt.TrainSettings(
        steps=args.steps, batch_size=args.batch, learning_rate=args.learning_rate, rank=args.rank, inpaint_masks=args.masks,
        masks="files" if name == "blind" else "none", caption_dropout=0.0,
        validation=str(args.out / "held-out"), validate_every=max(1, args.steps // 4), validation_members=0,
        previews=(WORDS,), ema=0.0,
    )  # fmt: skip
    base = str(args.out / "base")
    return adapt.train(args.out / name, output=args.out / f"run-{name}", base=base, settings=settings, existing="auto")


def drawings(
    args: argparse.Namespace, adapters: Sequence[adapt.Adapter], pictures: Sequence[Image.Image]
) -> np.ndarray:
    """Each picture with its box filled: (n, 64, 64, 3) in [0, 1]."""
    base, mask = adapt.Backbone.load(str(args.out / "base")), Image.new("L", (SIDE, SIDE))
    mask.paste(255, BOX)
    asked = {"prompt": WORDS, "mask": mask, "guidance_scale": 1.0, "adapters": adapters}
    found = [adapt.generate(base, image=picture, seed=number, **asked)[0] for number, picture in enumerate(pictures)]
    return np.array([np.asarray(picture) / 255 for picture in found])


def measured(drawn: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Distance outside the hole, and how often the nearest box is the picture's own, with standard errors."""
    left, top, below, bottom = BOX
    inside = np.zeros(right.shape[1:3], bool)
    inside[top:bottom, left:below] = True
    outside = np.sqrt(np.square(drawn - right)[:, ~inside].mean((1, 2)))
    apart = np.square(drawn[:, None, inside] - right[None][:, :, inside]).mean((-1, -2))  # (n, n)
    own = apart.argmin(1) == np.arange(len(right))
    return {
        "outside": float(outside.mean()),
        "filled": float(np.sqrt(apart.diagonal()).mean()),
        "nearest is its own": float(own.mean()),
        "nearest is its own, error": float(own.std(ddof=1) / len(own) ** 0.5),
    }


def pictures_of(args: argparse.Namespace) -> list[Image.Image]:
    """As many as are taught and asked, in an order by lot."""
    files = [*sorted((ROOT / "examples/data/openmoji/train").glob("*.png")),
             *sorted((ROOT / "examples/data/animals/train").rglob("*.png"))]  # fmt: skip
    order = np.random.default_rng(0).permutation(len(files))[: args.taught + args.asked]
    return [Image.open(files[i]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for i in order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taught", type=int, default=78)
    parser.add_argument("--asked", type=int, default=24)
    parser.add_argument("--masks", type=int, default=16)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/inpainting"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    every = pictures_of(args)
    learned, asked = every[: args.taught], every[args.taught :]
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "base").is_dir():
        make_base(args.out / "base")
    write(args.out / "holes", learned)
    write(args.out / "blind", learned, white=True)
    write(args.out / "held-out", asked)
    right = np.array([np.asarray(picture) / 255 for picture in asked])
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    found: dict[str, object] = {"settings": settings, "chance": 1 / len(asked)}
    found["base"] = measured(drawings(args, [], asked), right)
    for name in ("holes", "blind"):
        result = taught(name, args)
        assert result.held_out is not None
        seen = measured(drawings(args, [result.adapter], asked), right)
        found[name] = {"held out": result.held_out.as_dict(), "drawings": seen}
        print(f"{name}: held-out loss {result.held_out.ratio:.3f} ± {result.held_out.standard_error or 0:.3f} of the base's; "
              + ", ".join(f"{key} {value:.3f}" for key, value in seen.items()), flush=True)  # fmt: skip
    print("base: " + ", ".join(f"{key} {value:.3f}" for key, value in dict(found["base"]).items()))  # type: ignore[call-overload]
    (args.out / "inpainting.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
