"""What the pictures of a sweep show: words, a class, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from adapt.adapter import Adapter
from adapt.api.judging import spread
from adapt.api.reference import NONE, Reference
from adapt.data.captions import caption_of_label
from adapt.errors import SettingsError
from adapt.sampling.classes import Mixture, judged, written
from adapt.sampling.request import Request

ENOUGH = 16
"""Pictures of a setting when nothing is said: as many of each subject as make at least so many."""

Classes = str | Mapping[str, float] | Sequence[str] | None
"""One class or mixture, or several classes, as `generate` takes them."""


@dataclass(frozen=True)
class Subject:
    """One thing that is drawn.

    Attributes:
        prompt: words; "" where the class, the reference picture or the control says it all.
        classes: of an adapter that knows some; empty: none of them.
    """

    prompt: str
    classes: Mixture = ()

    @property
    def words(self) -> str:
        """The same to the base, which knows no classes: their names, then the prompt."""
        if not self.classes:
            return self.prompt
        names = [caption_of_label(label) for label, _ in self.classes]
        return ", ".join([*names, self.prompt] if self.prompt else names)

    def __str__(self) -> str:
        return f"{written(self.classes)}, {self.prompt}".strip(", ") if self.classes else self.prompt


def subjects_of(
    prompts: str | Sequence[str], classes: Classes, common: Request, adapter: Adapter, reference: Reference = NONE
) -> tuple[Subject, ...]:
    """Each prompt with each class. What is not asked for is told by the reference: the classes of its folders, its captions;
    else by the prompts of the adapter's samples, or the word that calls it.

    Raises:
        SettingsError: nothing is told, a class that the adapter does not know, one where it knows none, or none where it does;
            an adapter of reference pictures or controls without one.
    """
    require_parts(adapter, common)
    asked = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    labels = adapter.labels
    wanted = _mixtures(classes, common.class_scale, labels)
    if not labels:
        return tuple(map(Subject, _prompts(asked, common, adapter, reference)))
    if wanted:
        return _different(Subject(prompt, one) for prompt, one in product(asked or ("",), wanted))
    shown = [(prompt, label) for prompt, label in reference.subjects if label in labels]
    if not shown:
        judged(None, common.class_scale, labels)  # raises: it says which there are
    if asked:
        return _different(Subject(prompt, ((label, 1.0),)) for prompt, (_, label) in product(asked, shown))
    found = _different(Subject(prompt, ((label, 1.0),)) for prompt, label in shown)
    return tuple(found[i] for i in spread(range(len(found)), ENOUGH))


def require_parts(adapter: Adapter, common: Request) -> None:
    """Raises `SettingsError` where an adapter was taught to look at a picture and there is none: what it does without one is
    not what it is for, and would be recommended for it."""
    for part, given, noun, option in (
        ("image", common.image_prompt, "reference pictures", "--image-prompt"),
        ("control", common.control, "a control", "--control"),
    ):
        if part in adapter.conditioners and given is None:
            raise SettingsError(f"the adapter draws from {noun}, and none is given", given=adapter.name,
                                next=f"{option} FILE")  # fmt: skip


def _mixtures(classes: Classes, scale: float | None, labels: Sequence[str]) -> list[Mixture]:
    """The classes that were asked for, judged; none: nothing was said."""
    several = [classes] if isinstance(classes, str | Mapping) else list(classes or ())
    if not labels:
        judged(several[0] if several else None, scale, labels)
    return [judged(one, scale, labels) for one in several]


def _prompts(asked: Sequence[str], common: Request, adapter: Adapter, reference: Reference) -> tuple[str, ...]:
    """Words: those asked for, else captions of the reference, whose content is then no difference, else the prompts of the
    adapter's samples, else the word that calls it; none where a picture says what is drawn.

    Raises:
        SettingsError: there is none of them.
    """
    if not asked and common.image_prompt is not None:
        return ("",)
    recorded = [str(sample["prompt"]) for sample in adapter.facts.samples if sample.get("prompt")]
    found = asked or reference.prompts(ENOUGH, adapter.triggers) or recorded or adapter.triggers
    if not found and common.control is not None:
        return ("",)
    if not found:
        raise SettingsError("there is no prompt, and the adapter records none", next='--prompt "a red bicycle"')
    return tuple(dict.fromkeys(found))


def _different(subjects: Iterable[Subject]) -> tuple[Subject, ...]:
    return tuple(dict.fromkeys(subjects))
