"""The proof of an adapter's file in a fresh pipeline, as commands ask for it and tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.api.tools import Verdict
    from adapt.backbones import Backbone


def proof_line(verdict: Verdict) -> str:
    """What a fresh pipeline made of a file."""
    proof = verdict.proof
    assert proof is not None, "nothing was compared"
    whose = "" if verdict.as_is else " in its own names, of what adapt read"
    return f"{proof.line(whose)}, and the adapter moves them by {proof.effect:.1e}"


def unknown_kinds(adapter: Adapter) -> str:
    """Why no library can take the adapter; "" where one can."""
    from adapt.formats.readers import LOADER

    strange = sorted(adapter.weights.kinds - LOADER.keys())
    return f"neither diffusers nor peft has layers of kind {', '.join(strange)}" if strange else ""


def prove(path: Path, adapter: Adapter, base: Backbone | None, beside: Sequence[Path] = ()) -> Verdict | None:
    """Proves a file or a folder that was written just now, and says what was seen.

    Args:
        base: None: the adapter's own if it is on this machine; else it is said how the proof can be done.
        beside: files that belong to it.

    Raises:
        AdapterError: a fresh pipeline does not agree with it; it is set aside.
    """
    from adapt.api.tools import prove_export
    from adapt.cli.base_of import own
    from adapt.progress import say

    if why_not := unknown_kinds(adapter):
        say(f"not loaded into a pipeline: {why_not}")
        return None
    if base is None:
        base, why_not = own(adapter)
    if base is None:
        say(f"not loaded into a pipeline: {why_not}; adapt verify {path} --base BASE does it")
        return None
    verdict = prove_export(path, adapter, base, beside)
    say(proof_line(verdict))
    return verdict
