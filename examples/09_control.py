"""Teaches an adapter to draw along the edges of a picture, and has it draw other things along them.

    python examples/09_control.py    # a look in a minute
    python examples/09_control.py --steps 1500 --data runs/icons/data    # hundreds of pictures: then it follows

`control="files"` takes maps of your own (depth, a pose) instead, named by the column `control_image` of metadata.jsonl;
`--net` trains a whole ControlNet, which diffusers reads as its own.
"""

import argparse
from pathlib import Path

from PIL import Image

import adapt

PICTURES = Path(__file__).parent / "data" / "openmoji"


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=PICTURES / "train", help="what is taught")
    parser.add_argument("--net", action="store_true", help="a ControlNet instead of one layer")
    parser.add_argument("--prompt", default="fox", help="what is drawn along the edges")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--sampling-steps", type=int, default=10, help="steps of a drawing")
    parser.add_argument("--output", type=Path, default=Path("runs/example-09"), help="the run's folder")
    return parser


def main() -> None:
    """Trains, and writes `control.png` beside the run: control, drawing without it, drawing along it."""
    words = parser().parse_args()
    kind = {"control_as": "controlnet", "control_learning_rate": 3e-4} if words.net else {}
    settings = adapt.TrainSettings(steps=words.steps, control="edges", learning_rate=1e-3, sampling_steps=10, **kind)
    result = adapt.train(words.data, output=words.output, settings=settings, existing="fresh")
    base = adapt.Backbone.load("icons")
    side, controls = base.resolution, sorted((PICTURES / "held-out").glob("*.png"))[:4]
    sheet = Image.new("RGB", (side * 3, side * len(controls)), "white")
    for y, path in enumerate(controls):
        with Image.open(path) as picture:
            control = picture.convert("RGB").resize((side, side))
        sheet.paste(control, (0, y * side))
        for x, strength in enumerate((0.0, 1.0), 1):
            asked = {"control": control, "control_scale": strength, "steps": words.sampling_steps, "seed": y}
            drawn = adapt.generate(base, adapters=[result.adapter], prompt=words.prompt, **asked)[0]
            sheet.paste(drawn, (x * side, y * side))
    sheet.save(words.output / "control.png")
    print(f"{words.output / 'control.png'}: {words.prompt} along {len(controls)} pictures")


if __name__ == "__main__":
    main()
