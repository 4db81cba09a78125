"""Teaches classes by name: folders of animals in, one row of drawings for each of them out.

    python examples/06_classes.py    # a look in a minute
    python examples/06_classes.py --steps 600    # animals that anyone would recognise

No captions: a picture's class is the name of its folder, and it is learned beside the network, in the same adapter.
The first column is told its class without being guided by it, the others are guided (`class_scale`).
"""

import argparse
from pathlib import Path

from PIL import Image

import adapt

PICTURES = Path(__file__).parent / "data" / "animals" / "train"
SCALES = (1.0, 3.0)


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--sampling-steps", type=int, default=10, help="steps of a drawing")
    parser.add_argument("--output", type=Path, default=Path("runs/example-06"), help="the run's folder")
    return parser


def sheet(columns: list[list[Image.Image]]) -> Image.Image:
    """A row for every class, a column for every scale."""
    width, height = columns[0][0].size
    page = Image.new("RGB", (width * len(columns), height * len(columns[0])))
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            page.paste(picture, (x * width, y * height))
    return page


def main() -> None:
    """Trains, draws every class without and with guidance from the same noise, and writes `classes.png` beside the run."""
    words = parser().parse_args()
    settings = adapt.TrainSettings(steps=words.steps, classes=True, learning_rate=1e-3, previews=(), sampling_steps=10)
    result = adapt.train(PICTURES, output=words.output, settings=settings, existing="fresh")
    names = sorted(folder.name for folder in PICTURES.iterdir())
    base = adapt.Backbone.load("icons")
    columns = [
        adapt.generate(
            base, adapters=[result.adapter], prompt="", class_name=names, class_scale=scale, steps=words.sampling_steps
        )
        for scale in SCALES
    ]
    sheet(columns).save(words.output / "classes.png")
    print(f"{words.output / 'classes.png'}: {', '.join(names)}; class scale {' and '.join(map(str, SCALES))}")


if __name__ == "__main__":
    main()
