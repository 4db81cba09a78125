"""From named guidances to what the loop calls, on a given backbone."""

from __future__ import annotations

from collections.abc import Sequence

from adapt.backbones import Backbone
from adapt.sampling import schedulers
from adapt.sampling.guidances import SAME, Named
from adapt.sampling.request import Drawing, named_in
from conditioning import (
    AutoGuidance,
    ClassifierFreeGuidance,
    Composition,
    Condition,
    Contrast,
    Dial,
    DomainGuidance,
    Guidance,
    Guided,
    PartGuidance,
    PerturbedGuidance,
    Predictor,
    ProjectedGuidance,
    WithParts,
    ZeroStarGuidance,
)
from conditioning.guidance.classifier_free import Normalise

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
    contrasts = _of_classes(drawing, backbone, _free(free, drawing.guidance_scale, flow, backbone.normalise))
    contrasts += [_other(one) for one in drawing.guidance if not one.kind.classifier_free]
    contrasts += [Composition(further)] if further else []
    return Guided(contrasts, drawing.guidance_rescale)


def _of_classes(drawing: Drawing, backbone: Backbone, words: Contrast) -> list[Contrast]:
    """Words and class guide each on their own, where the class has a scale; without words only the class does."""
    if drawing.class_scale is None or "class" not in backbone.conditioners:
        return [words]
    own = PartGuidance("class", Dial(drawing.class_scale))
    silent = drawing.wordless and backbone.null_kind == "empty"
    return [own] if silent else [WithParts(words, ("class",)), own]


def _dial(named: Named, scale: float) -> Dial:
    return Dial(scale, named["start"], named["stop"], named["schedule"])


def _free(named: Named, scale: float, flow: bool, normalise: Normalise | None) -> Contrast:
    dial = _dial(named, scale)
    if named.name == "apg":
        return ProjectedGuidance(dial, named["eta"], named["momentum"], named["norm"])
    if named.name == "cfg-zero":
        steps = named["zero_steps"]
        return ZeroStarGuidance(dial, int(flow) if steps is None else steps)
    return ClassifierFreeGuidance(scale, start=dial.start, stop=dial.stop, schedule=dial.schedule, normalise=normalise)


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
