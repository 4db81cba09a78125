"""What one usable file shows of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """What is known of a picture, sound or clip once it has been opened.

    Attributes:
        digest: of its size and content; equal for exact duplicates.
        size: width and height in pixels; of a sound, samples at the base's rate and 1.
        remarks: kind and message of what was noticed.
        transparent: some pixels show the background.
        likeness: 256 bits; nearly equal for near duplicates.
        sharpness: variance of the Laplacian; small for soft pictures; None where that says nothing.
        seconds: how long it is; 0 for pictures.
        file: sha256 of the file.
    """

    digest: str
    size: tuple[int, int]
    remarks: tuple[tuple[str, str], ...]
    transparent: bool
    likeness: int
    sharpness: float | None
    seconds: float = 0.0
    file: str = ""
