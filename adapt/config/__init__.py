"""The settings of a training run, from files and command lines."""

from adapt.config.fields import COURSE, SHOW, Unsettled
from adapt.config.names import OTHER_NAMES
from adapt.config.resolve import Resolved, parse_overrides, read_file, require_known, require_settled, resolve, validate
from adapt.config.settings import SECTIONS, TrainSettings, kind

__all__ = [
    "COURSE",
    "OTHER_NAMES",
    "SECTIONS",
    "SHOW",
    "Resolved",
    "TrainSettings",
    "Unsettled",
    "kind",
    "parse_overrides",
    "read_file",
    "require_known",
    "require_settled",
    "resolve",
    "validate",
]
