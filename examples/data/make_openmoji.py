"""Makes `openmoji/`: 48 pictures to learn a style from and 16 held-out ones, each PNG with its caption beside it.

npm pack @iconify-json/openmoji@1.2.29
python examples/data/make_openmoji.py iconify-json-openmoji-1.2.29.tgz        needs `pip install resvg_py`

All nouns are captions that the bundled backbone was trained on (in another style), so only the style is new to it.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image

SIZE = 128

TRAIN = """
red-apple banana strawberry watermelon grapes pineapple avocado carrot eggplant tomato pizza hamburger doughnut
sunflower rose deciduous-tree palm-tree maple-leaf
fish dolphin octopus turtle lady-beetle butterfly duck owl panda fox
house volcano rainbow sun star fire bicycle automobile airplane
soccer-ball guitar key pencil hammer scissors light-bulb crown gem-stone top-hat wrapped-gift
"""

HELD_OUT = """
lemon cheese-wedge mushroom cactus evergreen-tree penguin crab frog
rocket sailboat umbrella balloon bell candle t-shirt teddy-bear
"""


def read(package: Path) -> dict[str, Any]:
    """`icons.json` of the tgz, or of the folder that it unpacks to."""
    if package.is_dir():
        return json.loads((package / "icons.json").read_text())
    with tarfile.open(package) as archive:
        file = archive.extractfile("package/icons.json")
        if file is None:
            raise SystemExit(f"{package} has no package/icons.json: is it the tgz of @iconify-json/openmoji?")
        return json.loads(file.read())


def draw(package: dict[str, Any], name: str) -> Image.Image:
    """One icon on white, SIZE × SIZE, RGB."""
    icon = {"left": 0, "top": 0, "width": package["width"], "height": package["height"], **package["icons"][name]}
    box = f"{icon['left']} {icon['top']} {icon['width']} {icon['height']}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE * 4, height=SIZE * 4))
    drawing = Image.open(io.BytesIO(png)).convert("RGBA")
    page = Image.new("RGBA", drawing.size, "white")
    page.alpha_composite(drawing)
    return page.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def write(package: dict[str, Any], names: list[str], folder: Path) -> None:
    """`red-apple.png`, and `red-apple.txt` with the words `red apple`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        draw(package, name).save(folder / f"{name}.png", optimize=True)
        (folder / f"{name}.txt").write_text(name.replace("-", " ") + "\n")
    print(f"{folder}: {len(names)} pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="tgz of @iconify-json/openmoji, or the folder it unpacks to")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "openmoji", help="where the pictures go")
    args = parser.parse_args()
    package = read(args.package)
    write(package, TRAIN.split(), args.out / "train")
    write(package, HELD_OUT.split(), args.out / "held-out")


if __name__ == "__main__":
    main()
