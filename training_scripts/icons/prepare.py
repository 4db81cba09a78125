"""Draws icon packages at 64 px: `NAME.npz` (pictures) and `NAME.json` ([caption, category] of each).

python prepare.py DATA iconify-json-noto-1.2.9.tgz iconify-json-fluent-emoji-flat-1.2.6.tgz --outlined 750
python prepare.py DATA iconify-json-openmoji-1.2.29.tgz

With `--outlined` a random choice of icons is also drawn with a line around every path, into `NAME-outlined.npz`:
a decoder that never saw outlines cannot show a style that has them. Files that exist are not made again.
"""

import argparse
import json
import random
from pathlib import Path

import iconify
import numpy as np

SIZE = 64
WIDTHS = (0.02, 0.03, 0.04)
COLOURS = ("#000", "#000", "#222", "#333", "#123", "#a33")


def plain(icons: iconify.IconSet, names: list[str], out: Path) -> None:
    """Every icon as it is, with its caption and category."""
    labels = [(iconify.caption(name), icons.categories.get(name, "")) for name in names]
    (out / f"{icons.prefix}.json").write_text(json.dumps(labels))
    _save(out / f"{icons.prefix}.npz", [icons.render(name, SIZE) for name in names])


def outlined(icons: iconify.IconSet, names: list[str], out: Path) -> None:
    """Every icon with an outline of random width and colour; for the decoder only, so without captions."""
    choose = random.Random(0)
    lines = [iconify.Outline(choose.choice(WIDTHS), choose.choice(COLOURS)) for _ in names]
    drawn = [icons.render(name, SIZE, line) for name, line in zip(names, lines, strict=True)]
    _save(out / f"{icons.prefix}-outlined.npz", drawn)


def _save(file: Path, drawn: list[np.ndarray]) -> None:
    """Written beside and renamed, so that a file that exists is complete."""
    beside = file.with_suffix(".part.npz")
    np.savez_compressed(beside, pictures=np.stack(drawn))
    beside.replace(file)
    print(f"{file}: {len(drawn)} pictures", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("packages", type=Path, nargs="+", help="tgz of an @iconify-json package, or its folder")
    parser.add_argument("--outlined", type=int, default=0, metavar="N", help="icons a package to draw outlined too")
    parser.add_argument("--samples", type=int, help="at most so many icons a package, evenly chosen (for a quick try)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for package in args.packages:
        icons = iconify.read(package)
        names = icons.names()
        if args.samples:
            names = names[:: max(1, len(names) // args.samples)][: args.samples]
        if not (args.out / f"{icons.prefix}.npz").exists():
            plain(icons, names, args.out)
        if args.outlined and not (args.out / f"{icons.prefix}-outlined.npz").exists():
            chosen = random.Random(1).sample(names, min(args.outlined, len(names)))
            outlined(icons, chosen, args.out)


if __name__ == "__main__":
    main()
