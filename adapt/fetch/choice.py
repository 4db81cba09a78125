"""Which files of a repository are an adapter's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from adapt.errors import AdapterError
from adapt.fetch.reference import Reference
from adapt.formats.diffusers_lora import FILE_NAME
from adapt.formats.experts import LOW_FILE
from adapt.formats.peft_folder import CONFIG_NAME, FOLDER, WEIGHTS_NAME

SAFE = (".safetensors", ".json", ".md", ".png", ".jpg", ".jpeg", ".webp", ".ipynb", ".txt")
"""What is fetched at all: nothing of these runs when it is opened."""
IN_PEFT = re.compile(rf"{FOLDER}/[\w.-]+/")

Choice = Callable[[Mapping[str, int]], Sequence[str]]
"""Name → bytes of a repository's files → the names that are wanted."""


def needed(what: Reference) -> Choice:
    """What drawing with an adapter needs: its weights and its facts."""

    def choose(sizes: Mapping[str, int]) -> list[str]:
        if "model_index.json" in sizes:
            raise AdapterError(
                "this repository is a whole model, not an adapter", given=what, next=f"--base {what.repository}"
            )
        if what.file:
            weights = [what.file] if what.file in sizes else []
        else:
            ours = [name for name in (FILE_NAME, LOW_FILE) if name in sizes]
            weights = (
                ours
                or _of_peft(sizes)
                or _only(what, [n for n in sizes if n.endswith(".safetensors") and "/" not in n])
            )
        if not weights:
            raise AdapterError("this repository holds no adapter that can be read", given=what, allowed=_offered(sizes))
        facts = ["adapter.json"] if "adapter.json" in sizes and not what.file else []
        return [
            *weights,
            *facts,
            *(n for n in sizes if n.startswith(("conditioning/", "embeddings/")) and n.endswith(SAFE)),
        ]

    return choose


def everything(what: Reference) -> Choice:
    """All of an adapter's repository that cannot run code."""

    def choose(sizes: Mapping[str, int]) -> list[str]:
        needed(what)(sizes)  # it holds an adapter at all
        return [what.file] if what.file else [name for name in sizes if name.endswith(SAFE)]

    return choose


def _of_peft(sizes: Mapping[str, int]) -> list[str]:
    """PEFT's own files: ours in `peft/` or, of several networks, in a folder each; its own at the root."""
    inside = [name.removesuffix(WEIGHTS_NAME) for name in sizes if name.endswith(WEIGHTS_NAME)]
    known = [place for place in inside if place in (f"{FOLDER}/", "") or IN_PEFT.fullmatch(place)]
    whole = [place for place in known if f"{place}{CONFIG_NAME}" in sizes]
    ours = [place for place in whole if place] or whole
    return [f"{place}{name}" for place in ours for name in (WEIGHTS_NAME, CONFIG_NAME)]


def _only(what: Reference, found: Sequence[str]) -> list[str]:
    if len(found) > 1:
        raise AdapterError(
            "this repository holds several weights files",
            given=what,
            allowed=", ".join(sorted(found)[:8]),
            next=f"name one: {what.repository}/{sorted(found)[0]}",
        )
    return list(found)


def _offered(sizes: Mapping[str, int]) -> str:
    files = [name for name in sorted(sizes) if name.endswith(".safetensors")]
    pickles = [name for name in sorted(sizes) if name.endswith((".bin", ".pt", ".ckpt", ".pth"))]
    if files:
        return f"name one of: {', '.join(files[:8])}"
    return f".safetensors; {pickles[0]} could run code when opened" if pickles else ".safetensors"
