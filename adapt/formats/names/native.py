"""The names that a model's own code gives its layers, beside diffusers': some hold several of diffusers', one above another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from adapt.formats.names.words import flat


@dataclass(frozen=True)
class Native:
    """One native layer in diffusers' names.

    Attributes:
        name: native, dotted.
        modules: diffusers', from the top of the native weight to its bottom.
        shares: their heights, relative to each other.
        halves: the native code has shift above scale and diffusers scale above shift, where out = 2 in (AdaLN-continuous).
    """

    name: str
    modules: tuple[str, ...]
    shares: tuple[int, ...]
    halves: bool = False

    def at(self, number: str) -> Native:
        """With the number of its block filled in."""
        modules = tuple(module.replace("{}", number) for module in self.modules)
        return Native(self.name.replace("{}", number), modules, self.shares, self.halves)


def native(name: str, *modules: str, shares: tuple[int, ...] | None = None, halves: bool = False) -> Native:
    return Native(name, modules, shares or (1,) * len(modules), halves)


@dataclass(frozen=True)
class Names:
    """A table of native layers; `{}` is the number of a block."""

    table: tuple[Native, ...]

    def of_native(self, name: str, *, underscored: bool = False) -> Native | None:
        """The layer of this native name, dotted or with underscores for dots; None: there is none."""
        block, number = _numbered(name)
        rows = self._flat if underscored else self._dotted
        row = rows.get(name) or rows.get(block)
        return row.at(number) if row else None

    def of_module(self, module: str) -> tuple[Native, int] | None:
        """The native layer that holds a module of diffusers', and the module's place in it."""
        block, number = _numbered(module)
        found = self._modules.get(module) or self._modules.get(block)
        return (found[0].at(number), found[1]) if found else None

    @cached_property
    def _dotted(self) -> Mapping[str, Native]:
        return {row.name: row for row in self.table}

    @cached_property
    def _flat(self) -> Mapping[str, Native]:
        return {flat(row.name): row for row in self.table}

    @cached_property
    def _modules(self) -> Mapping[str, tuple[Native, int]]:
        return {module: (row, place) for row in self.table for place, module in enumerate(row.modules)}


def _numbered(name: str) -> tuple[str, str]:
    """`blocks.7.mlp.0` → `blocks.{}.mlp.0` and `7`: the first number that stands alone is the block's."""
    found = re.match(r"(.*?blocks[._])(\d+)([._].*)", name)
    return (f"{found[1]}{{}}{found[3]}", found[2]) if found else (name, "")
