"""Draws icon packages: `pictures.npy`, uint8 (N, size, size, 3) on white, and `rows.json`, what each of them shows.

python prepare.py DATA --size 64                              # the three sets that `icons` learns, in all variants
python prepare.py MEASURE --size 64 --packages openmoji@1.2.29 --plain    # never trained on: to measure only

Packages are fetched from the npm registry into DATA/packages unless they are there. Variants: as drawn; outlined (a line
around every path: a decoder that never saw outlines cannot show a style that has them); recoloured, where a drawing has one
main colour; mirrored, where nothing in it reads from left to right.
"""

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import iconify
import numpy as np
from colours import COLOURS, Main, main_colour, recolour
from PIL import Image, ImageOps

PACKAGES = ("noto@1.2.9", "fluent-emoji-flat@1.2.6", "twemoji@1.2.5")
FORBIDDEN = ("openmoji", "emojione", "fluent-emoji", "fluent-emoji-high-contrast", "fxemoji", "noto-v1")
"""Held-out sets: `icons` is measured by adapting to a style that it never saw."""

WIDTHS = (0.02, 0.03, 0.04)
LINES = ("#000", "#000", "#000", "#222", "#123")
RECOLOURED = 2
"""Other colours a drawing with one main colour is also shown in."""

NEW_PAIRS = (
    *("automobile", "balloon", "backpack", "guitar", "scarf", "necktie"),
    *("dress", "fish", "tulip", "dragon", "billed-cap", "gem-stone"),
)
"""Objects that are never recoloured: what the denoiser makes of `yellow balloon` shows whether it combines words."""

READS = re.compile(r"left|right|arrow|clock|oclock|thirty|button|keycap|sign|calendar|abacus|input|abc|curve|wise")
UNSEEN_SHARE = 0.03


@dataclass(frozen=True)
class Row:
    """What one picture shows. `colour`: the main one's name or "". `unseen`: kept from the autoencoder's training."""

    set: str
    name: str
    kind: str
    colour: str
    category: str
    unseen: bool


def chance(*parts: str) -> random.Random:
    """Lots that depend on these words alone: the same choice whatever else is drawn."""
    return random.Random(hashlib.sha256("/".join(parts).encode()).digest())


def unseen(name: str) -> bool:
    """Whether all pictures of this name, in every set, are kept from the autoencoder."""
    return chance("unseen", name).random() < UNSEEN_SHARE


def variants(icons: iconify.IconSet, name: str, size: int, plain: bool) -> Iterator[tuple[str, str, Image.Image]]:
    """(kind, colour, RGBA drawing at four times the size) of one icon."""
    drawn = icons.render(name, size * 4)
    main = main_colour(drawn)
    natural = main.name if main else ""
    yield "plain", natural, drawn
    if plain:
        return
    lot = chance("variant", icons.prefix, name)
    line = iconify.Outline(lot.choice(WIDTHS), lot.choice(LINES))
    yield "outlined", natural, icons.render(name, size * 4, line)
    if not READS.search(name):
        yield "mirrored", natural, ImageOps.mirror(drawn)
    if main and name not in NEW_PAIRS:
        yield from _recoloured(drawn, main, lot)


def _recoloured(drawn: Image.Image, main: Main, lot: random.Random) -> Iterator[tuple[str, str, Image.Image]]:
    for colour in lot.sample([c for c in COLOURS if c != main.name], RECOLOURED):
        yield "recoloured", colour, recolour(drawn, main, colour)


def on_white(drawing: Image.Image, size: int) -> np.ndarray:
    """uint8 (size, size, 3). Drawn larger and shrunk: Lanczos keeps thin lines that the renderer would blur."""
    page = Image.new("RGBA", drawing.size, "white")
    page.alpha_composite(drawing)
    return np.asarray(page.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))


def draw(icons: iconify.IconSet, names: list[str], size: int, plain: bool) -> Iterator[tuple[Row, np.ndarray]]:
    """Every variant of every name."""
    for done, name in enumerate(names, 1):
        category = icons.categories.get(name, "")
        for kind, colour, drawing in variants(icons, name, size, plain):
            yield Row(icons.prefix, name, kind, colour, category, unseen(name)), on_white(drawing, size)
        if done % 100 == 0 or done == len(names):
            print(f"{icons.prefix}: {done} of {len(names)} names", flush=True)


def save(out: Path, size: int, sources: list[dict[str, str]], drawn: list[tuple[Row, np.ndarray]]) -> None:
    """`rows.json` is written last: a folder that has it is complete."""
    np.save(out / "pictures.npy", np.stack([picture for _, picture in drawn]))
    rows = [asdict(row) for row, _ in drawn]
    (out / "rows.json").write_text(json.dumps({"size": size, "sources": sources, "rows": rows}))
    print(f"{out}: {len(drawn)} pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="NAME@VERSION of @iconify-json packages")
    parser.add_argument("--plain", action="store_true", help="as drawn only, no variants (a set to measure with)")
    parser.add_argument("--names", type=int, help="at most so many a package, evenly chosen (for a quick try)")
    args = parser.parse_args()
    if (args.out / "rows.json").exists():
        raise SystemExit(f"{args.out} is complete; delete it to draw it again")
    sources, drawn = [], list[tuple[Row, np.ndarray]]()
    for package in args.packages:
        if package.split("@")[0] in FORBIDDEN and not args.plain:
            raise SystemExit(f"{package} is a held-out set: it may be measured with (--plain), never trained on")
        icons = iconify.read(iconify.download(package, args.out / "packages"))
        names = icons.names()
        sources.append({"package": f"@iconify-json/{package}", "set": icons.prefix, "licence": icons.licence})
        drawn += draw(icons, names[:: max(1, len(names) // (args.names or len(names)))], args.size, args.plain)
    save(args.out, args.size, sources, drawn)


if __name__ == "__main__":
    main()
