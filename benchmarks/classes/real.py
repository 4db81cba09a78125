"""Real pictures of the animal kinds, from ten icon sets: what the judge learns from, and what it is tried on.

Sets of one house draw alike (Fluent in colour and flat), and so do some drawings of one set (a cat's faces): these are twins.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import iconify
import numpy as np
import torch
from prepare import on_white
from torch import Tensor

PACKAGES = {
    "openmoji@1.2.29": "openmoji",
    "noto@1.2.9": "noto",
    "noto-v1@1.2.5": "noto",
    "fluent-emoji@1.2.7": "fluent",
    "fluent-emoji-flat@1.2.6": "fluent",
    "twemoji@1.2.5": "twemoji",
    "emojione@1.2.3": "emojione",
    "emojione-v1@1.2.3": "emojione",
    "fxemoji@1.2.2": "fxemoji",
    "streamline-emojis@1.2.4": "streamline",
}
"""Package -> the house that drew it."""

KINDS = {
    "bear": "bear bear-face polar-bear teddy-bear panda panda-face pandaface",
    "cat": """
        cat cat-face black-cat catside cat-with-tears-of-joy cat-with-wry-smile crying-cat grinning-cat kissing-cat
        grinning-cat-with-smiling-eyes pouting-cat smiling-cat-with-heart-eyes weary-cat cat-face-with-tears-of-joy
        cat-face-with-wry-smile crying-cat-face grinning-cat-face grinning-cat-face-with-smiling-eyes kissing-cat-face
        pouting-cat-face smiling-cat-face-with-heart-eyes weary-cat-face
    """,
    "chicken": """
        chicken rooster baby-chick front-facing-baby-chick hatching-chick hatching-chick-1 babychick frontfacingchick
        hatchingchick
    """,
    "fish": "fish tropical-fish tropicalfish goldfish",
    "horse": "horse horse-face horseface carousel-horse horse-racing horse-riding",
    "insect": "ant beetle lady-beetle ladybeetle honeybee cricket cockroach fly mosquito",
    "monkey": """
        monkey monkey-face monkeyface hear-no-evil-monkey see-no-evil-monkey speak-no-evil-monkey monkeyhear monkeysee
        monkeyspeak
    """,
    "mouse": "mouse mouse-face mouseside rat",
    "pig": "pig pig-face pigside boar boar-1 boar-2",
    "whale": "whale spouting-whale spurtingwhale orca spouting-orca beluga narwhal",
}
"""What the sets call their drawings of each kind."""

TWINS = {
    "evil": (
        "hear-no-evil-monkey",
        "see-no-evil-monkey",
        "speak-no-evil-monkey",
        "monkeyhear",
        "monkeysee",
        "monkeyspeak",
    ),
    "chick": ("baby-chick", "front-facing-baby-chick", "hatching-chick", "hatching-chick-1"),
    "ridden": ("horse-racing", "horse-riding"),
    "orca": ("orca", "spouting-orca"),
    "whale": ("whale", "spouting-whale"),
}
LINE = iconify.Outline(0.03, "#111")
SIZE = 64
FOLDS = 8


@dataclass(frozen=True)
class Real:
    """Real pictures.

    Attributes:
        pictures: uint8 (N, 3, SIZE, SIZE), as drawn.
        outlined: the same with a line around every path.
        kind: number of each one's kind in sorted KINDS, (N,).
        names: set and name of each, N of them.
        groups: the group of twins of each.
        fold: which part each belongs to by itself, (N,); each part is kept from one of the nets.
        twins_fold: the same with whole groups of twins in one part, (N,).
    """

    pictures: Tensor
    outlined: Tensor
    kind: Tensor
    names: list[str]
    groups: list[str]
    fold: Tensor
    twins_fold: Tensor


def twin(kind: str, name: str) -> str:
    """The drawings of one set that look alike have one word: a cat's faces with feelings, the dogs at work."""
    if kind == "cat" and ("ing-cat" in name or "cat-with" in name or "weary" in name or "cat-face-" in name):
        return "feelings"
    return next((word for word, names in TWINS.items() if name in names), name.replace("-face", "").replace("face", ""))


def folds(kinds: list[str], groups: list[str]) -> Tensor:
    """A part for every picture, (N,): the groups of each kind are dealt out in the order of their names' hashes."""
    dealt = dict[str, int]()
    for number, kind in enumerate(sorted(set(kinds))):
        own = sorted({g for k, g in zip(kinds, groups, strict=True) if k == kind}, key=_lot)
        dealt |= {group: (i + number) % FOLDS for i, group in enumerate(own)}
    return torch.tensor([dealt[group] for group in groups])


def _lot(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()


def collect(folder: Path) -> Real:
    """Draws the kinds of every set. Packages are fetched from the npm registry into `folder` unless they are there."""
    drawn, outlined, kinds, names, groups = [], [], list[str](), list[str](), list[str]()
    for package, house in PACKAGES.items():
        icons = iconify.read(iconify.download(package, folder))
        for kind, words in KINDS.items():
            for name in words.split():
                if name not in icons.icons:
                    continue
                drawn.append(on_white(icons.render(name, 4 * SIZE), SIZE))
                outlined.append(on_white(icons.render(name, 4 * SIZE, LINE), SIZE))
                kinds.append(kind)
                names.append(f"{icons.prefix}/{name}")
                groups.append(f"{house}/{kind}/{twin(kind, name)}")
    order = sorted(KINDS)
    number = torch.tensor([order.index(kind) for kind in kinds])
    apart = folds(kinds, [f"{kind}/{name}" for kind, name in zip(kinds, names, strict=True)])
    return Real(_stack(drawn), _stack(outlined), number, names, groups, apart, folds(kinds, groups))


def _stack(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
