"""Makes `animals/`: class folders of OpenMoji drawings, eight kinds to learn (`train/`) and two to add later (`added/`).

npm pack @iconify-json/openmoji@1.2.29
python examples/data/make_animals.py iconify-json-openmoji-1.2.29.tgz         needs `pip install resvg_py`

A kind has every drawing that OpenMoji has of it: whole animals and faces, sitting, running, ridden. No captions: the folder's
name is all that is said of a picture.
"""

import argparse
from pathlib import Path
from typing import Any

from make_openmoji import draw, read

TRAIN = {
    "bear": "bear polar-bear teddy-bear panda",
    "cat": """
        cat black-cat cat-face cat-with-tears-of-joy cat-with-wry-smile crying-cat grinning-cat grinning-cat-with-smiling-eyes
        kissing-cat pouting-cat smiling-cat-with-heart-eyes weary-cat
    """,
    "chicken": "chicken rooster baby-chick front-facing-baby-chick hatching-chick",
    "fish": "fish tropical-fish goldfish",
    "horse": "horse horse-face carousel-horse horse-racing horse-riding",
    "insect": "ant beetle lady-beetle honeybee cricket cockroach fly mosquito",
    "monkey": "monkey monkey-face hear-no-evil-monkey see-no-evil-monkey speak-no-evil-monkey",
    "whale": "whale spouting-whale orca spouting-orca beluga narwhal",
}
ADDED = {
    "mouse": "mouse mouse-face rat",
    "pig": "pig pig-face boar",
}


def write(package: dict[str, Any], kinds: dict[str, str], folder: Path) -> None:
    """`cat/black-cat.png` and so on."""
    for kind, names in kinds.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name in names.split():
            draw(package, name).save(folder / kind / f"{name}.png", optimize=True)
        print(f"{folder / kind}: {len(names.split())} pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="tgz of @iconify-json/openmoji, or the folder it unpacks to")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "animals", help="where the pictures go")
    args = parser.parse_args()
    package = read(args.package)
    write(package, TRAIN, args.out / "train")
    write(package, ADDED, args.out / "added")


if __name__ == "__main__":
    main()
