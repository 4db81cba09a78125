"""Conditions for diffusion models, and guidance: a leaf package that knows no model family.

`adapt` re-exports every name here; import from `adapt` unless you use this package alone.
"""

from conditioning.class_label import ClassConditioner
from conditioning.condition import Condition, Part
from conditioning.conditioner import Conditioner
from conditioning.control import ControlConditioner
from conditioning.dropout import Dropout
from conditioning.guidance import (
    AdaptiveGuidance,
    AutoGuidance,
    Branch,
    ChainedGuidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
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
    WithParts,
    ZeroStarGuidance,
)
from conditioning.image import ImageConditioner
from conditioning.joint import JointConditioner
from conditioning.learned import LearnedConditioner
from conditioning.text import TextConditioner

__all__ = [
    "AdaptiveGuidance",
    "AutoGuidance",
    "Branch",
    "ChainedGuidance",
    "ClassConditioner",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "Composition",
    "Condition",
    "Conditioner",
    "Contrast",
    "ControlConditioner",
    "Dial",
    "DomainGuidance",
    "Dropout",
    "Guidance",
    "Guided",
    "ImageConditioner",
    "JointConditioner",
    "LearnedConditioner",
    "Moment",
    "Part",
    "PartGuidance",
    "PerturbedGuidance",
    "Predictor",
    "ProjectedGuidance",
    "TextConditioner",
    "WithParts",
    "ZeroStarGuidance",
]
