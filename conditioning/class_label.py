"""Classes → the part `class`: a label map, a table of embeddings, and a projector into what the denoiser takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conditioning.condition import Part
from conditioning.learned import LearnedConditioner, copied, load
from conditioning.own_layers import PREFIX, Changes, OwnLayers

SLOTS = ("tokens", "embedding")

Mixture = Mapping[str, float]
"""Class → its share: `{"finch": 0.7, "canary": 0.3}`."""


class ClassConditioner(LearnedConditioner):
    """A class is null + its start + its embedding · projector: tokens beside the text's (B, n, D), or one embedding (B, D) that
    is added to the time's (Dhariwal & Nichol 2021, arXiv 2105.05233, appendix B).

    The start is what the text encoder makes of the class's name; without one, a class is null at first. The table starts at zero
    and the projector at random. Classes that come later find projector and null frozen, which know only where the others are:
    their start is learned too, so that they can go anywhere; and as the denoiser's layers are frozen as well, each may bring a
    low-rank change of them, which works in its rows alone.

    Args:
        labels: names of the classes, in the order of the table.
        table: (K, E).
        projector: (E, n · D), or (E, D).
        empty: the null that is learned: (n, D), or (D,).
        slot: `tokens` or `embedding`.
        start: (K, n · D), or (K, D); None: zeros.
        kept: so many first rows of the table stay as they are, and projector and null with them; 0: everything is learned.
        own: changes of the denoiser's layers that are a class's own; see `OwnLayers`.

    Attributes:
        own_layers: these changes.

    Raises:
        ValueError: labels that are empty or double, shapes that do not fit.
    """

    name = "class"
    known: Tensor
    fixed: Tensor

    def __init__(
        self,
        labels: Sequence[str],
        table: Tensor,
        projector: Tensor,
        empty: Tensor,
        slot: str = "tokens",
        kept: int = 0,
        start: Tensor | None = None,
        own: Changes | None = None,
    ) -> None:
        super().__init__()
        self.labels = _labels(labels)
        if slot not in SLOTS or empty.ndim != 2 - SLOTS.index(slot):
            raise ValueError(f"the null of {slot!r} has another shape: {tuple(empty.shape)}")
        if table.shape != (len(self.labels), len(projector)) or projector.shape[1:] != (empty.numel(),):
            shapes = [tuple(x.shape) for x in (table, projector, empty)]
            raise ValueError(f"table, projector and null of {len(self.labels)} classes do not fit: {shapes}")
        start = table.new_zeros(len(self.labels), empty.numel()) if start is None else start
        if start.shape != (len(self.labels), empty.numel()):
            raise ValueError(f"starts of {len(self.labels)} classes have another shape: {tuple(start.shape)}")
        self.slot = slot
        learned_from = kept or len(self.labels)
        self.register_buffer("fixed", start[:learned_from].clone())
        self.own = nn.Parameter(start[learned_from:].clone(), requires_grad=False)
        self.register_buffer("known", table[:kept].clone())
        self.table = nn.Parameter(table[kept:].clone(), requires_grad=False)
        self.projector = nn.Parameter(projector.clone(), requires_grad=False)
        self.empty = nn.Parameter(empty.clone(), requires_grad=False)
        self.own_layers = OwnLayers(own or {}, len(self.labels))

    @staticmethod
    def new(
        labels: Sequence[str],
        empty: Tensor,
        *,
        slot: str = "tokens",
        width: int = 256,
        spread: float = 1.0,
        seed: int = 0,
        start: Tensor | None = None,
    ) -> ClassConditioner:
        """One that has learned nothing: every class is where it starts.

        Args:
            empty: what null starts as: (n, D), or (D,).
            width: numbers an embedding.
            spread: standard deviation of what the projector makes of an embedding of standard normal numbers.
            seed: of the projector.
            start: as above.
        """
        draw = torch.randn(width, empty.numel(), generator=torch.Generator().manual_seed(seed))
        projector = draw * (spread / width**0.5)
        return ClassConditioner(labels, torch.zeros(len(labels), width), projector, empty.float(), slot, start=start)

    # ------------------------------------------------------------------------------------------------ what it says
    @property
    def embeddings(self) -> Tensor:
        """The whole table (K, E)."""
        return torch.cat([self.known, self.table])

    @property
    def start(self) -> Tensor:
        """Where each class starts (K, n · D), relative to null."""
        return torch.cat([self.fixed, self.own])

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """Of one that grows, only what is the new classes'."""
        if kept := len(self.known):
            own = {f"{PREFIX}{name}": x for name, x in self.own_layers.since(kept).items()}
            return {"table": self.table, "start": self.own, **own}
        return {"table": self.table, "projector": self.projector, "null": self.empty}

    def encode(self, raw: Sequence[str | Mixture]) -> Part:
        """One row a class, or a mixture of classes; "" is null. Where classes have layers of their own, `own` (B, K) says how
        much of each class's a row takes.

        Raises:
            ValueError: a class that it does not have.
        """
        weights = torch.stack([self._weights(each) for each in raw]).to(self.empty)
        moved = weights @ self.start + weights @ self.embeddings @ self.projector
        return {self.slot: self.empty + moved.view(len(raw), *self.empty.shape), **self.own_layers.told(weights)}

    def beside(self, part: Part) -> Part:
        """Null beside what `part` is told: the classes' own layers stay, as a control stays on both sides of guidance.

        The null of the classes that were there knows nothing of a further one, at no noise: the push away from it never ends, and
        colours are driven out of range. So null is learned anew under a class's own layers. Classes without any: null.
        """
        null = self.null(len(next(iter(part.values()))))
        return {**null, **({"own": part["own"]} if "own" in part else {})}

    def null(self, rows: int) -> Part:
        nobody = self.empty.new_zeros(rows, len(self.labels))
        return {self.slot: self.empty.expand(rows, *self.empty.shape), **self.own_layers.told(nobody)}

    def _weights(self, raw: str | Mixture) -> Tensor:
        mixture = raw if isinstance(raw, Mapping) else {raw: 1.0} if raw else {}
        found = torch.zeros(len(self.labels))
        for label, weight in mixture.items():
            found[self.index(label)] += weight
        return found

    def index(self, label: str) -> int:
        """The row of a class. Raises ValueError for one that it does not have."""
        if label not in self.labels:
            raise ValueError(f"there is no class {label!r}; known: {', '.join(self.labels)}")
        return self.labels.index(label)

    # ------------------------------------------------------------------------------------------------ other classes
    def _with(
        self, labels: Sequence[str], table: Tensor, start: Tensor, own: Changes, kept: int = 0
    ) -> ClassConditioner:
        fixed = self.projector.detach(), self.empty.detach()
        return ClassConditioner(labels, table, *fixed, self.slot, kept, start, own)

    @torch.no_grad()
    def grown(self, labels: Sequence[str], start: Tensor | None = None, own: Changes | None = None) -> ClassConditioner:
        """With further classes, whose embeddings start in the middle of the others'; only they are learned.

        Args:
            start: of the further classes; None: zeros.
            own: their changes of layers, as `OwnLayers` names them, the first further class being number 0; None: none.

        Raises:
            ValueError: a class that it has already.
        """
        table = torch.cat([self.embeddings, self.embeddings.mean(0).expand(len(labels), -1)])
        start = self.start.new_zeros(len(labels), self.start.shape[1]) if start is None else start.to(self.start)
        kept = len(self.labels)
        further = OwnLayers(own or {}, len(labels)).renumbered({k: kept + k for k in range(len(labels))})
        changes = {**self.own_layers.tensors, **further}
        return self._with([*self.labels, *labels], table, torch.cat([self.start, start]), changes, kept)

    @torch.no_grad()
    def without(self, labels: Sequence[str]) -> ClassConditioner:
        """Without some classes; the others say what they said. Raises ValueError for unknown ones, and for all."""
        gone = {self.index(label) for label in labels}
        rows = [row for row in range(len(self.labels)) if row not in gone]
        own = self.own_layers.renumbered({row: number for number, row in enumerate(rows)})
        return self._with([self.labels[row] for row in rows], self.embeddings[rows], self.start[rows], own)

    @torch.no_grad()
    def renamed(self, names: Mapping[str, str]) -> ClassConditioner:
        """With other names, old → new. Raises ValueError for unknown old ones, and where two would have one name."""
        for label in names:
            self.index(label)
        labels = [names.get(label, label) for label in self.labels]
        return self._with(labels, self.embeddings, self.start, self.own_layers.tensors)

    @torch.no_grad()
    def merged(self, other: ClassConditioner) -> ClassConditioner:
        """With the classes of another that grew from the same: table, projector and null of what they share are equal.

        Raises:
            ValueError: they do not speak the same language (projector, null), or clash: one name, two embeddings.
        """
        if not self.speaks_as(other):
            raise ValueError("the two have other projectors: they did not grow from the same classes")
        if clash := self.clashes(other):
            raise ValueError(f"classes of one name say different things: {', '.join(clash)}")
        more = [label for label in other.labels if label not in self.labels]
        rows = [other.index(label) for label in more]
        table = torch.cat([self.embeddings, other.embeddings[rows]])
        theirs = other.own_layers.renumbered({row: len(self.labels) + k for k, row in enumerate(rows)})
        own = {**self.own_layers.tensors, **theirs}
        return self._with([*self.labels, *more], table, torch.cat([self.start, other.start[rows]]), own)

    def speaks_as(self, other: ClassConditioner) -> bool:
        """Whether an embedding means the same to both."""
        same = self.slot == other.slot and self.projector.shape == other.projector.shape
        return same and bool(torch.equal(self.projector, other.projector) and torch.equal(self.empty, other.empty))

    def clashes(self, other: ClassConditioner) -> list[str]:
        """Names that both have for different embeddings."""
        both = [label for label in self.labels if label in other.labels]
        return [k for k in both if not _same(self._own(k), other._own(k))]

    def _own(self, label: str) -> dict[str, Tensor]:
        """All that is a class's own: its embedding, its start, its changes of layers."""
        row = self.index(label)
        changes = self.own_layers.renumbered({row: 0})
        return {"": torch.cat([self.embeddings[row], self.start[row]]), **changes}

    # ------------------------------------------------------------------------------------------------ files
    def state(self) -> dict[str, Tensor]:
        own = {f"{PREFIX}{name}": x for name, x in self.own_layers.tensors.items()}
        known = {"table": self.embeddings, "projector": self.projector, "null": self.empty, "start": self.start}
        return copied({**known, **own})

    @torch.no_grad()
    def having(self, values: Mapping[str, Tensor]) -> ClassConditioner:
        held = {**self.state(), **copied(values)}
        if "table" in values:
            held["table"] = torch.cat([self.known.cpu(), held["table"]])
        if "start" in values:
            held["start"] = torch.cat([self.fixed.cpu(), held["start"]])
        return _built(self.told(), held)

    @property
    def schema(self) -> int:
        """2 with layers of classes' own, which readers of the first would leave out in silence."""
        return 2 if self.own_layers.tensors else 1

    def told(self) -> dict[str, Any]:
        return {"slot": self.slot, "labels": list(self.labels)}

    @staticmethod
    def load(folder: str | Path) -> ClassConditioner:
        """Reads what `save` wrote.

        Raises:
            ValueError: something else, damaged, or with values that are not finite.
        """
        return load(folder, ClassConditioner.__name__, _built, "classes")


def _built(told: Mapping[str, Any], held: Mapping[str, Tensor]) -> ClassConditioner:
    """From what `told` and `state` say."""
    fixed = held["table"], held["projector"], held["null"]
    own = {name.removeprefix(PREFIX): x for name, x in held.items() if name.startswith(PREFIX)}
    return ClassConditioner(told["labels"], *fixed, told["slot"], start=held["start"], own=own)


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[name]) for name, x in one.items())


def _labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Raises ValueError unless there are some, each of them a name, each once."""
    found = tuple(labels)
    if not found or not all(isinstance(label, str) and label for label in found):
        raise ValueError("a label is a text that is not empty, and there is one at least")
    if double := sorted({label for label in found if found.count(label) > 1}):
        raise ValueError(f"two classes would have one name: {', '.join(double)}")
    return found
