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
    return (
        f"{proof.reader} took {proof.layers} layers{whose}; "
        f"largest difference {proof.difference:.2g}, effect {proof.effect:.2g}"
    )


def asked_for(adapter: Adapter, base: str) -> Backbone:
    """The base that was asked for.

    Raises:
        AdapterError: another than the adapter's.
        BackboneError: not there.
    """
    from adapt.backbones import Backbone

    found = Backbone.load(base)
    adapter.check(found)
    return found


def prove(path: Path, adapter: Adapter, base: Backbone | None) -> Verdict | None:
    """Proves an exported file and says what was seen.

    Args:
        base: None: the adapter's own if it is on this machine; else it is said how the proof can be done.

    Raises:
        AdapterError: a fresh pipeline does not agree with the file.
    """
    from adapt.api.tools import prove_export
    from adapt.progress import say

    why_not = ""
    if base is None:
        base, why_not = _at_hand(adapter)
    if base is None:
        say(f"not loaded into a pipeline: {why_not}; adapt verify {path} --base BASE does it")
        return None
    verdict = prove_export(path, adapter, base)
    say(proof_line(verdict))
    return verdict


def _at_hand(adapter: Adapter) -> tuple[Backbone | None, str]:
    """The adapter's own base, or why there is none to prove with."""
    from adapt.backbones import Backbone
    from adapt.errors import AdapterError
    from adapt.loading import at_hand

    reference = adapter.facts.base.get("reference")
    if (folder := at_hand(reference)) is None:
        return None, f"{reference} is not on this machine" if reference else "the adapter does not say its base"
    found = Backbone.load(str(folder))
    try:
        adapter.check(found)
    except AdapterError:
        return None, f"{reference} here is another than the adapter was made for"
    return found, ""
