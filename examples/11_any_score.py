"""Draws the same prompts plainly and towards what a score likes: here, redness.

    python examples/11_any_score.py
    python examples/11_any_score.py --scale 50 --prompt "balloon"

Any differentiable function of pictures will do, a judge of your own too: higher is better, one number a picture. At scale 1 the
score is not asked, and the drawing is the plain one to the bit.
"""

import argparse
from pathlib import Path

from PIL import Image
from torch import Tensor

import adapt


def redness(x: Tensor) -> Tensor:
    """Red beyond green and blue where something is drawn: pictures (B, 3, H, W) in [0, 1] → (B,)."""
    return (x[:, 0] - 0.5 * x[:, 1] - 0.5 * x[:, 2]).mean((1, 2))


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", action="append", help="may be given several times")
    parser.add_argument("--scale", type=float, default=100.0, help="1 is neutral")
    parser.add_argument("--steps", type=int, default=10, help="inference steps")
    parser.add_argument("--output", type=Path, default=Path("runs/example-11.png"))
    return parser


def main() -> None:
    """Draws two columns, plain and red, and pastes them into one picture."""
    words = parser().parse_args()
    prompts = words.prompt or ["balloon", "fish"]
    backbone = adapt.Backbone.load("icons")
    columns = []
    for scale in (1.0, words.scale):
        guidance = adapt.guided_by(backbone, redness, scale)
        columns.append(adapt.generate(backbone, prompt=prompts, guidance=guidance, steps=words.steps, seed=7))

    side = backbone.resolution
    sheet = Image.new("RGB", (side * len(columns), side * len(prompts)), "white")
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            sheet.paste(picture, (x * side, y * side))
    words.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(words.output)
    print(f"{words.output}: {len(prompts)} prompts, plain and at scale {words.scale:g}")


if __name__ == "__main__":
    main()
