"""How adapters want to be drawn with, and what is worth a word where guidance is inside one of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

from adapt.adapter import Adapter, Facts
from adapt.sampling.request import Drawing


def advice_of(adapters: Sequence[Adapter]) -> Mapping[str, float] | None:
    """What the first adapter recommends; guidance at 1 where another has guidance inside. None without adapters."""
    if not adapters:
        return None
    first, *others = adapters
    own = {"guidance_scale": 1.0, **first.recommended} if first.facts.distilled else first.recommended
    return {**own, "guidance_scale": 1.0} if distilled_in(others) else own


def distilled_in(adapters: Sequence[Adapter]) -> Mapping[str, float]:
    """Guidance that is inside of one of them, as `adapter.json` has it; nothing where there is none."""
    return next((adapter.facts.distilled for adapter in adapters if adapter.facts.distilled), {})


def inside(facts: Facts) -> str | None:
    """Guidance that was learned, in words: `3`, `3, rescaled by 0.7`; None without any."""
    if not facts.distilled:
        return None
    rescale = facts.distilled.get("guidance_rescale", 0.0)
    return f"{facts.distilled.get('guidance_scale', 1.0):g}" + (f", rescaled by {rescale:g}" if rescale else "")


def remarks(adapters: Sequence[Adapter], drawings: Sequence[Drawing]) -> Iterator[str]:
    """What a user should know before these are drawn: warnings where guidance comes twice, else that it is inside."""
    for adapter in adapters:
        if (scale := inside(adapter.facts)) is None:
            continue
        twice = sorted({drawing.guidance_scale for drawing in drawings} - {1.0})
        if twice:
            given = ", ".join(f"{one:g}" for one in twice)
            yield (
                f"warning: guidance at {scale} is inside {adapter.name}; at guidance scale {given} it is guided a second time: "
                "leave the scale out"
            )
        else:
            yield f"note: guidance at {scale} is inside {adapter.name}: drawn at scale 1, one forward pass a step"
        if any(drawing.negative_prompt and drawing.guidance_scale == 1 for drawing in drawings):
            yield "warning: a negative prompt does nothing at guidance scale 1"


def warn(adapters: Sequence[Adapter], drawings: Sequence[Drawing]) -> None:
    """The warnings among `remarks`, as Python's, told to whoever called `adapt.generate`."""
    for remark in remarks(adapters, drawings):
        level, _, text = remark.partition(": ")
        if level == "warning":
            warnings.warn(text, stacklevel=3)
