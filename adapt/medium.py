"""What a base makes and is taught: pictures, sounds or clips, with its dims. Plain numbers; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from adapt.errors import SettingsError

Kind = Literal["picture", "sound", "video"]


@dataclass(frozen=True)
class Medium:
    """One kind of media, as one base takes it. Tensors of a row are (channels, *dims), in [-1, 1]:

        picture  (3, height, width)
        video    (3, frames, height, width)
        sound    (channels, samples)

    Everywhere a size is (width, height) in pixels; of a sound it is (samples, 1), so that what cuts and batches pictures
    cuts and batches sounds.

    Attributes:
        kind: `picture`, `sound` or `video`.
        channels: of a row; of a sound, 1 or 2.
        side: pixels of the square that it was made for; of a sound, samples; 0: not known.
        scale: pixels (samples) a latent, along each side.
        frames: of a clip.
        frame_scale: frames a latent, after the first: frames are 1 + a multiple of it.
        fps: frames a second.
        rate: samples a second of a sound.
    """

    kind: Kind = "picture"
    channels: int = 3
    side: int = 0
    scale: int = 8
    frames: int = 1
    frame_scale: int = 1
    fps: float = 24.0
    rate: int = 44100

    def __post_init__(self) -> None:
        if self.kind == "video" and (self.frames - 1) % self.frame_scale:
            near = 1 + round((self.frames - 1) / self.frame_scale) * self.frame_scale
            raise SettingsError("the base cannot make so many frames", given=self.frames,
                                allowed=f"1 + a multiple of {self.frame_scale}", next=f"frames={near}")  # fmt: skip

    @property
    def noun(self) -> str:
        """What its items are called: pictures, sounds, clips."""
        return {"picture": "pictures", "sound": "sounds", "video": "clips"}[self.kind]

    @property
    def seconds(self) -> float:
        """How long an item is."""
        return {"picture": 0.0, "sound": self.side / self.rate, "video": self.frames / self.fps}[self.kind]

    def lasting(self, seconds: float | None) -> Medium:
        """A sound of so many seconds, in whole latents; None: as it is."""
        if seconds is None:
            return self
        return replace(self, side=max(1, round(seconds * self.rate / self.scale)) * self.scale)

    def at(self, frames: int | None, fps: float | None) -> Medium:
        """A clip of so many frames, so many a second; None: as it is.

        Raises:
            SettingsError: the base cannot make so many frames.
        """
        return replace(self, frames=frames or self.frames, fps=fps or self.fps)

    def dims(self, width: int, height: int) -> tuple[int, ...]:
        """A size as the dims of a row's tensor, without channels."""
        return {"picture": (height, width), "sound": (width,), "video": (self.frames, height, width)}[self.kind]


PICTURES = Medium()
"""Pictures of any size."""
