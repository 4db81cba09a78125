"""What is learned: epsilon, v, x0 and flow objectives, and the targets predictions are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapt.errors import BackboneError
from adapt.objectives.base import Objective
from adapt.objectives.flow import Flow
from adapt.objectives.targets import Anchored, Plain, Target
from adapt.objectives.times import TimeSampling
from adapt.objectives.variance_preserving import Epsilon, Sample, VariancePreserving, Velocity

PREDICTIONS: dict[str, type[VariancePreserving]] = {c.prediction_type: c for c in (Epsilon, Velocity, Sample)}


def objective_of(
    scheduler: Mapping[str, Any], sampling: TimeSampling = TimeSampling(), min_snr_gamma: float | None = None
) -> Objective:
    """The objective that a pipeline was trained with, read from its scheduler's configuration.

    A `DDPMScheduler` of our own computes ᾱ: a pipeline's scheduler changes with every picture it draws, and
    `EulerDiscreteScheduler.add_noise` is variance-exploding.

    Raises:
        BackboneError: for a prediction type that is none of ours.
    """
    if "FlowMatch" in scheduler["_class_name"] or scheduler.get("prediction_type") == "flow_prediction":
        # FlowMatch* schedulers call it `shift`, multistep ones `flow_shift`.
        shift = scheduler.get("shift") or scheduler.get("flow_shift") or 1.0
        return Flow(sampling, min_snr_gamma, shift=shift, train_times=scheduler["num_train_timesteps"])
    from diffusers import DDPMScheduler

    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise BackboneError("prediction type that adapt cannot train", given=prediction, allowed=", ".join(PREDICTIONS))
    alphas = DDPMScheduler.from_config(dict(scheduler), clip_sample=False, thresholding=False).alphas_cumprod
    return PREDICTIONS[prediction](sampling, min_snr_gamma, alphas_cumprod=alphas)


__all__ = [
    "PREDICTIONS",
    "Anchored",
    "Epsilon",
    "Flow",
    "Objective",
    "Plain",
    "Sample",
    "Target",
    "TimeSampling",
    "VariancePreserving",
    "Velocity",
    "objective_of",
]
