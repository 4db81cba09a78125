"""Guidance distilled into the adapter: who teaches, at which scale, and what is remembered of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapt.api.assistant import require_denoisers_alone
from adapt.config import TrainSettings
from adapt.errors import SettingsError

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.objectives import Guided, Objective
    from conditioning import Predictor

SCALE = "guidance_scale"


def settled_distillation(settings: TrainSettings, backbone: Backbone) -> dict[str, Any]:
    """The scale that is distilled, and that of previews, filled in; nothing where nothing is distilled.

    Raises:
        SettingsError: a base without guidance, or with guidance as an input already; a scale that is none; an adapter that
            changes more than the denoiser, or has guidance inside already.
        AdapterError: an adapter that cannot be read, or was made for another base.
    """
    if settings.distill is None:
        return {}
    _require_guidance(backbone)
    worn = worn_by_teacher(settings, backbone)
    advised = worn.recommended.get(SCALE) if worn is not None else None
    scale = settings.distill_scale or advised or backbone.guidance_scale
    if scale <= 1:
        raise SettingsError(
            "distill=guidance has no scale to learn: here guidance is off by default",
            given=f"{scale:g}",
            allowed="distill_scale above 1",
            next="distill_scale=3, say",
        )
    return {"distill_scale": float(scale), SCALE: 1.0}


def _require_guidance(backbone: Backbone) -> None:
    if backbone.embedded_guidance is not None:
        raise SettingsError(
            "distill=guidance: this base is told its guidance as a number already, and draws with one forward a step",
            given=backbone.reference,
            next="embedded_guidance=… trains at one of your choice",
        )
    if backbone.takes_source:
        raise SettingsError(
            "distill=guidance: the guidance of a base that edits or fills holes is not distilled yet",
            given=backbone.reference,
        )
    if not backbone.slots:
        raise SettingsError("distill=guidance: this base takes no condition to guide by", given=backbone.reference)


def worn_by_teacher(settings: TrainSettings, backbone: Backbone) -> Adapter | None:
    """`distill_adapter`, judged; None: the teacher is the bare base."""
    if settings.distill_adapter is None:
        return None
    from adapt.adapter import Adapter

    adapter = Adapter.load(settings.distill_adapter)
    adapter.check(backbone)
    require_denoisers_alone(adapter, backbone, "distill_adapter", "which this run does not teach")
    if adapter.facts.distilled:
        raise SettingsError(
            "distill_adapter has guidance inside already",
            given=adapter.name,
            next="give the one that it was made from, or none for the bare base: distill_adapter=",
        )
    return adapter


def guided(objective: Objective, backbone: Backbone, bare: Predictor, settings: TrainSettings) -> Guided:
    """What is learned, for settled settings.

    Args:
        bare: the base's own predictions, without what is trained.
    """
    from adapt.objectives import Guided
    from conditioning import ClassifierFreeGuidance

    assert settings.distill_scale is not None, "settled"
    guidance = ClassifierFreeGuidance(settings.distill_scale, settings.distill_rescale, normalise=backbone.normalise)
    null = backbone.null(1).to(backbone.device, backbone.dtype)
    return Guided(objective, _wearing(bare, backbone, settings), guidance, null)


def _wearing(bare: Predictor, backbone: Backbone, settings: TrainSettings) -> Predictor:
    """The bare base, or the base with `distill_adapter` at the scale that this recommends."""
    from adapt.api.weaker import values_of
    from adapt.lora.variant import Variant

    adapter = worn_by_teacher(settings, backbone)
    if adapter is None:
        return bare
    return Variant(bare, values_of(backbone, [(adapter, float(adapter.recommended.get("scale", 1.0)))], []))


def remembered(settings: TrainSettings) -> dict[str, float]:
    """What `adapter.json` says of it; nothing where nothing was distilled."""
    if settings.distill is None:
        return {}
    return {SCALE: float(settings.distill_scale or 1.0), "guidance_rescale": settings.distill_rescale}


def worn_off(settings: TrainSettings) -> list[str]:
    """A warning where pictures are learned on top of guidance that is inside: the adapter would be neither."""
    if settings.distill is not None or settings.init_from is None:
        return []
    from adapt.adapter import Adapter

    inside = Adapter.read_facts(settings.init_from).distilled.get(SCALE)
    told = "which learning pictures wears off, and the new adapter does not tell of: learn first, distil then"
    return [f"init_from has guidance at {inside:g} inside, {told}"] if inside else []


def intent(settings: TrainSettings) -> str:
    """What a run will learn, for the line that says so; "" where it learns pictures."""
    if settings.distill is None:
        return ""
    worn = f" with {settings.distill_adapter}" if settings.distill_adapter else ""
    return f"learns the guided prediction of the base{worn} at scale {settings.distill_scale:g}, not the pictures; "
