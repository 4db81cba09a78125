"""Conditions for diffusion models, and guidance: a leaf package that knows no model family.

`adapt` re-exports every name here; import from `adapt` unless you use this package alone.
"""

from conditioning.condition import Condition, Part
from conditioning.conditioner import Conditioner
from conditioning.guidance import ClassifierFreeGuidance, Guidance, Moment, Predictor
from conditioning.text import TextConditioner

__all__ = [
    "ClassifierFreeGuidance",
    "Condition",
    "Conditioner",
    "Guidance",
    "Moment",
    "Part",
    "Predictor",
    "TextConditioner",
]
