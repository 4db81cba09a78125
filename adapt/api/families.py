"""The table of families: what is known of each, and what training the published checkpoints takes. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adapt.backbones.registry import FAMILIES, Family

COUNTED = Path(__file__).parents[1] / "backbones" / "counted.json"
"""What `python -m adapt.api.counting` writes."""
USUAL = COUNTED.with_name("usual.json")
"""The denoisers of published checkpoints."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one row of a batch, in bfloat16.

    Attributes:
        parameters: of the denoiser.
        weights: their bytes; `weights_nf4` with linear layers in NF4.
        adapter: bytes of LoRA, its gradients and moments.
        saved: bytes that backward keeps; `saved_checkpointed` with gradient checkpointing, without the one block that is then
            computed again at a time.
    """

    parameters: int
    weights: int
    weights_nf4: int
    adapter: int
    saved: int
    saved_checkpointed: int

    def total(self, *, nf4: bool = False, checkpointing: bool = False) -> int:
        """All of it."""
        saved = self.saved_checkpointed if checkpointing else self.saved
        return (self.weights_nf4 if nf4 else self.weights) + self.adapter + saved

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


TOLD = {"text-to-image": "text", "video": "text", "sound": "text", "class": "class", "edit": "text and a picture to edit",
        "inpainting": "text, a picture and its mask"}  # fmt: skip
"""Task → what a base is told."""


@cache
def counted() -> Mapping[str, Any]:
    """What `python -m adapt.api.counting` has counted: `families`, and `checkpoints` with the bytes of training them."""
    found: dict[str, Any] = json.loads(COUNTED.read_text("utf-8"))
    return found


def table() -> list[dict[str, Any]]:
    """One row a family: what it is, what can be done with it, what that takes, how sure that is."""
    return [row_of(family) for family in FAMILIES.values()]


def row_of(family: Family) -> dict[str, Any]:
    """A family's row.

    `trained`: where LoRA goes by default; `guidance`: its own form; `loads_in`: programs that take its adapters; `memory`: of
    published checkpoints, GiB of a training step with LoRA of rank 16, one row of its own size (`Footprint.total`). None or
    empty where nothing was counted yet.
    """
    seen = counted()["families"].get(family.name, {})
    return {
        "family": family.name,
        "title": family.title,
        "pipelines": dict(family.pipelines),
        "conditions": {task: TOLD.get(task, task) for task in sorted(set(family.pipelines.values()))},
        "medium": family.medium,
        "trained": seen.get("trained", []),
        "guidance": seen.get("guidance"),
        "loads_in": [*seen.get("loads_in", []), *(("UIs",) if family.kohya is not None else ())],
        "memory": memory_of(family),
        "tokens": family.max_tokens,
        "licence": family.licence,
        "state": family.state,
        "refused": {refusal.variant: refusal.reason for refusal in family.refused},
    }


def memory_of(family: Family) -> dict[str, dict[str, Any]]:
    """Checkpoint → its parameters and GiB in bf16, with gradient checkpointing, and with that and NF4."""
    usual: dict[str, Any] = json.loads(USUAL.read_text("utf-8"))
    known = counted()["checkpoints"]
    return {
        entry["title"]: {"parameters": entry["parameters"], **_gib(known[name])}
        for name, entry in usual.items()
        if entry["family"] == family.name and name in known
    }


def _gib(bytes_of: Mapping[str, int]) -> dict[str, float]:
    footprint = Footprint(**bytes_of)
    found = {
        "bf16": footprint.total(),
        "bf16_checkpointing": footprint.total(checkpointing=True),
        "nf4_checkpointing": footprint.total(nf4=True, checkpointing=True),
    }
    return {name: round(total / 2**30, 2) for name, total in found.items()}
