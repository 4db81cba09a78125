"""What can be said of one base without loading its weights. Imports no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapt.api.families import memory_of
from adapt.backbones.registry import Family, family_of, refusal_of
from adapt.checkpoints import header
from adapt.checkpoints.contents import DENOISERS
from adapt.checkpoints.packing import packing_of
from adapt.errors import BackboneError
from adapt.loading import frame_of, held_in, index_of, medium_of
from adapt.medium import Medium
from adapt.source import Source, source
from adapt.whole import WEIGHTED


@dataclass(frozen=True)
class Component:
    """One network of a base, from the headers of its files.

    Attributes:
        kind: its class.
        parameters: numbers in its files.
        precision: dtype → numbers, as the files call them.
        bytes: of its files.
        packed: how it is held in few bits; None: it is not.
    """

    name: str
    kind: str
    parameters: int
    precision: dict[str, int]
    bytes: int
    packed: str | None = None


@dataclass(frozen=True)
class Judged:
    """What a base is.

    Attributes:
        frame: side of its pictures and what sides are multiples of, in pixels; None where its configuration does not say.
        medium: what it makes.
        refused: why it cannot be trained; None: it can.
        held: what it is held in when nothing is said, on a CPU and on a GPU.
        memory: of a training step, as `adapt bases --memory` counts it for the published checkpoint of as many parameters; None:
            there is none.
    """

    reference: str
    family: str
    title: str
    pipeline: str
    task: str
    state: str
    licence: str
    components: tuple[Component, ...]
    frame: tuple[int, int] | None
    medium: Medium
    refused: str | None
    held: dict[str, str]
    memory: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(reference: str) -> Judged:
    """What stands in a base's files.

    Raises:
        BackboneError: not there, not whole, needs pickles, of an unknown family, or files that cannot be read.
    """
    where = source(reference)
    folder, index = where.folder, index_of(where)
    family = family_of(index)
    assert family is not None, "read_index has looked"
    named = [name for name in WEIGHTED if isinstance(index.get(name), list) and index[name][1] is not None]
    pipeline = str(index["_class_name"])
    components = tuple(_components(where, {name: index[name][1] for name in named}))
    return Judged(
        reference=reference, family=family.name, title=family.title, pipeline=pipeline,
        task=family.pipelines[pipeline], state=family.state, licence=family.licence,
        components=components, frame=frame_of(folder), medium=medium_of(folder), refused=_refused(folder, family),
        held={device: held_in(where, device) for device in ("cpu", "cuda")}, memory=_memory(family, components),
    )  # fmt: skip


def _components(where: Source, kinds: Mapping[str, str]) -> Iterator[Component]:
    """Each network of a folder; of a checkpoint the whole file, and what it lacks."""
    packed = packing_of(where.folder, where.contents)
    if where.checkpoint:
        few = "gguf" if where.checkpoint.suffix == ".gguf" else None
        yield _component(where.checkpoint.name, "checkpoint in one file", [where.checkpoint], few)
    found = {name: (kind, where.weights(name, kind)) for name, kind in kinds.items()}
    yield from (_component(name, kind, files, packed.get(name)) for name, (kind, files) in found.items() if files)


def _memory(family: Family, components: Sequence[Component]) -> dict[str, Any] | None:
    """Of the published checkpoint that has as many parameters as the denoiser, to 2 %."""
    own = next(
        (part.parameters for part in components if part.name in DENOISERS or part.kind.startswith("checkpoint")), 0
    )
    for title, found in memory_of(family).items():
        if abs(own - found["parameters"]) <= 0.02 * found["parameters"]:
            return {"like": title, **found}
    return None


def _component(name: str, kind: str, files: Sequence[Path], packed: str | None) -> Component:
    precision: Counter[str] = Counter()
    for file in files:
        for entry in header(file).values():
            precision[entry.dtype] += entry.numbers
    sizes = sum(file.stat().st_size for file in files)
    return Component(name, kind, sum(precision.values()), dict(precision.most_common()), sizes, packed)


def _refused(folder: Path, family: Family) -> str | None:
    """Why it cannot be trained, as far as configurations say."""
    places = {name: folder / name / "config.json" for name in ("unet", "transformer", "vae", "vocoder")}
    places["scheduler"] = folder / "scheduler" / "scheduler_config.json"
    try:
        configs = {name: json.loads(file.read_text("utf-8")) for name, file in places.items() if file.is_file()}
    except ValueError as error:
        raise BackboneError("a configuration of the base cannot be read", given=folder) from error
    if "scheduler" not in configs:
        raise BackboneError("the base is not whole: scheduler is missing", given=folder, next="download it again")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    refusal = refusal_of(family, {**configs, "pipeline": index})
    return refusal.reason if refusal else None
