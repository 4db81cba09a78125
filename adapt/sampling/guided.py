"""From named guidances to what the loop calls, on a given backbone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from adapt.backbones import Backbone
from adapt.backbones.sources import PART as SOURCE
from adapt.sampling import schedulers
from adapt.sampling.guidances import SAME, Named
from adapt.sampling.request import Drawing, named_in
from conditioning import (
    AdaptiveGuidance,
    AutoGuidance,
    ChainedGuidance,
    ClassifierFreeGuidance,
    Composition,
    Condition,
    Contrast,
    Dial,
    DomainGuidance,
    Guidance,
    Guided,
    PerturbedGuidance,
    Predictor,
    ProjectedGuidance,
    WithParts,
    ZeroStarGuidance,
)
from conditioning.guidance.arithmetic import Normalise

BASE = "base"
"""Name of the predictor without any adapter."""


def weak_name(named: Named) -> str:
    """Name of the weaker predictor that an autoguidance compares with."""
    return f"weak {named['weak']}"


def guidance_of(drawing: Drawing, backbone: Backbone, further: Sequence[tuple[Condition, float]] = ()) -> Guidance:
    """What guides a drawing.

    Args:
        further: conditions of `drawing.compose`, with their weights.
    """
    if not isinstance(drawing.guidance, tuple):
        return drawing.guidance
    free = next((one for one in drawing.guidance if one.kind.classifier_free), Named("cfg"))
    flow = schedulers.is_flow(backbone.scheduler_config)
    contrasts = _by_parts(drawing, backbone, partial(_free, free, flow, backbone.normalise), free)
    contrasts += [_other(one) for one in drawing.guidance if not one.kind.classifier_free]
    contrasts += [Composition(further)] if further else []
    contrasts += [_of_source(drawing, free)] if drawing.source is not None else []
    return Guided(contrasts, drawing.guidance_rescale)


def _by_parts(drawing: Drawing, backbone: Backbone, free: Callable[[float], Contrast], asked: Named) -> list[Contrast]:
    """Parts that have a scale guide on their own, one after the other, and the words with the rest at the end; without words or
    rest, the last of these parts is the end, and what was asked for guides it.

    Args:
        free: the scale → the classifier-free guidance that was asked for.
    """
    scales = _scales(drawing, backbone.conditioners)
    dials, parts = {part: _dial(asked, scale) for part, scale in scales.items()}, tuple(scales)
    chain = [ChainedGuidance(part, dials[part], parts[:k]) for k, part in enumerate(parts)]
    if _only_parts(drawing, backbone, backbone.conditioners):
        return [*chain[:-1], WithParts(free(scales[parts[-1]]), parts[:-1])]
    words = free(drawing.guidance_scale)
    return [WithParts(words, parts) if parts else words, *chain]


def _scales(drawing: Drawing, taught: Collection[str]) -> dict[str, float]:
    """Parts that guide by themselves, in the order of their chain."""
    return {part: scale for part, scale in drawing.part_scales.items() if scale is not None and part in taught}


def _only_parts(drawing: Drawing, backbone: Backbone, taught: Collection[str]) -> bool:
    """Whether nothing is left that words could guide."""
    parts = _scales(drawing, taught).keys()
    return drawing.wordless and backbone.null_kind == "empty" and parts == set(taught) - {"control"} != set()


def passes_of(drawing: Drawing, backbone: Backbone, taught: Collection[str]) -> tuple[int, int]:
    """How many different predictions classifier-free guidance asks for in one step: at guidance scale 1, and above.

    Args:
        taught: parts that adapters make, which need not be on the base.
    """
    scales, asked = _scales(drawing, taught), set[frozenset[str]]()
    parts, only = tuple(scales), _only_parts(drawing, backbone, taught)
    for number, part in enumerate(parts):
        last = only and number == len(parts) - 1
        if scales[part] != 1:
            asked |= {frozenset(parts[:number])} | (set() if last else {frozenset(parts[: number + 1])})
    words = set() if only else {frozenset(parts)}
    return 1 + len(asked), 1 + len(asked | words)


def _of_source(drawing: Drawing, asked: Named) -> Contrast:
    """What is edited guides first of all, below the words and the other parts."""
    return ChainedGuidance(SOURCE, _dial(asked, drawing.image_guidance_scale), zeros=True)


def _dial(named: Named, scale: float) -> Dial:
    return Dial(scale, named["start"], named["stop"], named["schedule"])


def _free(named: Named, flow: bool, normalise: Normalise | None, scale: float) -> Contrast:
    dial = _dial(named, scale)
    if named.name == "apg":
        return ProjectedGuidance(dial, named["eta"], named["momentum"], named["norm"], normalise)
    if named.name == "cfg-zero":
        steps = named["zero_steps"]
        return ZeroStarGuidance(dial, int(flow) if steps is None else steps, normalise)
    plain = ClassifierFreeGuidance(scale, start=dial.start, stop=dial.stop, schedule=dial.schedule, normalise=normalise)
    return AdaptiveGuidance(plain, named["threshold"]) if named.name == "adaptive" else plain


def _other(named: Named) -> Contrast:
    dial = _dial(named, named["scale"])
    if named.name == "domain":
        return DomainGuidance(dial, BASE, named["prompt"] == SAME)
    if named.name == "autoguidance":
        return AutoGuidance(dial, weak_name(named))
    return PerturbedGuidance(dial, str(named))


def perturbed_of(drawing: Drawing, backbone: Backbone) -> dict[str, Predictor]:
    """The perturbed predictors that a drawing's guidances need, by name."""
    named = named_in(drawing.guidance)
    return {
        str(one): backbone.perturbed(one.name, one["layers"].split("+")) for one in named if one.name in ("pag", "slg")
    }
