"""Masks: where a picture counts. White is learned, black is not, grey in part.

cat.png  cat-masklabel.png       a file beside the picture (OneTrainer's convention)
cat.png  mask/cat.png            a folder of masks (kohya's `conditioning_data_dir`)
cat.png                          or the picture's own alpha channel
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from PIL import Image

from adapt.data.decode import alpha_of, brightness
from adapt.data.picture import EXTENSIONS, Found, Picture
from adapt.data.walk import stem, suffix, walk
from adapt.data.wording import listed, printable
from adapt.errors import DataError

LABELS = ("-masklabel", "-condlabel")
"""Ends of stems that name what belongs to a picture (OneTrainer): its mask, its control picture. They are never trained."""
FOLDERS = ("mask", "masks")
ASPECT = 0.02
"""Relative difference of aspects that rounding a smaller mask's sides may leave."""


def is_label(name: str) -> bool:
    """Whether a file is named as something that belongs to a picture."""
    return PurePosixPath(name).stem.lower().endswith(LABELS)


def mask_names(names: Iterable[str]) -> dict[str, str]:
    """Name of each mask → name of its picture. `a/mask/cat.png` is one only where `a/cat` is a picture."""
    stems = {stem(name): name for name in names if not is_label(name)}
    return {name: picture for name in names if (picture := stems.get(_owner(name))) is not None}


def with_masks_of(found: Found, folder: Path) -> Found:
    """The pictures with the masks of a folder, each the file of the same stem.

    Raises:
        DataError: pictures without a mask there; all are named.
    """
    walked = walk(folder)
    files = ((name, path) for name, path in walked.files.items() if suffix(name) in EXTENSIONS)
    masks = {stem(name): Picture(printable(name), path, None) for name, path in files}
    if missing := [picture.name for picture in found.pictures if stem(picture.name) not in masks]:
        raise DataError("Pictures have no mask of the same name", given=listed(missing), next="add the masks")
    pictures = (replace(picture, mask=masks[stem(picture.name)]) for picture in found.pictures)
    return replace(found, pictures=tuple(pictures))


def mask_of(picture: Picture, size: tuple[int, int]) -> Image.Image | None:
    """Where a picture counts, at the picture's own size: what is cut out of it and resized like the picture itself.

    `fit(mask, width, height)` with the arguments that the picture is fitted with gives (height, width) in [0, 255] that lies
    on the picture's pixels; a mirrored picture wants its mask mirrored as well.

    Args:
        picture: judged.
        size: width and height of the picture after decoding, upright.

    Returns:
        Mode L, 255 where the picture counts fully; None when it counts everywhere.

    Raises:
        DataError: the mask cannot be read, has another aspect than the picture, or is black everywhere.
    """
    if picture.mask is None:
        return None
    mask = _of_file(picture.mask, size) if isinstance(picture.mask, Picture) else alpha_of(picture.read())
    if mask.getextrema() == (0, 0):
        raise DataError("has a mask that is black everywhere", next="paint white what counts, or remove it")
    return mask


def _of_file(mask: Picture, size: tuple[int, int]) -> Image.Image:
    try:
        image = brightness(mask.read())
    except DataError as error:
        raise DataError(f"has a mask that {error.message}", given=mask.name, next=error.next) from error
    if image.size == size:
        return image
    if abs(image.width * size[1] / (image.height * size[0]) - 1) > ASPECT:
        shapes = f"{image.width} x {image.height} for {size[0]} x {size[1]} pixels"
        raise DataError("has a mask of another shape", given=f"{mask.name}: {shapes}", next="make it as large")
    return image.resize(size, Image.Resampling.BILINEAR)


def _owner(name: str) -> str:
    """The stem that the mask's picture would have; empty for a name that is no mask's."""
    path = PurePosixPath(name)
    if path.stem.lower().endswith(LABELS[0]):
        return stem(str(path.with_name(path.stem[: -len(LABELS[0])] + path.suffix)))
    if path.parent.name.lower() in FOLDERS:
        return stem(str(path.parent.parent / path.name))
    return ""
