"""The control of a run: the layer that takes it in, at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapt.config import TrainSettings
from adapt.errors import SettingsError

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.backbones import Backbone
    from adapt.lora.taught import Taught
    from conditioning import Condition


WORDLESS = 0.5
"""Share of rows without their caption, where a control is taught."""


def require_place(backbone: Backbone, settings: TrainSettings) -> None:
    """Raises `SettingsError` for a family that has no place for a control."""
    from adapt.backbones.stem import stem_of

    if settings.control_as == "controlnet":
        _require_unet(backbone, settings)
        return
    if settings.control != "none" and stem_of(backbone) is None:
        raise SettingsError("the base has no first layer that a control could be added to", given=backbone.reference,
                            allowed="UNets, and transformers whose first layer is a convolution",
                            next="leave control out")  # fmt: skip


def _require_unet(backbone: Backbone, settings: TrainSettings) -> None:
    unet = type(backbone.modules[backbone.denoiser_name]).__name__ == "UNet2DConditionModel"
    if not unet or backbone.takes_source or backbone.config["addition_embed_type"] == "image":
        raise SettingsError("a ControlNet is a copy of a UNet's first half, and the base has none that it fits",
                            given=backbone.reference, allowed="Stable Diffusion 1.x, 2.x, XL, icons",
                            next="control_as=layer")  # fmt: skip
    for name, plain in (("quantize", "none"), ("shard", False)):
        if (value := getattr(settings, name)) != plain:
            raise SettingsError(f"control_as=controlnet does not go with {name}", given=value, next="leave it out")


def standing_beside(backbone: Backbone) -> list[Any]:
    """Networks of diffusers that are taught beside the denoiser: a ControlNet."""
    from adapt.adapter.control_net import ControlNet

    return [each.network for each in backbone.conditioners.values() if isinstance(each, ControlNet)]


def along_nothing(backbone: Backbone, condition: Condition, height: int, width: int) -> Condition:
    """The condition with a black control of this size in pixels, where a ControlNet is taught: what it costs is measured so."""
    import torch

    from adapt.adapter.control_net import ControlNet

    net = backbone.conditioners.get("control")
    if not isinstance(net, ControlNet):
        return condition
    part = net.encode([torch.zeros(3, height, width)] * len(condition))
    return condition.replaced({"control": {name: x.to(backbone.device) for name, x in part.items()}})


def settled_control(settings: TrainSettings) -> dict[str, Any]:
    """How often captions are left out where a control is taught, unless the user says it: in half of the rows, so that it is
    looked at where words would tell all (Zhang et al. 2023, arXiv 2302.05543, section 3.3)."""
    given = settings.control == "none" or "caption_dropout" in settings.model_fields_set
    return {} if given else {"caption_dropout": WORDLESS}


def put_in_control(backbone: Backbone, settings: TrainSettings) -> Taught | None:
    """The layer, or the ControlNet, at its start; the backbone draws with it. None where no control is taught."""
    from adapt.backbones.stem import stem_of
    from adapt.lora.taught import teach
    from conditioning import ControlConditioner

    if settings.control == "none":
        return None
    if settings.control_as == "controlnet":
        from adapt.adapter.control_net import ControlNet

        net = ControlNet.new(backbone, settings.control, settings.seed % 2**63)
        if settings.gradient_checkpointing:
            net.network.enable_gradient_checkpointing()
        backbone.conditioners["control"] = net
        return teach(net, settings.control_learning_rate, tuple(net.learned), backbone.device)
    stem = stem_of(backbone)
    assert stem is not None, "judged"
    own, places = stem.convolution, backbone.scale_factor
    shape = own.out_channels, 3 * places**2, *own.kernel_size
    conditioner = ControlConditioner.new(shape, settings.control, own.stride[0], int(own.padding[0]), places)
    backbone.conditioners["control"] = conditioner
    return teach(conditioner, settings.control_learning_rate, ("weight",), backbone.device)
