"""Schedulers by the names that users know. The table imports no torch, `build` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapt.errors import SettingsError, did_you_mean

BOTH, DIFFUSION, FLOW, EDM = "both", "diffusion", "flow", "EDM"
EDM_CLASSES = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler", "CosineDPMSolverMultistepScheduler")
"""Schedulers of networks that stand between EDM's preconditioners and are told noise levels; others would draw noise."""


@dataclass(frozen=True)
class SchedulerSpec:
    """One row of the table.

    Attributes:
        name: what users type.
        class_name: diffusers' class.
        label: what A1111 calls it in a picture's text.
        options: laid over the backbone's scheduler configuration.
        serves: `diffusion` (epsilon, v, x0), `flow`, or `both`.
    """

    name: str
    class_name: str
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    serves: str = DIFFUSION


def _rows(*rows: SchedulerSpec) -> dict[str, SchedulerSpec]:
    return {row.name: row for row in rows}


_DPM = "DPMSolverMultistepScheduler"
_PLAIN, _KARRAS = {"use_karras_sigmas": False}, {"use_karras_sigmas": True}
_ODE = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}

SHORT = _rows(
    SchedulerSpec("ddim", "DDIMScheduler", "DDIM"),
    SchedulerSpec("ddpm", "DDPMScheduler", "DDPM"),
    SchedulerSpec("pndm", "PNDMScheduler", "PLMS", {"skip_prk_steps": True}),
    SchedulerSpec("euler", "EulerDiscreteScheduler", "Euler", _PLAIN),
    SchedulerSpec("euler_karras", "EulerDiscreteScheduler", "Euler Karras", _KARRAS),
    SchedulerSpec("euler_a", "EulerAncestralDiscreteScheduler", "Euler a"),
    SchedulerSpec("heun", "HeunDiscreteScheduler", "Heun", _PLAIN),
    SchedulerSpec("lms", "LMSDiscreteScheduler", "LMS", _PLAIN),
    SchedulerSpec("lms_karras", "LMSDiscreteScheduler", "LMS Karras", _KARRAS),
    SchedulerSpec("dpm2", "KDPM2DiscreteScheduler", "DPM2", _PLAIN),
    SchedulerSpec("dpm2_a", "KDPM2AncestralDiscreteScheduler", "DPM2 a", _PLAIN),
    SchedulerSpec("dpm++2m", _DPM, "DPM++ 2M", {**_ODE, **_PLAIN}, BOTH),
    SchedulerSpec("dpm++2m_karras", _DPM, "DPM++ 2M Karras", {**_ODE, **_KARRAS}),
    SchedulerSpec("dpm++2m_sde", _DPM, "DPM++ 2M SDE", {**_SDE, **_PLAIN}, BOTH),
    SchedulerSpec("dpm++2m_sde_karras", _DPM, "DPM++ 2M SDE Karras", {**_SDE, **_KARRAS}),
    SchedulerSpec(
        "dpm++2s", "DPMSolverSinglestepScheduler", "DPM++ 2S", {**_ODE, **_PLAIN, "lower_order_final": True}, BOTH
    ),
    SchedulerSpec("unipc", "UniPCMultistepScheduler", "UniPC", _PLAIN, BOTH),
    SchedulerSpec("deis", "DEISMultistepScheduler", "DEIS", _PLAIN, BOTH),
    SchedulerSpec("lcm", "LCMScheduler", "LCM"),
    SchedulerSpec("tcd", "TCDScheduler", "TCD"),
    SchedulerSpec("flow_euler", "FlowMatchEulerDiscreteScheduler", "Euler", serves=FLOW),
    SchedulerSpec("flow_heun", "FlowMatchHeunDiscreteScheduler", "Heun", serves=FLOW),
)
"""By short name. diffusers' class names are accepted too, with the backbone's own options."""


def _by_class() -> dict[str, SchedulerSpec]:
    first: dict[str, SchedulerSpec] = {}
    for spec in SHORT.values():
        first.setdefault(spec.class_name, spec)
    return {name: SchedulerSpec(name, name, spec.label, {}, spec.serves) for name, spec in first.items()}


BY_CLASS = _by_class()


def find(name: str) -> SchedulerSpec:
    """The row of a short name (capitals and blanks do not matter) or of a diffusers class.

    Raises:
        SettingsError: unknown name.
    """
    short = name.strip().lower().replace(" ", "")
    if spec := BY_CLASS.get(name.strip()) or SHORT.get(short):
        return spec
    near = did_you_mean(name, [*SHORT, *BY_CLASS]) or did_you_mean(short, list(SHORT))
    raise SettingsError(
        "unknown scheduler",
        given=name,
        allowed=f"{', '.join(SHORT)}, or a diffusers class name such as DDIMScheduler",
        next=f"did you mean {near}?" if near else None,
    )


def label(class_name: str) -> str:
    """What A1111 calls a diffusers class; the class's own name where it has no word for it."""
    return BY_CLASS[class_name].label if class_name in BY_CLASS else class_name.removesuffix("Scheduler")


FROM_PURE_NOISE = (
    *("DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
    *(_DPM, "UniPCMultistepScheduler", "LCMScheduler", "TCDScheduler"),
    *("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
)
"""Classes that know `rescale_betas_zero_snr`."""
PURE_NOISE = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
"""The schedule ends at SNR 0, and sampling begins there (Lin et al. 2023, arXiv 2305.08891, sections 3.1 and 3.3)."""


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler configuration belongs to a flow-matching model."""
    return "FlowMatch" in str(config["_class_name"]) or config.get("prediction_type") == "flow_prediction"


def kind_of(config: Mapping[str, Any]) -> str:
    """What a scheduler configuration's model is: `flow`, `EDM`, or else `diffusion`."""
    if config["_class_name"] in EDM_CLASSES:
        return EDM
    return FLOW if is_flow(config) else DIFFUSION


def _flow_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What multistep schedulers must be told to solve a flow: FlowMatch* schedulers leave it unsaid."""
    shift = config.get("shift") or config.get("flow_shift") or 1.0
    return {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}


def _shifted_betas(config: Mapping[str, Any]) -> list[float]:
    """CogVideoX's noise levels, for schedulers that do not know its shift; a rescaling to SNR 0 comes after it."""
    import diffusers
    import torch

    plain = {**config, "rescale_betas_zero_snr": False}
    alphas = getattr(diffusers, str(config["_class_name"])).from_config(plain).alphas_cumprod
    betas: list[float] = (1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])).tolist()
    return betas


def check(spec: SchedulerSpec, config: Mapping[str, Any], zero_terminal_snr: bool = False) -> None:
    """Raises `SettingsError` for a scheduler that would draw nothing but noise with this kind of model, or cannot begin in pure
    noise where the adapter has learned to."""
    kind = kind_of(config)
    if kind == EDM:
        raise SettingsError("a model of EDM is drawn with its own scheduler alone", given=spec.name,
                            allowed=str(config["_class_name"]), next="leave --scheduler out")  # fmt: skip
    if spec.serves not in (kind, BOTH):
        names = ", ".join(s.name for s in SHORT.values() if s.serves in (kind, BOTH))
        raise SettingsError(f"a {kind} model cannot be drawn with this scheduler", given=spec.name, allowed=names)
    if zero_terminal_snr and spec.class_name not in FROM_PURE_NOISE:
        names = ", ".join(s.name for s in SHORT.values() if s.class_name in FROM_PURE_NOISE)
        raise SettingsError(
            "the adapter was trained with zero_terminal_snr, and this scheduler cannot begin in pure noise",
            given=spec.name, allowed=names,
        )  # fmt: skip


def _options(spec: SchedulerSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    multistep_flow = is_flow(config) and spec.serves == BOTH
    return {**spec.options, **(_flow_options(config) if multistep_flow else {})}


def build(name: str | None, config: Mapping[str, Any], zero_terminal_snr: bool = False) -> Any:
    """A fresh diffusers scheduler, so that no pipeline's own is ever moved.

    Args:
        name: see `find`; None for the class that the configuration names.
        config: the backbone's scheduler configuration with `_class_name`.
        zero_terminal_snr: draw from pure noise. Where the configuration's own class cannot, DDIM does.

    Raises:
        SettingsError: unknown name, or one that cannot serve this kind of model, or that needs a missing package.
    """
    import diffusers

    class_name, options = str(config["_class_name"]), {}
    if name is not None:
        spec = find(name)
        check(spec, config, zero_terminal_snr)
        class_name, options = spec.class_name, _options(spec, config)
    if zero_terminal_snr:
        class_name = class_name if class_name in FROM_PURE_NOISE else "DDIMScheduler"
        options |= PURE_NOISE
    if str(config.get("variance_type")).startswith("learned"):
        options["variance_type"] = "fixed_small"  # variances that a network predicts are not asked for
    if "snr_shift_scale" in config and class_name != config["_class_name"]:
        options["trained_betas"] = _shifted_betas(config)
    try:
        return getattr(diffusers, class_name).from_config(dict(config), **options)
    except ImportError as error:
        raise SettingsError("the scheduler needs a package that is not installed", given=name,
                            next="pip install scipy") from error  # fmt: skip
