"""Adapters inside a model: injected by peft for training (`injection`), added to the weights for drawing (`applied`)."""

from adapt.lora.applied import Applied, weight_of
from adapt.lora.dropout import Dice, ModuleDropout, PlannedDropout, RankDropout
from adapt.lora.injection import Injection, inject, install
from adapt.lora.layout import Place, convolution_ends, layout, targeted
from adapt.lora.network import Network

__all__ = [
    "Applied",
    "Dice",
    "Injection",
    "ModuleDropout",
    "Network",
    "Place",
    "PlannedDropout",
    "RankDropout",
    "convolution_ends",
    "inject",
    "install",
    "layout",
    "targeted",
    "weight_of",
]
