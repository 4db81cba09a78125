"""Pretrained families behind one interface."""

from adapt.backbones.base import Backbone
from adapt.backbones.icons import Icons
from adapt.backbones.stable_diffusion import StableDiffusion

FAMILIES: dict[str, type[Backbone]] = {family.family: family for family in (Icons, StableDiffusion)}

__all__ = ["FAMILIES", "Backbone", "Icons", "StableDiffusion"]
