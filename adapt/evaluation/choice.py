"""Which step of a run becomes the adapter, and which of its weights. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from adapt.evaluation.measurement import Measurement


def choose(measurements: Sequence[Measurement]) -> Measurement | None:
    """The best trained step, the earlier one of a tie; None when nothing was measured.

    This is the place where a step is chosen, and the only one: more signals than the loss (style, diversity, the gap to
    training pictures) come in here.
    """
    measured = sorted((m for m in measurements if m.step > 0), key=lambda m: m.step)
    return best(measured) if measured else None


def best(measurements: Sequence[Measurement]) -> Measurement:
    """The one with the lowest log ratio to the base, the first of a tie.

    The log ratio is the mean over pictures of each one's own, all bands of noise alike: by the mean loss, the bands and pictures
    with the largest losses would choose alone. Where the base itself is what is right at some times (`anchored`), or a log ratio
    is not defined, it is the mean loss, which counts what the adapter does there.
    """
    ratios = [None if m.anchored else m.log_ratio for m in measurements]
    known = [ratio for ratio in ratios if ratio is not None]
    values = known if len(known) == len(measurements) else [m.loss for m in measurements]
    return measurements[values.index(min(values))]
