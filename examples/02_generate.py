"""Draws the same prompts with the backbone alone, with an adapter, and with half of the adapter.

    python examples/02_generate.py --adapter runs/example-01
    python examples/02_generate.py                           # without an adapter: one column

The same seed starts from the same noise, so what differs between the columns is the adapter. The backbone is afterwards
what it was before, bit for bit.
"""

import argparse
from pathlib import Path

from PIL import Image

import adapt


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="a run's folder, an adapter's folder, or a .safetensors")
    parser.add_argument("--prompt", action="append", help="may be given several times")
    parser.add_argument("--steps", type=int, default=10, help="inference steps")
    parser.add_argument("--output", type=Path, default=Path("runs/example-02.png"))
    return parser


def main() -> None:
    """Draws the columns and pastes them into one picture."""
    words = parser().parse_args()
    prompts = words.prompt or ["penguin", "mushroom", "sailboat"]
    backbone = adapt.Backbone.load("icons")
    columns = [adapt.generate(backbone, prompt=prompts, steps=words.steps, guidance_scale=2.0, seed=7)]
    if words.adapter:
        adapter = adapt.Adapter.load(words.adapter)
        for scale in (0.5, 1.0):  # 1 as trained, 0 nothing
            used = [(adapter, scale)]
            columns.append(
                adapt.generate(backbone, prompt=prompts, adapters=used, steps=words.steps, guidance_scale=2.0, seed=7)
            )

    side = backbone.resolution
    sheet = Image.new("RGB", (side * len(columns), side * len(prompts)), "white")
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            sheet.paste(picture, (x * side, y * side))
    words.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(words.output)
    print(f"{words.output}: {len(prompts)} prompts × {len(columns)} columns")


if __name__ == "__main__":
    main()
