"""How many pictures to hold out. Imports no torch."""

from __future__ import annotations

AUTO = "auto"
SHARE, FEWEST, MOST = 0.2, 4, 40
"""A fifth: fewer say little, more than 40 cost time and lower the error no longer by much (it falls with the root)."""
TOO_FEW, INDICATIVE = 12, 16
"""Below the first, a held-out picture is missed more in training than it tells; below the second, figures only indicate."""


def hold_out_size(pictures: int) -> int:
    """A fifth of the pictures, at least 4 and at most 40; none of fewer than 12."""
    if pictures < TOO_FEW:
        return 0
    return min(max(round(SHARE * pictures), FEWEST), MOST)


def hold_out_note(pictures: int) -> str | None:
    """What must be said about figures from this many pictures in all, or None."""
    if pictures < TOO_FEW:
        return (
            f"No picture is held out: of {pictures} (fewer than {TOO_FEW}) each is needed for training. "
            "There will be no held-out evidence; the last step becomes the adapter"
        )
    if pictures < INDICATIVE:
        return f"{hold_out_size(pictures)} held-out pictures of {pictures}: their figures only indicate"
    return None


def hold_out_share(validation: str | float | None, pictures: int) -> tuple[str | float | None, str | None]:
    """The setting `validation` with `auto` as the share that it comes to, and what must be said about it."""
    if validation != AUTO:
        return validation, None
    return hold_out_size(pictures) / pictures or None, hold_out_note(pictures)
