"""What a sweep found: one row of figures a setting. Imports no torch: pages and sheets read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adapt.evaluation.grid import USUAL, Grid, Passes, Setting

INDICATIVE = 16
"""Pictures below which figures only indicate."""


@dataclass(frozen=True)
class Row:
    """The figures of one setting.

    Attributes:
        setting: what was drawn with.
        seconds: a picture, on this machine.
        style: 0 is the base, 1 is like the reference pictures; None: there are none.
        style_error: its standard error.
        prompt: share of pictures in which the base recognises their prompt; None: there is only one prompt.
        diversity: effective number of different pictures ÷ the base's.
        score: style + prompt + diversity up to 1.
        passes: what a step costs.
    """

    setting: Setting
    seconds: float
    style: float | None = None
    style_error: float | None = None
    prompt: float | None = None
    diversity: float | None = None
    score: float | None = None
    passes: Passes = USUAL

    @property
    def evaluations(self) -> int:
        """Of the network, for one picture."""
        return self.setting.work(self.passes)

    def as_dict(self) -> dict[str, Any]:
        values = {name: value for name, value in asdict(self).items() if name not in ("setting", "passes")}
        return {**self.setting._asdict(), "evaluations": self.evaluations, **values}


@dataclass(frozen=True)
class Swept:
    """Attributes:
    adapter: its name.
    digest: of its weights.
    reference: the base's name.
    prompts: what is drawn, each `count` times: the words, of an adapter with classes the class before them.
    seed: of the first picture of each prompt.
    count: pictures of each prompt in every setting.
    grid: what was drawn.
    rows: one a setting, in the grid's order.
    base: the same prompts and seeds by the base without the adapter, at its own guidance and steps.
    present: the setting that was recommended before.
    recommended: the setting that is recommended now; None: nothing can be.
    reason: by which figures, or why nothing is.
    references: number of reference pictures.
    candidates: prompts that a picture is compared with, its own among them: chance is 1 in so many.
    separation: how well the features tell reference pictures from the base's (area under the curve); None without reference.
    beside: how strongly parts of the condition guided by themselves in all settings, `class_scale` say.
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
    recommended: Setting | None = None
    reason: str = ""
    references: int = 0
    candidates: int = 1
    separation: float | None = None
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        """Of each setting."""
        return len(self.prompts) * self.count

    @property
    def indicative(self) -> bool:
        """Whether there are so few pictures that figures only indicate."""
        return self.pictures < INDICATIVE or 0 < self.references < INDICATIVE

    def as_dict(self) -> dict[str, Any]:
        names = ("adapter", "digest", "reference", "seed", "count")
        told: Mapping[str, Any] = {name: getattr(self, name) for name in names}
        return {
            **told,
            "prompts": list(self.prompts),
            "pictures": self.pictures,
            **self.beside,
            **{
                name: getattr(self, name) for name in ("references", "candidates", "separation", "indicative", "reason")
            },
            "base": self.base.as_dict(),
            "present": self.present._asdict(),
            "recommended": None if self.recommended is None else self.recommended._asdict(),
            "settings": [row.as_dict() for row in self.rows],
        }
