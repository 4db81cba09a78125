"""Pretrained families behind one interface. `registry` needs no torch; the classes are imported when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapt.backbones.registry import FAMILIES, Family

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone

__all__ = ["FAMILIES", "Backbone", "Family"]


def __getattr__(name: str) -> Any:
    if name == "Backbone":
        from adapt.backbones.base import Backbone

        return Backbone
    for family in FAMILIES.values():
        if family.where.partition(":")[2] == name:
            return family.load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
