"""What goes into a run: pictures found, judged and split, before a model is loaded. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.config import TrainSettings
from adapt.data import Picture
from adapt.progress import Progress

if TYPE_CHECKING:
    from adapt.data import Judgement


@dataclass(frozen=True)
class Pictures:
    """What is trained on and what is measured on; both judged."""

    train: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    warnings: tuple[str, ...]

    def digest(self) -> str:
        """Of all bytes and captions, in order."""
        sums = [[hashlib.sha256(p.read()).hexdigest(), *p.captions] for p in (*self.train, *self.held_out)]
        return hashlib.sha256(json.dumps([len(self.train), sums]).encode()).hexdigest()[:16]


def gather(data: str | Path, settings: TrainSettings) -> Pictures:
    """Finds and judges everything before a model is loaded; imports no torch.

    Raises:
        DataError: a source is missing or holds pictures that cannot be used.
        SettingsError: a held-out fraction that leaves one side empty.
    """
    from adapt.data import split
    from adapt.data.whole import groups

    judgement, warnings = _judged(data, settings)
    pictures = judgement.require(settings.skip_bad)
    held_out: tuple[Picture, ...] = ()
    if isinstance(settings.validation, float):
        pictures, held_out = split(pictures, settings.validation, settings.seed, groups(judgement))
    elif settings.validation is not None:
        other, more = _judged(settings.validation, settings)
        held_out = other.require(settings.skip_bad)
        warnings += [*more, *_shared(judgement, other)]
    return Pictures(_triggered(pictures, settings.trigger), _triggered(held_out, settings.trigger), tuple(warnings))


def _judged(source: str | Path, settings: TrainSettings) -> tuple[Judgement, list[str]]:
    from adapt.data import find, judge
    from adapt.data.judge import lines
    from adapt.data.whole import judge_whole

    found = find(source)
    judgement = judge(found, settings.resolution or 0, background=settings.background, progress=_judging())
    remarks = (*judgement.warnings, *judge_whole(found, judgement))
    told = lines(remark for remark in remarks if remark.kind != "no caption")  # `found` says that one
    return judgement, [*found.warnings, *told]


def _shared(train: Judgement, held_out: Judgement) -> list[str]:
    """Held-out pictures that are trained on say nothing about others."""
    both = set(train.digests.values()) & set(held_out.digests.values())
    names = [name for name, digest in held_out.digests.items() if digest in both]
    few = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    return (
        [f"Held-out pictures that are trained on as well ({len(names)}): {few}; remove them on one side"]
        if names
        else []
    )


def _judging() -> Any:
    progress = Progress("looking at the pictures", 0)
    return lambda done, total: progress(done, total) if total > 200 else None


def _triggered(pictures: Sequence[Picture], trigger: str | None) -> tuple[Picture, ...]:
    """The trigger before every caption that does not hold it."""
    if not trigger:
        return tuple(pictures)

    def worded(caption: str) -> str:
        return caption if trigger in caption else ", ".join(filter(None, (trigger, caption)))

    return tuple(replace(p, captions=tuple(map(worded, p.captions or ("",)))) for p in pictures)
