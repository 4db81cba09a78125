"""From settings to what is learned: the objective, its noise and its targets."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from adapt.api.distillation import guided
from adapt.api.slider import slid
from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.lora import Network
from adapt.objectives import Anchored, Loss, Noise, Objective, Plain, Prior, Target, TimeSampling, weighting
from adapt.training.hearing import Hearing
from adapt.types import Sizes
from conditioning import Condition, Part, Predictor


def make_objective(backbone: Backbone, settings: TrainSettings) -> Objective:
    """The base's objective with the times, weights and loss of the settings.

    Raises:
        SettingsError: one of them makes no sense with this kind of base.
    """
    chosen = settings.weighting or ("min_snr" if settings.min_snr_gamma else "none")
    weights = weighting(chosen, settings.min_snr_gamma or 5.0, settings.p2_gamma, settings.p2_k)
    loss = None if settings.loss == "l2" else Loss(settings.loss, settings.huber_c, settings.huber_schedule)
    return backbone.objective(sampling(settings), weights, loss, zero_terminal_snr=settings.zero_terminal_snr)


def sampling(settings: TrainSettings) -> TimeSampling:
    """How training times are spread."""
    return TimeSampling(
        settings.time_sampling or "uniform", settings.logit_mean, settings.logit_std, settings.mode_scale,
        settings.time_low, settings.time_high, settings.time_shift,
    )  # fmt: skip


def make_noise(settings: TrainSettings) -> Noise:
    """The noise that pictures are mixed with."""
    return Noise(
        settings.noise_offset, settings.adaptive_noise_scale, settings.multires_noise_iterations,
        settings.multires_noise_discount, settings.nearest_noise, settings.ip_noise_gamma,
    )  # fmt: skip


def teacher_of(backbone: Backbone, injection: Network) -> Predictor:
    """The base's own predictions: the adapter, disabled."""

    def teacher(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        with injection.bare():
            return backbone.predict(x_t, t, condition)

    return teacher


def make_target(objective: Objective, backbone: Backbone, injection: Network, settings: TrainSettings) -> Target:
    """The pictures; above `anchor_above` the base; the guided teacher where guidance is distilled; a
    slider between two prompts."""
    if settings.distill == "guidance":
        return guided(objective, backbone, teacher_of(backbone, injection), settings)
    if settings.slider is not None:
        return slid(objective, backbone, teacher_of(backbone, injection), settings)
    if settings.anchor_above is None:
        return Plain(objective)
    return Anchored(objective, teacher_of(backbone, injection), settings.anchor_above)


def make_prior_target(
    objective: Objective, backbone: Backbone, injection: Network, settings: TrainSettings
) -> Target | None:
    """The base at all times, for pictures of the class; None where they are compared as all others are."""
    if settings.prior_target == "pictures":
        return None
    return Anchored(objective, teacher_of(backbone, injection), above=0.0)


def make_prior(
    objective: Objective,
    backbone: Backbone,
    injection: Network,
    settings: TrainSettings,
    text: Callable[[str], Part],
    hearing: Hearing | None = None,
) -> Prior | None:
    """What keeps `prior_prompt` as it is; None without one.

    Args:
        text: a prompt → its part `text`, one row.
        hearing: encodes it where encoders are trained: the base is asked with what the base makes of these words.
    """
    if settings.prior_prompt is None:
        return None
    side = settings.resolution or backbone.resolution
    sizes = [Sizes.whole(side, side)]
    if hearing is None:
        condition = backbone.assembled(text(settings.prior_prompt), sizes).to(backbone.device, backbone.dtype)
        student: Predictor = backbone.predict
    else:
        condition = hearing.base([settings.prior_prompt], sizes)
        student = _hearing(backbone, hearing, settings.prior_prompt, sizes[0])
    return Prior(objective, student, teacher_of(backbone, injection), condition, settings.prior_weight)


def _hearing(backbone: Backbone, hearing: Hearing, prompt: str, size: Sizes) -> Predictor:
    """What is predicted when these words are heard as they are learned now."""

    def student(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return backbone.predict(x_t, t, hearing.learn([prompt] * len(x_t), [size] * len(x_t)))

    return student
