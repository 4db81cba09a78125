"""What can be said of an adapter file by itself: dialect, family, rank and strength of each layer, norms, problems."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.errors import AdapterError
from adapt.formats.dialects import AI_TOOLKIT, dialect_of
from adapt.formats.header import HEADER
from adapt.formats.layer import Layer
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import family_of
from adapt.formats.opening import read_header

if TYPE_CHECKING:
    from torch import Tensor

LOUD = 20.0
"""A layer whose ‖ΔW‖ is this many times the median of its component's has probably diverged."""


@dataclass(frozen=True)
class LayerFacts:
    """Attributes:
    name: `<component>.<layer>`.
    kind: `lora`, `dora`, `loha`, `lokr` …
    rank, alpha: r, and alpha over it is the factor.
    size: (out, in × kernel).
    norm: ‖ΔW‖, Frobenius.
    dtype: of its tensors.
    """

    name: str
    kind: str
    rank: int
    alpha: float
    scale: float
    size: tuple[int, int]
    norm: float
    dtype: str

    @staticmethod
    def of(name: str, layer: Layer) -> LayerFacts:
        dtype = str(next(iter(layer.tensors().values())).dtype).removeprefix("torch.")
        norm: Tensor = layer.norm()
        return LayerFacts(name, layer.kind, layer.rank, layer.alpha, layer.scale, layer.size, float(norm), dtype)


@dataclass(frozen=True)
class Inspection:
    """Attributes:
    dialect: whose names the file has.
    family: model that it fits, by its layers; None where they do not tell.
    layers: all of them, by name.
    metadata: entries of the header; peft's configuration is left out.
    problems: what is wrong or worth knowing, a sentence each.
    """

    dialect: str
    family: str | None
    layers: tuple[LayerFacts, ...]
    metadata: dict[str, str]
    problems: tuple[str, ...]

    @property
    def components(self) -> dict[str, int]:
        """Component → number of layers."""
        return dict(Counter(layer.name.partition(".")[0] for layer in self.layers))

    def counted(self, what: str) -> dict[Any, int]:
        """Values of one of the facts → number of layers, most frequent first."""
        return dict(Counter(getattr(layer, what) for layer in self.layers).most_common())

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "components": self.components}


def inspect(path: Path, weights: LoraWeights) -> Inspection:
    """Facts of a file and of the weights that were read from it."""
    header = read_header(path)
    dialect = dialect_of(header.entries, path)
    from_ai_toolkit = dialect.name == "diffusers" and "ai-toolkit" in header.metadata.get("software", "")
    layers = tuple(
        LayerFacts.of(f"{component}.{name}", layer)
        for component, inside in weights.modules.items()
        for name, layer in inside.items()
    )
    metadata = {key: value for key, value in header.metadata.items() if key != HEADER}
    title = (AI_TOOLKIT if from_ai_toolkit else dialect).title
    return Inspection(title, _family(weights), layers, metadata, tuple(_problems(layers)))


def _family(weights: LoraWeights) -> str | None:
    try:
        return family_of(weights.modules).title
    except AdapterError:
        return None


def _problems(layers: tuple[LayerFacts, ...]) -> list[str]:
    found = []
    if silent := [layer.name for layer in layers if layer.norm == 0]:
        found.append(f"{len(silent)} of {len(layers)} layers do nothing, such as {silent[0]}")
    norms = sorted(layer.norm for layer in layers if layer.norm > 0)
    median = norms[len(norms) // 2] if norms else 0.0
    if loud := [layer.name for layer in layers if layer.norm > LOUD * median > 0]:
        found.append(f"{len(loud)} layers are more than {LOUD:g} times as strong as the median, such as {loud[0]}")
    if len(kinds := {layer.kind for layer in layers}) > 1:
        found.append(f"it mixes kinds: {', '.join(sorted(kinds))}; few programs take that")
    if wide := [layer.name for layer in layers if layer.kind == "lora" and layer.rank > min(layer.size)]:
        found.append(
            f"{len(wide)} layers have a rank above their size, such as {wide[0]}: adapt resize makes it smaller"
        )
    return found
