"""The adaptation test: does the backbone take on a new style from 48 pictures, and does it keep its nouns?

The new style is OpenMoji's, which no training of `icons` sees. Base and adapter draw the same captions from the same noises:
nouns that are in neither part of the example data (the held-out part chooses the step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapt import config, train
from adapt.config import TrainSettings
from adapt.data import find

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data" / "openmoji"
RECIPE = ROOT / "training_scripts" / "recipes" / "openmoji.yaml"


@dataclass(frozen=True)
class Adapted:
    """Weights that plain `load_lora_weights` takes, and how captions must be worded for them."""

    folder: Path
    trigger: str | None
    chosen_step: int | None

    def captions(self, names: Sequence[str]) -> list[str]:
        """The nouns as the training pictures were captioned: the recipe's trigger, if it has one, before them."""
        return [f"{self.trigger}, {name}" if self.trigger else name for name in names]


def used() -> set[str]:
    """Captions that the training or the choice of its step saw."""
    return {caption for part in ("train", "held-out") for p in find(DATA / part).pictures for caption in p.captions}


def settings() -> TrainSettings:
    """The recipe's, with the 16 held-out pictures to choose the step by, as `adapt demo` has them."""
    return config.resolve(RECIPE, [f"validation={DATA / 'held-out'}"]).settings


def adapted(base: Path, run: Path) -> Adapted:
    """Trains, or takes what an earlier call with the same folders has trained."""
    chosen = settings()
    if not (run / "adapter").is_dir():
        train(DATA / "train", output=run, base=str(base), settings=chosen, existing="auto")
    from adapt import Adapter

    adapter = Adapter.load(run / "adapter")
    return Adapted(run / "adapter", adapter.trigger, adapter.facts.training.get("chosen_step"))
