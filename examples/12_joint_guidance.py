"""Class and words, each with a dial of its own: one sheet, the class's scale across, the words' down.

    python examples/12_joint_guidance.py --adapter runs/example-06 --class cat --prompt "blue"

The adapter is what `06_classes.py --steps 600` leaves. The noise is the same everywhere. At 1 a part is told and does not guide.
"""

import argparse
from pathlib import Path

from PIL import Image

import adapt

CLASS, WORDS = (1.0, 2.0, 4.0), (1.0, 3.0, 6.0)


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, default=Path("runs/example-06"), help="a run with classes")
    parser.add_argument("--class", dest="label", default="cat", help="one of its classes")
    parser.add_argument("--prompt", default="blue")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--sampling-steps", type=int, default=10, help="steps of a drawing")
    parser.add_argument("--output", type=Path, default=Path("runs/example-12.png"))
    return parser


def main() -> None:
    """Draws the grid."""
    words = parser().parse_args()
    base, adapter = adapt.Backbone.load("icons"), adapt.Adapter.load(words.adapter)
    side = base.resolution
    sheet = Image.new("RGB", (side * len(CLASS), side * len(WORDS)), "white")
    for y, guidance_scale in enumerate(WORDS):
        for x, class_scale in enumerate(CLASS):
            drawn = adapt.generate(
                base, adapters=[adapter], prompt=words.prompt, class_name=words.label, class_scale=class_scale,
                guidance_scale=guidance_scale, steps=words.sampling_steps, seed=words.seed,
            )[0]  # fmt: skip
            sheet.paste(drawn, (x * side, y * side))
    words.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(words.output)
    print(f"{words.output}: class scale {CLASS} across, guidance scale {WORDS} down")


if __name__ == "__main__":
    main()
