"""What the table of families says and nobody can see without torch: counted once, kept as data beside the families.

`python -m adapt.api.counting` counts what is not counted yet, `--all` everything anew (some minutes; no weights are needed).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from adapt.api.families import COUNTED
from adapt.api.footprint import count, usual
from adapt.backbones import Backbone
from adapt.backbones.registry import FAMILIES, Family
from adapt.files import write
from adapt.progress import say
from adapt.quiet import quiet_libraries

RANK = 16
WHERE = {"attention": ("to_", "attn", "qkv", "add_"), "feed-forward": ("ff", "mlp"), "convolutions": ("conv",)}
"""Words for layers → parts of their names."""


def told(family: Family) -> dict[str, Any]:
    """What a family's class and its pipeline say: where LoRA goes by default, its guidance, who loads its adapters."""
    kind = family.load()
    with quiet_libraries():
        import diffusers

        by_diffusers = hasattr(getattr(diffusers, next(iter(family.pipelines))), "load_lora_weights")
    return {
        "trained": [word for word, parts in WHERE.items() if _any(kind.lora_targets, parts)],
        "guidance": _guidance(kind),
        "loads_in": ["adapt", "diffusers" if by_diffusers else "peft"],
    }


def _any(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    return any(name.rpartition(".")[2].startswith(parts) or name.startswith(parts) for name in names)


def _guidance(kind: type[Backbone]) -> str:
    """The family's own form of it, with its usual scale."""
    if kind.guidance_scale == 1.0:
        return "embedded" if _has_own(kind, "embedded_guidance") else "none"
    renormalised = ", renormalised" if _has_own(kind, "normalise") else ""
    return f"classifier-free {kind.guidance_scale:g}{renormalised}"


def _has_own(kind: type[Backbone], name: str) -> bool:
    return getattr(kind, name) is not getattr(Backbone, name)


def counted(known: Mapping[str, Any], *, anew: bool) -> dict[str, Any]:
    """The table's data; checkpoints that are known are taken over, unless all is counted anew."""
    found: dict[str, Any] = {}
    for name, entry in usual().items():
        if anew or name not in known:
            say(f"counting {entry['title']}")
            found[name] = count(entry, RANK).as_dict()
        else:
            found[name] = known[name]
    return {"rank": RANK, "families": {f.name: told(f) for f in FAMILIES.values()}, "checkpoints": found}


def main(words: list[str]) -> int:
    """Writes `counted.json`."""
    old = json.loads(COUNTED.read_text("utf-8"))["checkpoints"] if COUNTED.is_file() else {}
    write(COUNTED, json.dumps(counted(old, anew="--all" in words), indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
