"""Guidance: how named predictors and their nulls become one prediction. One small file each."""

from conditioning.guidance.base import Guidance, Moment, Predictor
from conditioning.guidance.classifier_free import ClassifierFreeGuidance

__all__ = ["ClassifierFreeGuidance", "Guidance", "Moment", "Predictor"]
