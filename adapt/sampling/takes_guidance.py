"""Whether a base can be guided as it is asked to be. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.errors import SettingsError
from adapt.sampling import schedulers
from adapt.sampling.guidances import Named
from adapt.sampling.known import Known

if TYPE_CHECKING:
    from adapt.backbones import Backbone
    from adapt.sampling.request import Drawing, Request


def judge(request: Request, drawing: Drawing, backbone: Backbone, known: Known) -> None:
    """Nothing that is asked for goes by in silence.

    Raises:
        SettingsError: guidance that this base cannot take, or that does nothing with it.
    """
    named = drawing.guidance if isinstance(drawing.guidance, tuple) else ()
    for one in named:
        if one.name == "cfg-zero" and one["zero_steps"] and not schedulers.is_flow(backbone.scheduler_config):
            given = f"{backbone.reference} predicts {backbone.scheduler_config.get('prediction_type')}"
            raise SettingsError("zero_steps are for flow matching: elsewhere a prediction of zero is no standstill",
                                given=given, allowed="cfg-zero:zero_steps=0")  # fmt: skip
        if one.name in ("pag", "slg"):
            backbone.perturbed(one.name, one["layers"].split("+"))
    if isinstance(drawing.guidance, tuple) and not (backbone.nullable or known.labels or known.images):
        _require_nothing(request, named, backbone)
    free = next((one for one in named if one.kind.classifier_free), None)
    if free is not None and request.guidance_scale is None and _is_off(drawing):
        raise SettingsError(f"guidance {free.name} does nothing at guidance scale 1, which is this drawing's own",
                            given=str(free), next=f"--guidance-scale 4 --guidance {free}")  # fmt: skip


def _require_nothing(request: Request, named: tuple[Named, ...], backbone: Backbone) -> None:
    """Of a base whose condition is all facts: whatever is kept away from is told the same."""
    asked = {
        "guidance_scale": request.guidance_scale if request.guidance_scale != 1 else None,
        "guidance": ", ".join(str(one) for one in named if one.kind.classifier_free) or None,
        "negative_prompt": request.negative_prompt or None,
        "compose": ", ".join(text for text, _ in request.compose) or None,
    }
    given = next((f"{name} {value}" for name, value in asked.items() if value is not None), None)
    if given is not None:
        raise SettingsError(f"{backbone.reference} has no null condition, so there is nothing to guide away from", given=given,
                            allowed="guidance_scale 1; domain, autoguidance, pag",
                            next="leave it out, or give an adapter that was trained with classes=true")  # fmt: skip


def _is_off(drawing: Drawing) -> bool:
    return drawing.guidance_scale == 1 and all(scale is None for scale in drawing.part_scales.values())
