"""What a run's settings make of its pictures: sizes, variants, draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from adapt.config import TrainSettings
from adapt.data import Picture
from adapt.data.augment import Augmentation
from adapt.data.buckets import Buckets, Size, buckets, default_step, square
from adapt.errors import SettingsError
from adapt.medium import Kind


def shelves(settings: TrainSettings, scale_factor: int, kind: Kind = "picture") -> tuple[Buckets, ...]:
    """The buckets of every resolution, the one that is measured and previewed (`resolution`) first.

    Args:
        settings: with a resolution.
        scale_factor: pixels a latent; a token, where the base joins latents.
        kind: of media; sounds are as wide as they have samples, and one high.

    Raises:
        SettingsError: a side that is no multiple of the base's scale factor or of `bucket_step`.
    """
    assert settings.resolution is not None, "settled settings have a resolution"
    if kind == "sound":
        return (Buckets(((settings.resolution, 1),)),)
    others = [side for side in settings.resolutions if side != settings.resolution]
    return tuple(_shelf(side, settings, scale_factor) for side in (settings.resolution, *others))


def _shelf(side: int, settings: TrainSettings, scale_factor: int) -> Buckets:
    if side % scale_factor:
        raise SettingsError("resolution does not fit the base", given=side, allowed=f"a multiple of {scale_factor}")
    if not settings.buckets:
        return square(side)
    step = settings.bucket_step or default_step(side, scale_factor)
    if step % scale_factor or side % step:
        allowed = f"a multiple of {scale_factor} (the base's step in pixels) that divides {side}"
        raise SettingsError("bucket_step does not fit", given=step, allowed=allowed)
    return buckets(side, step, settings.bucket_aspect)


def in_use(pictures: Sequence[Picture], shelves: Sequence[Buckets]) -> Counter[Size]:
    """How many judged pictures stand in each bucket, at all resolutions."""
    own = Counter(picture.size for picture in pictures if picture.size)
    found = Counter[Size]()
    for shelf in shelves:
        for size, number in own.items():
            found[shelf.nearest(size)] += number
    return found


def augmentation(settings: TrainSettings) -> Augmentation:
    """How the variants of a picture are made."""
    random_crop = settings.crop == "random"
    count = settings.variants if random_crop or settings.colour else 1
    return Augmentation(count, random_crop, settings.colour, settings.seed)


def draws(pictures: Sequence[Picture], settings: TrainSettings) -> float:
    """How many rows an epoch has: each picture as often as it repeats, at every resolution."""
    return sum(picture.repeats for picture in pictures) * max(1, len(settings.resolutions))


def remarks(pictures: Sequence[Picture], settings: TrainSettings, scale_factor: int) -> list[str]:
    """What is worth a warning about the buckets, once the base is known."""
    found = in_use(pictures, shelves(settings, scale_factor))
    few = sorted(size for size, number in found.items() if number < settings.batch_size)
    if not few or not settings.buckets:
        return []
    shown = ", ".join(f"{width} x {height}" for width, height in few[:3]) + (" …" if len(few) > 3 else "")
    return [
        f"{len(few)} of {len(found)} buckets ({shown}) hold fewer pictures than a batch of {settings.batch_size}, so that some "
        "stand in it twice, though none comes oftener in the long run: a smaller batch_size or a larger bucket_step evens it out"
    ]
