"""The proof of an adapter's file in a fresh pipeline, as commands ask for it and tell it."""

from __future__ import annotations

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


def prove(path: Path, adapter: Adapter, base: Backbone | None) -> Verdict | None:
    """Proves an exported file and says what was seen.

    Args:
        base: None: the adapter's own if it is on this machine; else it is said how the proof can be done.

    Raises:
        AdapterError: a fresh pipeline does not agree with the file.
    """
    from adapt.api.tools import prove_export
    from adapt.cli.base_of import own
    from adapt.formats.readers import LOADER
    from adapt.progress import say

    if strange := adapter.weights.kinds - LOADER.keys():
        say(f"not loaded into a pipeline: neither diffusers nor peft has layers of kind {', '.join(sorted(strange))}")
        return None
    why_not = ""
    if base is None:
        base, why_not = own(adapter)
    if base is None:
        say(f"not loaded into a pipeline: {why_not}; adapt verify {path} --base BASE does it")
        return None
    verdict = prove_export(path, adapter, base)
    say(proof_line(verdict))
    return verdict
