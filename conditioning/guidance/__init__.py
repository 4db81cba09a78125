"""Guidance: how named predictors and their nulls become one prediction. One small file each."""

from conditioning.guidance.adaptive import AdaptiveGuidance
from conditioning.guidance.base import Branch, Contrast, Guidance, Moment, Predictor
from conditioning.guidance.classifier import ClassifierGuidance
from conditioning.guidance.classifier_free import ClassifierFreeGuidance
from conditioning.guidance.composed import Composition
from conditioning.guidance.dial import SCHEDULES, Dial
from conditioning.guidance.part import ChainedGuidance, PartGuidance, WithParts
from conditioning.guidance.perturbed import PerturbedGuidance
from conditioning.guidance.projected import ProjectedGuidance
from conditioning.guidance.total import Guided
from conditioning.guidance.weaker import AutoGuidance, DomainGuidance
from conditioning.guidance.zero_star import ZeroStarGuidance

__all__ = [
    "SCHEDULES",
    "AdaptiveGuidance",
    "AutoGuidance",
    "Branch",
    "ChainedGuidance",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "Composition",
    "Contrast",
    "Dial",
    "DomainGuidance",
    "Guidance",
    "Guided",
    "Moment",
    "PartGuidance",
    "PerturbedGuidance",
    "Predictor",
    "ProjectedGuidance",
    "WithParts",
    "ZeroStarGuidance",
]
