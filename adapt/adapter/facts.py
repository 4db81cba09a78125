"""What stands in `adapter.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapt.errors import AdapterError
from adapt.source import composed

SCHEMA = 1
FACTS_NAME = "adapter.json"
MAPPINGS = (
    "base",
    "lora",
    "recommended",
    "distilled",
    "sweep",
    "data",
    "training",
    "proof",
    "words",
    "conditioning",
    "versions",
)
LISTS = ("samples", "loads_in", "triggers")


@dataclass(frozen=True)
class Facts:
    """What stands in `adapter.json`.

    Attributes:
        base: `reference` (`icons` or a Hub id; None for a local folder, whose path is nobody's business), of a
            Hub id the `revision` and `variant` that were asked for and the `commit`, `family`, `model` (of families of
            several), `fingerprint` (class, configuration and shapes of the denoiser), `pipeline` (diffusers' class), `license` …
        lora: peft's configuration by component.
        objective: prediction type that it was trained with.
        null: what an empty condition was in training.
        trigger: word that calls the style or subject, or None; of several, the first.
        triggers: all of them, where sources have their own.
        recommended: `scale`, `guidance_scale`, `steps` to draw with.
        distilled: `guidance_scale` and `guidance_rescale` that were learned: guidance is inside, and drawn with at 1.
        sweep: what `recommended` rests on, where a sweep has chosen them: `settings`, `pictures`, `references`, `style` …
        data: the pictures: how many, of how many classes, under which `license`; nothing private.
        training: summary: pictures, steps, chosen step, losses; nothing private.
        samples: `file`, `prompt` (None where it is a training caption), `seed`, `steps` … of each picture in `samples/`.
        proof: what was seen when the exported file was loaded again (`evaluation/proof.py`).
        words: new words: the `file` with their embedding, its `vectors`, the `encoders` that it is for.
        conditioning: learned conditioners by part: of classes their `labels`, `slot`, `shape`.
        versions: of the libraries that made it.
        loads_in: programs that can take the weights file.
    """

    base: Mapping[str, str | None] = field(default_factory=dict)
    lora: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    objective: str | None = None
    null: str | None = None
    trigger: str | None = None
    triggers: tuple[str, ...] = ()
    recommended: Mapping[str, float] = field(default_factory=dict)
    distilled: Mapping[str, float] = field(default_factory=dict)
    sweep: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Mapping[str, Any], ...] = ()
    proof: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    conditioning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    loads_in: tuple[str, ...] = ("adapt", "diffusers")

    @property
    def base_reference(self) -> str | None:
        """The base as `--base` takes it, with the revision and variant that were asked for; None: not told."""
        name = self.base.get("reference")
        return name and composed(name, self.base.get("revision"), self.base.get("variant"))

    def as_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **{name: getattr(self, name) for name in self.__dataclass_fields__}}


def read_facts(folder: Path | None) -> Facts:
    """`adapter.json` of an adapter's folder; empty facts when there is none. Needs no torch.

    Raises:
        AdapterError: unreadable, or written by a newer adapt.
    """
    if folder is None or not (file := folder / FACTS_NAME).is_file():
        return Facts()
    try:
        values = dict(json.loads(file.read_text("utf-8")))
        schema = values.pop("schema")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError("adapter.json cannot be read", given=file) from error
    if schema != SCHEMA:
        raise AdapterError("adapter.json has another schema", given=schema, allowed=SCHEMA, next="update adapt")
    known = {k: v for k, v in values.items() if k in Facts.__dataclass_fields__}
    for name, value in known.items():
        kind = list if name in LISTS else dict if name in MAPPINGS else str | None
        if not isinstance(value, kind):
            raise AdapterError(f"adapter.json cannot be read: {name} is of another kind", given=file)
    if not all(isinstance(sample, dict) for sample in known.get("samples", ())):
        raise AdapterError("adapter.json cannot be read: samples is of another kind", given=file)
    return Facts(**{**known, **{name: tuple(known.get(name, ())) for name in LISTS}})
