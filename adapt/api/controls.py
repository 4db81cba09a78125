"""The control of a run: the layer that takes it in, at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.config import TrainSettings
from adapt.errors import SettingsError

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.backbones import Backbone
    from adapt.lora.taught import Taught


def require_stem(backbone: Backbone, settings: TrainSettings) -> None:
    """Raises `SettingsError` for a family that has no place for a control."""
    from adapt.backbones.stem import stem_of

    if settings.control != "none" and stem_of(backbone) is None:
        raise SettingsError("the base has no first layer that a control could be added to", given=backbone.reference,
                            allowed="UNets, and transformers whose first layer is a convolution",
                            next="leave control out")  # fmt: skip


def put_in_control(backbone: Backbone, settings: TrainSettings) -> Taught | None:
    """The layer at its start; the backbone draws with it. None where no control is taught."""
    from adapt.backbones.stem import stem_of
    from adapt.lora.taught import teach
    from conditioning import ControlConditioner

    if settings.control == "none":
        return None
    stem = stem_of(backbone)
    assert stem is not None, "judged"
    own = stem.convolution
    shape = (
        own.out_channels,
        backbone.latent_channels,
        *own.kernel_size,
    )  # the control is as latents are, whatever else comes in
    conditioner = ControlConditioner.new(shape, settings.control, own.stride[0], int(own.padding[0]))
    backbone.conditioners["control"] = conditioner
    return teach(conditioner, settings.control_learning_rate, ("weight",), backbone.device)
