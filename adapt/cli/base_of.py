"""The base that commands on adapter files look at: the one that was asked for, or the adapter's own if it is on this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone


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


def own(adapter: Adapter) -> tuple[Backbone | None, str]:
    """The adapter's own base, or why there is none to prove with."""
    from adapt.backbones import Backbone
    from adapt.errors import AdapterError
    from adapt.loading import at_hand

    reference = adapter.facts.base_reference
    if (here := at_hand(reference)) is None:
        return None, f"{reference} is not on this machine" if reference else "the adapter does not say its base"
    found = Backbone.load(here)
    try:
        adapter.check(found)
    except AdapterError:
        return None, f"{reference} here is another than the adapter was made for"
    return found, ""


def needed(adapters: Sequence[Adapter], base: str | None, without: Collection[str]) -> Backbone | None:
    """The base of adapters of other kinds than those that can do without one; None where all can, or it is not at hand.

    Raises:
        AdapterError: asked for, and another than an adapter's.
        BackboneError: asked for, and not there.
    """
    needing = [adapter for adapter in adapters if not adapter.weights.kinds <= set(without)]
    if not needing:
        return None
    if base:
        return asked_for(needing[0], base)
    return next((found for adapter in adapters if (found := own(adapter)[0])), None)
