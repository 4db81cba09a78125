"""Adds classes to an adapter that has some: the old ones give the same pictures, byte for byte.

    python examples/07_class_growth.py --adapter runs/example-06

Only the new classes' rows are learned; the layers, the projector and the other rows stay as they are.
"""

import argparse
from pathlib import Path

from PIL import Image

import adapt

PICTURES = Path(__file__).parent / "data" / "animals" / "added"


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, default=Path("runs/example-06"), help="a run with classes")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--sampling-steps", type=int, default=10, help="steps of a drawing")
    parser.add_argument("--output", type=Path, default=Path("runs/example-07"), help="the run's folder")
    return parser


def main() -> None:
    """Trains the two new classes, compares the drawings of an old one, and draws the new ones."""
    words = parser().parse_args()
    settings = adapt.TrainSettings(
        steps=words.steps, classes=True, grow_from=str(words.adapter), previews=(), sampling_steps=10
    )
    grown = adapt.train(PICTURES, output=words.output, settings=settings, existing="fresh").adapter
    base, before = adapt.Backbone.load("icons"), adapt.Adapter.load(words.adapter)

    def drawn(adapter: adapt.Adapter, name: str) -> Image.Image:
        asked = {"prompt": "", "class_name": name, "class_scale": 3.0, "steps": words.sampling_steps}
        return adapt.generate(base, adapters=[adapter], **asked)[0]

    same = drawn(before, "cat").tobytes() == drawn(grown, "cat").tobytes()
    print(f"cat before and after: {'the same bytes' if same else 'not the same'}")
    for folder in sorted(PICTURES.iterdir()):
        drawn(grown, folder.name).save(words.output / f"{folder.name}.png")
        print(f"new: {words.output / folder.name}.png")


if __name__ == "__main__":
    main()
