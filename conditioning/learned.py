"""Conditioners that are learned: parameters by name, and a folder of safetensors and JSON, from which no code is run."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conditioning.condition import Part

WEIGHTS, CONFIG, SCHEMA = "model.safetensors", "config.json", 1
Found = TypeVar("Found", bound="LearnedConditioner")


class LearnedConditioner(nn.Module, ABC):
    """A conditioner with parameters of its own.

    Attributes:
        name: of its part in `Condition.parts`.
    """

    name: str

    @property
    @abstractmethod
    def learned(self) -> dict[str, nn.Parameter]:
        """What is taught, by name."""

    @abstractmethod
    def encode(self, raw: Any) -> Part:
        """One row of tensors for each raw condition."""

    @abstractmethod
    def null(self, rows: int) -> Part:
        """The part that says nothing, `rows` times."""

    def beside(self, part: Part) -> Part:
        """What says nothing in place of a part: null, and what of the part is on both sides of guidance."""
        return self.null(len(next(iter(part.values()))))

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that it has learned, by the names in its file; copies on the CPU."""

    @abstractmethod
    def having(self, values: Mapping[str, Tensor]) -> Self:
        """A copy on the CPU with these values in place of its own, by the names of `learned`."""

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """What its `config.json` says beside its kind."""

    @property
    def schema(self) -> int:
        """Which readers understand its files."""
        return SCHEMA

    @property
    def size(self) -> int:
        """Numbers that it holds."""
        return sum(tensor.numel() for tensor in self.state().values())

    def save(self, folder: str | Path) -> None:
        """`model.safetensors` and `config.json`; equal conditioners are equal bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state(), folder / WEIGHTS, {"format": "pt"})
        told = {"kind": type(self).__name__, "schema": self.schema, **self.told()}
        (folder / CONFIG).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8")


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now, on the CPU."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def load(
    folder: str | Path,
    kind: str,
    build: Callable[[Mapping[str, Any], Mapping[str, Tensor]], Found],
    what: str,
) -> Found:
    """Reads what `save` wrote.

    Args:
        build: (what `config.json` says, tensors) → the conditioner.
        what: it holds, for the message.

    Raises:
        ValueError: something else, damaged, or with values that are not finite.
    """
    folder = Path(folder)
    try:
        told = json.loads((folder / CONFIG).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS)
        if told["kind"] != kind:
            raise ValueError(f"{told['kind']}, not {kind}")
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ValueError("values that are not finite")
        found = build(told, tensors)
        if told["schema"] != found.schema:
            raise ValueError(f"schema {told['schema']}, and what it holds is of schema {found.schema}")
        return found
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder.name}/ holds no {what} that can be read: {error}") from error
