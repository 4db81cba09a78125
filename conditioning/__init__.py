"""Conditions for diffusion models, and guidance: a leaf package that knows no model family.

`adapt` re-exports every name here; import from `adapt` unless you use this package alone.
"""

from conditioning.condition import Condition, Part
from conditioning.conditioner import Conditioner
from conditioning.guidance import (
    AutoGuidance,
    Branch,
    ClassifierFreeGuidance,
    Composition,
    Contrast,
    Dial,
    DomainGuidance,
    Guidance,
    Guided,
    Moment,
    PartGuidance,
    PerturbedGuidance,
    Predictor,
    ProjectedGuidance,
    ZeroStarGuidance,
)
from conditioning.text import TextConditioner

__all__ = [
    "AutoGuidance",
    "Branch",
    "ClassifierFreeGuidance",
    "Composition",
    "Condition",
    "Conditioner",
    "Contrast",
    "Dial",
    "DomainGuidance",
    "Guidance",
    "Guided",
    "Moment",
    "Part",
    "PartGuidance",
    "PerturbedGuidance",
    "Predictor",
    "ProjectedGuidance",
    "TextConditioner",
    "ZeroStarGuidance",
]
