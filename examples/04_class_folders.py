"""Trains on class folders: no captions, the name of the folder is what a picture shows.

    python examples/04_class_folders.py

data/
├── animal/  dolphin.png  duck.png …        every picture is captioned "animal"
└── fruit/   banana.png  grapes.png …       every picture is captioned "fruit"

A trigger word is put before each caption ("openmoji, animal"): use it in prompts to call what was learned.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import adapt
from adapt.data import find

PICTURES = Path(__file__).parent / "data" / "openmoji" / "train"
CLASSES = {
    "animal": ("butterfly", "dolphin", "duck", "fish", "fox", "octopus", "owl", "panda"),
    "fruit": ("avocado", "banana", "grapes", "pineapple"),
}


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps")
    parser.add_argument("--output", type=Path, default=Path("runs/example-04"), help="the run's folder")
    return parser


def main() -> None:
    """Sorts some pictures into class folders, then trains on them."""
    words = parser().parse_args()
    with tempfile.TemporaryDirectory() as data:
        for label, names in CLASSES.items():
            folder = Path(data, label)
            folder.mkdir()
            for name in names:
                shutil.copy(PICTURES / f"{name}.png", folder)
        for picture in find(data).pictures:
            print(f"{picture.name:24} {picture.captions[0]}")
        settings = adapt.TrainSettings(
            steps=words.steps, trigger="openmoji", learning_rate=1e-3, previews=("openmoji, animal",), sampling_steps=10
        )
        result = adapt.train(data, output=words.output, settings=settings, existing="fresh")
    print(f"adapter {result.folder / 'adapter'}; trigger word: {result.adapter.trigger}")


if __name__ == "__main__":
    main()
