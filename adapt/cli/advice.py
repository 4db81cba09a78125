"""What `adapt generate` says about settings that an adapter decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.sampling.request import Request


def advice_in_use(adapters: Sequence[tuple[Adapter, float | None]], requests: Sequence[Request]) -> list[str]:
    """One line an adapter whose recommended settings are used, because the command line says nothing else.

    Args:
        adapters: with the scale that was given; None: as recommended.
    """
    lines = []
    for number, (adapter, scale) in enumerate(adapters):
        advice, used = adapter.recommended, []
        if scale is None and "scale" in advice:
            used.append(f"adapter scale {advice['scale']:g}")
        if number == 0 and "guidance_scale" in advice and any(r.guidance_scale is None for r in requests):
            used.append(f"guidance scale {advice['guidance_scale']:g}")
        if number == 0 and "steps" in advice and any(r.steps is None for r in requests):
            used.append(f"{advice['steps']:g} steps")
        if used:
            by = "its sweep" if adapter.facts.sweep else "its training"
            lines.append(f"note: {', '.join(used)}: recommended for {adapter.name} by {by}")
    return lines
