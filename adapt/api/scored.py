"""`adapt.guided_by`: drawing towards what a differentiable score likes."""

from __future__ import annotations

import inspect
from typing import Literal

from torch import Tensor

from adapt.backbones import Backbone
from adapt.errors import SettingsError
from conditioning import ClassifierFreeGuidance, ClassifierGuidance, Dial
from conditioning.guidance.classifier import Score

ON = ("pictures", "latents")


def guided_by(
    backbone: Backbone,
    score: Score,
    scale: float,
    *,
    on: Literal["pictures", "latents"] = "pictures",
    guidance_scale: float | None = None,
    start: float = 0.0,
    stop: float = 1.0,
    through_network: bool = False,
) -> ClassifierGuidance:
    """Classifier guidance by any differentiable score, for `adapt.generate(…, guidance=…)`.

    Args:
        score: `score(x) -> (B,)`, higher is better, log p(y | x) say. It sees the clean pictures that the prediction stands for,
            (B, 3, H, W) in [0, 1] and a little beyond, or their latents.
        scale: 1 is neutral; the papers' is this minus 1.
        on: what the score sees. Pictures go through the base's decoder, and the gradient back through it.
        guidance_scale: classifier-free guidance beside it, ≥ 1; None: the family's.
        start, stop: share of the loop in which the score works.
        through_network: True: the gradient goes through the network too, as in the papers: slower, and on `icons` it finds what
            pleases the score and is no picture. False: the prediction's own clean picture is moved.

    Raises:
        SettingsError: something else for `on`; a score that is not callable.
    """
    if on not in ON:
        raise SettingsError("a score sees pictures or latents", given=repr(on), allowed=", ".join(ON))
    if not callable(score):
        raise SettingsError("a score is a function of pictures", given=repr(score), next="def score(x): return …")
    seen = score if on == "latents" else _of_pictures(backbone, score)
    inner = ClassifierFreeGuidance(
        backbone.guidance_scale if guidance_scale is None else guidance_scale, normalise=backbone.normalise
    )
    return ClassifierGuidance(seen, backbone.objective(), Dial(scale, start, stop), inner, through_network)


def _of_pictures(backbone: Backbone, score: Score) -> Score:
    decode = inspect.unwrap(type(backbone).decode)  # as it is below its `no_grad`

    def of_latents(x: Tensor) -> Tensor:
        return score((decode(backbone, x).to(x.dtype) + 1) / 2)

    return of_latents
