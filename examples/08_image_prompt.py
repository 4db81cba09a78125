"""Teaches an adapter to be asked by a picture, and asks it with pictures that it never saw.

    python examples/08_image_prompt.py    # a look in a minute
    python examples/08_image_prompt.py --steps 1500 --data runs/icons/data    # hundreds of pictures: then it follows

While it is taught, each picture is its own reference. First column: the reference; then drawings without words, by how strongly
the reference guides (1: it is told and does not guide).
"""

import argparse
from pathlib import Path

from PIL import Image

import adapt

PICTURES = Path(__file__).parent / "data" / "openmoji"
SCALES = (1.0, 2.0, 3.5)


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=PICTURES / "train", help="what is taught")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--sampling-steps", type=int, default=10, help="steps of a drawing")
    parser.add_argument("--output", type=Path, default=Path("runs/example-08"), help="the run's folder")
    return parser


def main() -> None:
    """Trains, draws by four references, and writes `references.png` beside the run."""
    words = parser().parse_args()
    settings = adapt.TrainSettings(steps=words.steps, image_prompts=True, learning_rate=1e-3, sampling_steps=10)
    result = adapt.train(words.data, output=words.output, settings=settings, existing="fresh")
    base = adapt.Backbone.load("icons")
    references = sorted((PICTURES / "held-out").glob("*.png"))[:4]
    side = base.resolution
    sheet = Image.new("RGB", (side * (1 + len(SCALES)), side * len(references)), "white")
    for y, reference in enumerate(references):
        with Image.open(reference) as picture:
            sheet.paste(picture.convert("RGB").resize((side, side)), (0, y * side))
        for x, scale in enumerate(SCALES, 1):
            asked = {"image_prompt": reference, "image_prompt_scale": scale, "steps": words.sampling_steps, "seed": y}
            drawn = adapt.generate(base, adapters=[result.adapter], prompt="", **asked)[0]
            sheet.paste(drawn, (x * side, y * side))
    sheet.save(words.output / "references.png")
    print(f"{words.output / 'references.png'}: {len(references)} references at scales {', '.join(map(str, SCALES))}")


if __name__ == "__main__":
    main()
