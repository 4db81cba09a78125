"""What previews and samples show: the user's prompts, a prompt file, or the first captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import files
from adapt.config import TrainSettings
from adapt.errors import DataError
from adapt.prompts import PLAIN
from adapt.sampling.prompts import Row, read_prompts, requests_of
from adapt.sampling.request import Request, settle, size_of

if TYPE_CHECKING:  # a prompt file is judged before torch is imported
    from adapt.backbones import Backbone
    from adapt.data import Picture
    from adapt.training.validation import Preview

CAPTIONS, CLASSES, TOGETHER = 4, 8, 4


def rows(settings: TrainSettings, captions: Sequence[str] = (), labels: Sequence[str] = ()) -> list[Row]:
    """One row a prompt: of the settings, of their file, else the first four different captions. Where classes are taught, some
    of them without words, and every prompt for the first one.

    Raises:
        DataError: the prompt file is not there, not UTF-8, or holds no prompt.
        SettingsError: a line of it cannot be read.
    """
    first = {"class_name": labels[0]} if labels else {}
    if isinstance(settings.previews, str):
        path = Path(settings.previews)
        if not path.is_file():
            raise DataError(
                "there is no such prompt file", given=path, next="check the path; prompts are written [red fox, tulip]"
            )
        return [{**first, **row} for row in read_prompts(path)]
    if labels and not settings.previews:
        return [{"prompt": "", "class_name": label} for label in labels[:CLASSES]]
    if settings.previews:
        return [{"prompt": text, **first} for text in settings.previews]
    texts = list(dict.fromkeys(captions))[:CAPTIONS] or [""]
    return [{"prompt": text, "prompt_syntax": PLAIN, **first} for text in texts]  # brackets in captions are text


def requests(settings: TrainSettings, captions: Sequence[str] = (), labels: Sequence[str] = ()) -> list[Request]:
    """One request a picture, at the settings' guidance and steps where a row says nothing.

    Raises:
        DataError, SettingsError: as `rows`, and values out of range.
    """
    template = Request(prompt="", guidance_scale=settings.guidance_scale, steps=settings.sampling_steps)
    return requests_of(template, rows(settings, captions, labels))


def captions_of(pictures: Sequence[Picture]) -> list[str]:
    """All captions of what is taught, in order."""
    return [caption for picture in pictures if not picture.prior for caption in picture.plain]


def over_sources(asked: Sequence[Request], pictures: Sequence[Picture]) -> list[Request]:
    """For bases that edit: requests without a picture of their own are about what a picture with their prompt as caption was
    before, else about the next one."""
    from adapt.data import decode

    paired = [picture for picture in pictures if picture.source is not None]
    said = {caption: picture for picture in reversed(paired) for caption in picture.plain}
    found = list(asked)
    for number, request in enumerate(asked):
        if request.image is None and paired:
            picture = said.get(request.prompt, paired[number % len(paired)])
            assert picture.source is not None
            found[number] = replace(request, image=decode(picture.source.read()))
    return found


def along_controls(
    asked: Sequence[Request], pictures: Sequence[Picture], control: str, backbone: Backbone
) -> list[Request]:
    """Where a control is taught: requests without one are drawn along that of a picture with their prompt as caption, else along
    the next one's.

    Args:
        control: a name of `controls.EXTRACTORS`. Only `files` are beside a picture: what it was before is no control.
    """
    from PIL import Image

    from adapt.data import decode
    from adapt.data.controls import FILES
    from adapt.data.decode import fit

    taught = [picture for picture in pictures if not picture.prior]
    said = {caption: picture for picture in reversed(taught) for caption in picture.plain}
    found = list(asked)
    for number, request in enumerate(asked):
        if request.control is None:
            picture = said.get(request.prompt, taught[number % len(taught)])
            shown = picture.source if control == FILES and picture.source is not None else picture
            height, width = size_of(request, backbone)
            seen = fit(decode(shown.read()), width, height)
            found[number] = replace(request, control=Image.fromarray(seen))
    return found


def together(settings: TrainSettings, processes: int) -> int:
    """How many are drawn at once: no more than a step has rows, whose memory is there."""
    from adapt.training.step import at_once

    return min(TOGETHER, at_once(settings, processes))


def drawer(
    run: Path,
    backbone: Backbone,
    settings: TrainSettings,
    pictures: Sequence[Picture],
    size: int = TOGETHER,
    *,
    keep: bool = True,
) -> Preview:
    """Draws into `previews/step-…` with the weights that the backbone holds, always from the same noise. What prompts say is
    encoded here, once, unless encoders are trained: nothing of them is needed when it draws.

    Args:
        size: how many are drawn at once.
        keep: whether files are written; a process that only holds a share of the base draws along.

    Raises:
        DataError, SettingsError: what is asked for cannot be drawn with this backbone.
    """
    from adapt.api.classes import labels_of
    from adapt.evaluation.held_out import evaluating
    from adapt.sampling.classes import written
    from adapt.sampling.clip import Clip, Sound, as_picture
    from adapt.sampling.draw import batches, draw_batches
    from adapt.sampling.formats import encoded
    from adapt.sampling.png import save_png

    advice = {"zero_terminal_snr": settings.zero_terminal_snr}
    labels = labels_of(pictures) if settings.classes else ()
    asked = requests(settings, captions_of(pictures), labels)
    asked = over_sources(asked, pictures) if backbone.edits else asked
    asked = along_controls(asked, pictures, settings.control, backbone) if settings.control != "none" else asked
    drawings = [settle(request, backbone, advice) for request in asked]
    known = batches(backbone, drawings, size, speak=not settings.hears_itself)

    def preview(step: int) -> list[str]:
        folder = run / "previews" / f"step-{step:06d}"
        with evaluating(*backbone.networks):
            drawn = dict(draw_batches(backbone, known))
        if keep:
            folder.mkdir(parents=True, exist_ok=True)
            for number, picture in sorted((place + 1, picture) for place, picture in drawn.items()):
                save_png(folder / f"{number:02d}.png", as_picture(picture))
                if isinstance(picture, Clip | Sound):
                    ending = ".gif" if isinstance(picture, Clip) else ".wav"
                    files.write(folder / f"{number:02d}{ending}", encoded(picture, ending))
        return [" ".join(filter(None, (written(drawing.classes), drawing.prompt))) for drawing in drawings]

    return preview
