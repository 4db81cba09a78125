"""The reference pictures of a run: the projector that is taught, at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.config import TrainSettings
from adapt.errors import SettingsError

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.backbones import Backbone
    from adapt.lora.taught import Taught


def require_pictures(backbone: Backbone, settings: TrainSettings) -> None:
    """Raises `SettingsError` for a family that takes no tokens, or makes no pictures."""
    from adapt.backbones.class_slot import slot_of

    if not settings.image_prompts:
        return
    if backbone.medium.kind != "picture" or slot_of(backbone, 1).kind != "tokens":
        raise SettingsError("image_prompts are tokens beside a caption's, of bases that make pictures of text",
                            given=backbone.reference, next="leave image_prompts out")  # fmt: skip


def put_in_image_prompts(backbone: Backbone, settings: TrainSettings) -> Taught | None:
    """The projector at its start; the backbone draws with it. None where none is taught."""
    import torch

    from adapt.backbones.class_slot import slot_of
    from adapt.backbones.features import ENCODER, features_of
    from adapt.lora.taught import teach
    from conditioning import ImageConditioner

    if not settings.image_prompts:
        return None
    slot = slot_of(backbone, settings.image_prompt_tokens)
    count = features_of(torch.zeros(backbone.own_latents)).numel()
    conditioner = ImageConditioner.new(count, slot.empty, ENCODER, seed=settings.seed % 2**63)
    backbone.conditioners["image"] = conditioner
    return teach(conditioner, settings.image_prompt_learning_rate, ("down", "up"), backbone.device)
