"""adapt: teach a pretrained diffusion model a small image set and get one adapter that works everywhere.

    backbone = adapt.Backbone.load("icons")
    result = adapt.train("my-pictures", output="runs/my-style")
    pictures = adapt.generate(backbone, prompt="a red fox", adapters=[result.adapter])

Importing this module imports no torch; names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.5.0"

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.adapter.control_net import ControlNet
    from adapt.api.explain import Explanation, explain
    from adapt.api.generate import generate
    from adapt.api.scored import guided_by
    from adapt.api.share import pull, push
    from adapt.api.sweep import sweep
    from adapt.api.train import TrainingResult, train
    from adapt.backbones import Backbone
    from adapt.config import TrainSettings
    from adapt.errors import AdaptError
    from adapt.sampling.ip_adapter import IPAdapter
    from conditioning import (
        AdaptiveGuidance,
        AutoGuidance,
        Branch,
        ChainedGuidance,
        ClassConditioner,
        ClassifierFreeGuidance,
        ClassifierGuidance,
        Composition,
        Condition,
        Conditioner,
        Contrast,
        ControlConditioner,
        Dial,
        DomainGuidance,
        Dropout,
        Guidance,
        Guided,
        ImageConditioner,
        JointConditioner,
        LearnedConditioner,
        Moment,
        Part,
        PartGuidance,
        PerturbedGuidance,
        Predictor,
        ProjectedGuidance,
        TextConditioner,
        WithParts,
        ZeroStarGuidance,
    )

_HOMES = {
    **{"Adapter": "adapt.adapter", "AdaptError": "adapt.errors", "Backbone": "adapt.backbones"},
    **{"TrainSettings": "adapt.config", "TrainingResult": "adapt.api.train"},
    **{"generate": "adapt.api.generate", "train": "adapt.api.train", "guided_by": "adapt.api.scored"},
    **{"Explanation": "adapt.api.explain", "explain": "adapt.api.explain"},
    **{"ControlNet": "adapt.adapter.control_net", "IPAdapter": "adapt.sampling.ip_adapter"},
    **{"pull": "adapt.api.share", "push": "adapt.api.share", "sweep": "adapt.api.sweep"},
    **dict.fromkeys(
        (
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
        ),
        "conditioning",
    ),
}

__all__ = [
    "AdaptError",
    "Adapter",
    "AdaptiveGuidance",
    "AutoGuidance",
    "Backbone",
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
    "ControlNet",
    "Dial",
    "DomainGuidance",
    "Dropout",
    "Explanation",
    "Guidance",
    "Guided",
    "IPAdapter",
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
    "TrainSettings",
    "TrainingResult",
    "WithParts",
    "ZeroStarGuidance",
    "__version__",
    "explain",
    "generate",
    "guided_by",
    "pull",
    "push",
    "sweep",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'adapt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
