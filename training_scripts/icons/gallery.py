"""The picture of the card: one drawing of each caption.

python gallery.py ../../docs/pictures/icons.png [--pipeline FOLDER]
"""

import argparse
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

BUNDLED = Path(__file__).parents[2] / "adapt" / "bundled" / "icons"
NOUNS = (
    *(
        "apple",
        "cherries",
        "lemon",
        "pizza",
        "doughnut",
        "french fries",
        "mushroom",
        "cactus",
        "sunflower",
        "butterfly",
    ),
    *("fish", "penguin", "fox", "panda", "house", "volcano", "rainbow", "rocket", "sailboat", "locomotive", "guitar"),
    *("camera", "teddy bear", "umbrella"),
)
LOOKS = (
    *("penguin, noto style", "penguin, fluent style", "penguin, twemoji style", "penguin, outlined"),
    *("blue automobile", "green dragon", "purple fish", "pink guitar"),
)
COLUMNS, TIMES, COLOURS = 8, 2, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pipeline", type=Path, default=BUNDLED)
    args = parser.parse_args()
    pipe = StableDiffusionPipeline.from_pretrained(args.pipeline, use_safetensors=True)
    asked = [*enumerate(NOUNS), *enumerate(LOOKS)]  # seed, caption
    drawn = [
        pipe(caption, num_inference_steps=20, guidance_scale=3.0, generator=torch.Generator().manual_seed(seed)).images[
            0
        ]
        for seed, caption in asked
    ]
    side = drawn[0].width
    page = Image.new("RGB", (COLUMNS * side, len(drawn) // COLUMNS * side), "white")
    for place, picture in enumerate(drawn):
        page.paste(picture, (place % COLUMNS * side, place // COLUMNS * side))
    page = page.resize((TIMES * page.width, TIMES * page.height), Image.Resampling.LANCZOS)
    page.quantize(COLOURS).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
