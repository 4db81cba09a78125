"""Which pictures are held out: one rule for `adapt check` and for a run. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.api.classes import leaving_some
from adapt.data import Picture
from adapt.evaluation.hold_out_size import hold_out_share

if TYPE_CHECKING:
    from adapt.data import Judgement


def hold_out(
    judgement: Judgement, validation: float | str | None, seed: int = 0, classes: bool = False
) -> tuple[tuple[Picture, ...], str | None]:
    """(pictures to set aside, what must be said about their number). Classes are shared out evenly, near duplicates stay on one
    side, prior pictures stay where they are.

    Args:
        judgement: of the pictures.
        validation: the share, or `auto`: a fifth, 4 to 40, none of fewer than 12.
        classes: classes are taught, so that each needs a picture to learn from.

    Raises:
        SettingsError: the share is not in ]0, 1[.
        DataError: there are too few different pictures.
    """
    from adapt.data import split
    from adapt.data.whole import groups

    taught = [picture for picture in judgement.usable if not picture.prior]
    share, note = hold_out_share(validation, len(taught))
    if not isinstance(share, float):
        return (), note
    aside = split(taught, share, seed, groups(judgement))[1]
    return leaving_some(taught, aside) if classes else aside, note


def told_twice(train: Judgement, held_out: Judgement) -> list[str]:
    """Held-out pictures that are trained on as well, or nearly: they say nothing about others."""
    from adapt.data.whole import near_across
    from adapt.data.wording import listed

    learned, near = set(train.digests.values()), near_across(train, held_out)
    same = [name for name, digest in held_out.digests.items() if digest in learned]
    alike = [f"{name} (like {near[name]})" for name in near if name not in same]
    texts = {"that are trained on as well": same, "that look almost like some that are trained on": alike}
    return [f"Held-out {held_out.noun} {what} ({len(names)}): {listed(names)}; remove them on one side"
            for what, names in texts.items() if names]  # fmt: skip
