"""Which step of a run becomes the adapter. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from adapt.evaluation.measurement import Measurement


def choose(measurements: Sequence[Measurement]) -> Measurement | None:
    """The trained step with the lowest held-out loss, the earlier one of a tie; None when nothing was measured.

    This is the place where a step is chosen, and the only one: more signals than the loss (style, diversity, the gap to
    training pictures) come in here.
    """
    measured = [m for m in measurements if m.step > 0]
    return min(measured, key=lambda m: (m.loss, m.step), default=None)
