"""An attribute that the adapter's scale moves, in place of what the pictures show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.config.fields import Finite, Section

if TYPE_CHECKING:
    from adapt.config.settings import TrainSettings


class SliderSettings(Section):
    """An attribute that the adapter's scale moves, in place of what the pictures show."""

    slider: str | None = Field(
        None, description="two opposites, `a smiling face|a sad face`: scale 1 goes to the first, -1 away; None: off"
    )
    slider_strength: Finite = Field(2.0, gt=0, le=100, description="η of slider: how far one goes at scale 1")


def opposites(slider: str) -> tuple[str, str]:
    """`more|less` → both.

    Raises:
        ValueError: not two different prompts.
    """
    pieces = [piece.strip() for piece in slider.split("|")]
    if len(pieces) != 2 or not all(pieces) or pieces[0] == pieces[1]:
        raise ValueError(
            f"slider ({slider}) is two different prompts with one | between: slider='a smiling face|a sad face'"
        )
    return pieces[0], pieces[1]


def slider_defaults(values: Any) -> dict[str, Any]:
    """Settings that are not given and that mean something else with a slider; they go before a preset's."""
    if not isinstance(values, Mapping) or values.get("slider") is None:
        return {}
    own: dict[str, Any] = {"caption_dropout": 0.0, "anchor_above": None}
    return {name: value for name, value in own.items() if name not in values}


SAME_WORDS = "base and adapter hear the same words"
CLASHES: Mapping[str, tuple[Any, str]] = {
    "distill": (None, "the target is the slider's"),
    "anchor_above": (None, "the target is the slider's at all times"),
    "caption_dropout": (0, "nothing is learned from empty captions: the null prediction stays as it is"),
    "ip_noise_gamma": (0, "base and adapter see the same noise"),
    "train_text_encoder": (False, SAME_WORDS),
    "new_tokens": ({}, SAME_WORDS),
    "classes": (False, SAME_WORDS),
    "image_prompts": (False, SAME_WORDS),
    "control": ("none", "the base is shown no pictures"),
}
"""Setting → the value that leaves it off, and why it has no place beside a slider."""


def slider_clashes(s: TrainSettings) -> Iterator[str]:
    """Why settings do not go together with a slider, or with none."""
    if s.slider is None:
        if s.slider_strength != type(s).model_fields["slider_strength"].default:
            yield f"slider_strength ({s.slider_strength:g}) does something only with slider"
        return
    try:
        opposites(s.slider)
    except ValueError as error:
        yield str(error)
    for name, (idle, reason) in CLASHES.items():
        if (given := getattr(s, name)) != idle:
            yield f"{name} ({given}): with slider {reason}: leave it out"
