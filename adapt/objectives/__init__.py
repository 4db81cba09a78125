"""What is learned: epsilon, v, x0 and flow objectives, and the targets predictions are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapt.errors import BackboneError, SettingsError
from adapt.objectives.base import Objective
from adapt.objectives.edm import Edm, edm_of
from adapt.objectives.flow import Flow
from adapt.objectives.losses import Loss
from adapt.objectives.noise import PLAIN, Noise
from adapt.objectives.prior import Prior
from adapt.objectives.shift import by_size, own_shift
from adapt.objectives.slider import Slid
from adapt.objectives.targets import Anchored, Guided, Plain, Target
from adapt.objectives.times import TimeSampling
from adapt.objectives.variance_preserving import Epsilon, Sample, VariancePreserving, Velocity
from adapt.objectives.weights import Weighting, weighting

PREDICTIONS: dict[str, type[VariancePreserving]] = {c.prediction_type: c for c in (Epsilon, Velocity, Sample)}


def objective_of(
    scheduler: Mapping[str, Any],
    sampling: TimeSampling = TimeSampling(),
    weighting: Weighting | None = None,
    loss: Loss | None = None,
    *,
    zero_terminal_snr: bool = False,
    own_dims: Sequence[int] = (),
    patch: int = 2,
) -> Objective:
    """The objective that a pipeline was trained with, read from its scheduler's configuration.

    A `DDPMScheduler` of our own computes ᾱ: a pipeline's scheduler changes with every picture it draws, and
    `EulerDiscreteScheduler.add_noise` is variance-exploding.

    Args:
        sampling, weighting, loss: as in `Objective`.
        zero_terminal_snr: rescale the schedule so that it ends in pure noise (Lin et al. 2023, arXiv 2305.08891).
        own_dims: of the base's own latents, for a shift by resolution.
        patch: positions a token, along each side, for the same.

    Raises:
        BackboneError: for a prediction type that is none of ours.
        SettingsError: what was asked for makes no sense with this kind of base.
    """
    if "FlowMatch" in scheduler["_class_name"] or scheduler.get("prediction_type") == "flow_prediction":
        if zero_terminal_snr:
            raise _needless_rescale("a flow-matching base")
        if sampling.kind == "log_normal":
            raise _of_edm_alone()
        shift, train_times = own_shift(scheduler), scheduler["num_train_timesteps"]
        size = by_size(scheduler, own_dims, patch) if own_dims else None
        return Flow(sampling, weighting, loss, shift=shift, train_times=train_times, by_size=size)
    if scheduler["_class_name"].startswith("EDM"):
        if zero_terminal_snr:
            raise _needless_rescale("a base of EDM")
        if sampling.shift == "resolution":
            raise _no_shift_by_resolution("as EDM does")
        return edm_of(scheduler, sampling, weighting, loss)
    if sampling.kind == "log_normal":
        raise _of_edm_alone()
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise BackboneError("prediction type that adapt cannot train", given=prediction, allowed=", ".join(PREDICTIONS))
    if zero_terminal_snr and prediction == Epsilon.prediction_type:
        raise _blind_at_the_end()
    if sampling.shift == "resolution":
        raise _no_shift_by_resolution(prediction)
    return PREDICTIONS[prediction](sampling, weighting, loss, alphas_cumprod=_alphas(scheduler, zero_terminal_snr))


def _alphas(scheduler: Mapping[str, Any], zero_terminal_snr: bool) -> Any:
    import diffusers

    more = {"rescale_betas_zero_snr": True} if zero_terminal_snr else {}
    if "snr_shift_scale" in scheduler:  # CogVideoX: its schedulers alone know how they shift
        own = getattr(diffusers, scheduler["_class_name"]).from_config(dict(scheduler), **more)
        return own.alphas_cumprod.float()
    made = diffusers.DDPMScheduler.from_config(dict(scheduler), clip_sample=False, thresholding=False, **more)
    return made.alphas_cumprod


def _of_edm_alone() -> SettingsError:
    return SettingsError(
        "time_sampling=log_normal spreads the noise levels of EDM, which this base does not have",
        allowed="uniform, logit_normal, mode, cosmap",
        next="leave it out for the base's own",
    )


def _needless_rescale(given: str) -> SettingsError:
    return SettingsError(
        "zero_terminal_snr is for bases with a discrete noise schedule: this one ends in pure noise as it is",
        given=given,
        next="leave zero_terminal_snr off",
    )


def _blind_at_the_end() -> SettingsError:
    return SettingsError(
        "zero_terminal_snr needs a base that predicts v or x: in pure noise, the noise is all there is to see, "
        "and predicting it teaches nothing of the picture",
        given="a base that predicts epsilon",
        next="leave zero_terminal_snr off; noise_offset helps such bases to very dark and very bright pictures",
    )


def _no_shift_by_resolution(prediction: str) -> SettingsError:
    return SettingsError(
        "time_shift=resolution is for flow-matching bases: a discrete noise schedule ends at a signal-to-noise ratio of its "
        "own, beyond which nothing can be shifted",
        given=f"a base that predicts {prediction}",
        allowed="a number: it moves the share of time",
        next="time_shift=1.5, say",
    )


__all__ = [
    "PLAIN",
    "PREDICTIONS",
    "Anchored",
    "Edm",
    "Epsilon",
    "Flow",
    "Guided",
    "Loss",
    "Noise",
    "Objective",
    "Plain",
    "Prior",
    "Sample",
    "Slid",
    "Target",
    "TimeSampling",
    "VariancePreserving",
    "Velocity",
    "Weighting",
    "objective_of",
    "weighting",
]
