"""Times, noise, weights and loss."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapt.config.fields import Finite, Section, Share

BELONGS: dict[str, tuple[str, tuple[str | None, ...]]] = {
    **dict.fromkeys(("logit_mean", "logit_std"), ("time_sampling", ("logit_normal",))),
    "mode_scale": ("time_sampling", ("mode",)),
    "min_snr_gamma": ("weighting", (None, "min_snr", "soft_min_snr")),
    **dict.fromkeys(("p2_gamma", "p2_k"), ("weighting", ("p2",))),
    **dict.fromkeys(("huber_c", "huber_schedule"), ("loss", ("huber", "smooth_l1"))),
}
"""Setting → the setting that it is a parameter of, and with which values of that it means anything."""


class ObjectiveSettings(Section):
    """Times, noise, weights and loss."""

    time_sampling: Literal["uniform", "logit_normal", "mode", "cosmap", "log_normal"] | None = Field(
        None, description="density of training times; log_normal: EDM's of noise levels; None: the family's"
    )
    logit_mean: Finite = Field(0.0, description="mean of logit_normal; above 0: more noise")
    logit_std: Finite = Field(1.0, gt=0, description="standard deviation of logit_normal")
    mode_scale: float = Field(
        1.29, ge=-1, le=1.75, description="of mode: above 0 more in the middle, below 0 at the ends"
    )
    time_shift: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["resolution"] | None = Field(
        None,
        description="shift of times, above 1 towards noise; resolution: by the latents' size; None: the base's own",
    )
    time_low: Share = Field(0.0, description="share of noise from which on to train")
    time_high: Share = Field(1.0, description="share of noise up to which to train")
    embedded_guidance: float | None = Field(
        None, ge=0, le=100, description="the guidance that distilled bases (Flux) are told in training; None: 1"
    )
    zero_terminal_snr: bool = Field(
        False, description="rescale the noise schedule to end in pure noise; not for epsilon"
    )

    weighting: Literal["none", "min_snr", "soft_min_snr", "debiased", "p2", "sigma_sqrt", "cosmap"] | None = Field(
        None, description="weights of times; None: min_snr where min_snr_gamma is given, else none"
    )
    min_snr_gamma: Finite | None = Field(None, gt=0, description="γ of min_snr and soft_min_snr; None: 5")
    p2_gamma: Finite = Field(1.0, ge=0, description="γ of p2")
    p2_k: Finite = Field(1.0, gt=0, description="k of p2")

    loss: Literal["l2", "huber", "smooth_l1"] = Field("l2", description="what an error costs; huber: less for outliers")
    huber_c: Finite = Field(0.1, gt=0, description="error from which on huber and smooth_l1 are straight lines")
    huber_schedule: Literal["constant", "exponential", "snr"] = Field(
        "snr", description="course of that threshold from 1 (clean) to huber_c (pure noise), or constant"
    )

    noise_offset: Finite = Field(0.0, ge=0, description="strength of a shift of whole channels, often 0.05; 0: off")
    adaptive_noise_scale: Finite = Field(0.0, description="share of the mean brightness added to noise_offset")
    multires_noise_iterations: int = Field(
        0, ge=0, le=16, description="levels of multi-resolution noise, often 6; 0: off"
    )
    multires_noise_discount: Share = Field(0.3, description="weight of each coarser level beside the finer one")
    ip_noise_gamma: Finite = Field(
        0.0, ge=0, description="input perturbation, often 0.1: more noise than is told; 0: off"
    )
    nearest_noise: int = Field(1, ge=1, le=64, description="noises of which the one nearest to the picture is taken")

    anchor_above: Share | None = Field(
        None, description="share of noise above which the base is the teacher, so that layout stays; None: off"
    )
    prior_prompt: str | None = Field(
        None, min_length=1, description="words of a class (a dog) that stays what the base says it is; None: off"
    )
    prior_weight: Finite = Field(1.0, gt=0, description="of prior_prompt, and of pictures that are marked as prior")
    prior_target: Literal["pictures", "base"] = Field(
        "pictures", description="what pictures marked as prior are compared with: themselves, or what the base says"
    )

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.time_low >= self.time_high:
            raise ValueError(f"time_low ({self.time_low}) must lie below time_high ({self.time_high})")
        return self

    @model_validator(mode="after")
    def _owned(self) -> Self:
        """A parameter of something that is not chosen would silently do nothing."""
        for name, (owner, values) in BELONGS.items():
            if self._changed(name) and getattr(self, owner) not in values:
                wanted = " or ".join(f"{owner}={value}" for value in values if value)
                raise ValueError(f"{name} ({getattr(self, name)}) does something only with {wanted}")
        return self

    def _changed(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @model_validator(mode="after")
    def _one_coarse_noise(self) -> Self:
        if self.adaptive_noise_scale and not self.noise_offset:
            raise ValueError("adaptive_noise_scale is added to noise_offset, which is 0: give noise_offset as well")
        if self._changed("multires_noise_discount") and not self.multires_noise_iterations:
            raise ValueError("multires_noise_discount does something only with multires_noise_iterations, often 6")
        if self.noise_offset and self.multires_noise_iterations:
            raise ValueError(
                "noise_offset and multires_noise_iterations both add coarse noise, the second rescales what the first "
                "added: give one of them"
            )
        return self
