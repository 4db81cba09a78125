"""What a sweep found: one row of figures a setting. Imports no torch: pages and sheets read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adapt.evaluation.grid import Grid, Setting


@dataclass(frozen=True)
class Row:
    """The figures of one setting.

    Attributes:
        setting: what was drawn with.
        seconds: a picture, on this machine.
    """

    setting: Setting
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        values = {name: value for name, value in asdict(self).items() if name != "setting"}
        return {**self.setting._asdict(), "evaluations": self.setting.evaluations, **values}


@dataclass(frozen=True)
class Swept:
    """Attributes:
    adapter: its name.
    digest: of its weights.
    reference: the base's name.
    prompts: each drawn `count` times.
    seed: of the first picture of each prompt.
    count: pictures of each prompt in every setting.
    grid: what was drawn.
    rows: one a setting, in the grid's order.
    base: the same prompts and seeds by the base without the adapter, at its own guidance and steps.
    present: the setting that was recommended before.
    """

    adapter: str
    digest: str
    reference: str
    prompts: tuple[str, ...]
    seed: int
    count: int
    grid: Grid
    rows: tuple[Row, ...]
    base: Row
    present: Setting

    @property
    def pictures(self) -> int:
        """Of each setting."""
        return len(self.prompts) * self.count

    def as_dict(self) -> dict[str, Any]:
        names = ("adapter", "digest", "reference", "seed", "count")
        told: Mapping[str, Any] = {name: getattr(self, name) for name in names}
        return {
            **told,
            "prompts": list(self.prompts),
            "pictures": self.pictures,
            "base": self.base.as_dict(),
            "present": self.present._asdict(),
            "settings": [row.as_dict() for row in self.rows],
        }
