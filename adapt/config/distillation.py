"""What the adapter takes over from a teacher, in place of what the pictures show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from adapt.config.fields import Finite, Section, Share
from adapt.config.network import SPLITS

if TYPE_CHECKING:
    from adapt.config.settings import TrainSettings

LARGEST_SCALE = 100.0
OWN = ("distill_scale", "distill_rescale", "distill_adapter")


class DistillationSettings(Section):
    """What the adapter takes over from a teacher, in place of what the pictures show."""

    distill: Literal["guidance"] | None = Field(
        None, description="guidance: learn the base's guided prediction, so that drawing needs no second one; None: off"
    )
    distill_scale: Finite | None = Field(
        None, gt=1, le=LARGEST_SCALE, description="guidance scale that is taken over; None: the adapter's, the family's"
    )
    distill_rescale: Share = Field(0.0, description="guidance rescale that is taken over with it")
    distill_adapter: str | None = Field(
        None, min_length=1, description="adapter that the teacher wears; this and init_from: one goes for both"
    )


def distill_defaults(values: Any) -> dict[str, Any]:
    """Settings that are not given and that mean something else where guidance is distilled; they go before a preset's."""
    if not isinstance(values, Mapping) or values.get("distill") is None:
        return {}
    own: dict[str, Any] = {"caption_dropout": 0.0, "anchor_above": None}
    if values.get("distill_adapter") and "init_from" not in values:
        own |= {"init_from": values["distill_adapter"], "init_resize": True}
    if values.get("init_from"):  # a bare teacher would take away again what it starts with
        own |= {"distill_adapter": values["init_from"]}
    return {name: value for name, value in own.items() if name not in values}


def distill_clashes(s: TrainSettings) -> Iterator[str]:
    """Why settings do not go together with what is distilled, or with nothing being distilled."""
    if s.distill is None:
        for name in OWN:
            if getattr(s, name) != type(s).model_fields[name].default:
                yield f"{name} ({getattr(s, name)}) does something only with distill=guidance"
        return
    if s.guidance_scale not in (None, 1):
        yield (
            f"guidance_scale ({s.guidance_scale:g}): with distill=guidance the scale that is learned is "
            f"distill_scale={s.guidance_scale:g}; previews and samples are drawn at 1"
        )
    for name, (idle, reason) in CLASHES.items():
        if (given := getattr(s, name)) != idle:
            yield f"{name} ({given}): with distill=guidance {reason}: leave it out"
    if s.distill_adapter is not None and s.quantize != "none":
        yield f"distill_adapter cannot be added to weights in few bits: leave quantize={s.quantize} out"
    if s.distill_adapter is not None and s.init in SPLITS:
        yield f"distill_adapter does not go with init={s.init}, which splits the weights that it is added to"


TEACHER = "the teacher is right at all times and for all words"
SAME_WORDS = "teacher and student hear the same words"
NO_PICTURES = "the teacher is shown no pictures, and the student would learn to overlook them"
CLASHES: Mapping[str, tuple[Any, str]] = {
    "caption_dropout": (0, "nothing is learned from empty captions: guidance leaves the null prediction as it is"),
    "anchor_above": (None, TEACHER),
    "prior_prompt": (None, TEACHER),
    "prior_target": ("pictures", TEACHER),
    "ip_noise_gamma": (0, "teacher and student see the same noise"),
    "train_text_encoder": (False, SAME_WORDS),
    "new_tokens": ({}, SAME_WORDS),
    "classes": (False, "the teacher knows no classes"),
    "image_prompts": (False, NO_PICTURES),
    "control": ("none", NO_PICTURES),
}
"""Setting → the value that leaves it off, and why it has no place there."""
