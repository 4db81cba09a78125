"""What goes into a run: pictures found, judged and split, before a model is loaded. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.api.classes import with_classes
from adapt.api.holding_out import hold_out, told_twice
from adapt.api.media import with_settings
from adapt.api.pairs import needs_sources, paired
from adapt.api.previews import rows
from adapt.api.sounding import require_alike
from adapt.config import TrainSettings, require_settled, validate
from adapt.data import Found, Picture
from adapt.data.tags import Tags
from adapt.errors import DataError, SettingsError
from adapt.evaluation.hold_out_size import AUTO
from adapt.medium import PICTURES, Medium
from adapt.progress import Progress
from adapt.training import trackers

if TYPE_CHECKING:
    from adapt.data import Judgement
    from adapt.data.whole import Crop


@dataclass(frozen=True)
class Pictures:
    """What is trained on and what is measured on; both judged."""

    train: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    warnings: tuple[str, ...]

    def digest(self, classes: bool = False, references: bool = False) -> str:
        """Of all bytes and captions, in order, and of how often and where each picture counts.

        Args:
            classes: whether it matters which class each one is of.
            references: whether it matters by which picture each one is asked for.
        """
        sums = [_facts(picture, classes, references) for picture in (*self.train, *self.held_out)]
        return hashlib.sha256(json.dumps([len(self.train), sums]).encode()).hexdigest()[:16]


def _facts(picture: Picture, classes: bool, references: bool) -> list[Any]:
    """What is the same of all pictures is not written: data of one source has the digest that it always had."""
    bytes_of = picture.digest or hashlib.sha256(picture.read()).hexdigest()
    mask = picture.mask
    more = {
        "label": picture.label if classes else None,
        "repeats": picture.repeats if picture.repeats != 1 else None,
        "prior": picture.prior or None,
        "keep_tags": picture.keep_tags,
        "mask": hashlib.sha256(mask.read()).hexdigest() if isinstance(mask, Picture) else mask,
        "source": hashlib.sha256(picture.source.read()).hexdigest() if picture.source else None,
        "reference": hashlib.sha256(picture.reference.read()).hexdigest() if references and picture.reference else None,
    }
    told = {name: value for name, value in more.items() if value is not None}
    return [bytes_of, *picture.captions, *([told] if told else [])]


def settings_of(data: str | Path) -> dict[str, Any]:
    """Settings that the data brings along: those of kohya's `dataset_config`, by our names.

    Raises:
        SettingsError: the file is wrong; all faults are named.
    """
    if Path(data).suffix.lower() != ".toml":
        return {}
    from adapt.data.dataset_config import settings_in

    return settings_in(Path(data))


def completed(data: str | Path, settings: TrainSettings) -> TrainSettings:
    """The settings, with those that the data brings along where none were given.

    Raises:
        SettingsError: as `settings_of`, or a setting that the data leaves open is not given.
    """
    brought = settings_of(data)
    if not set(brought) - settings.model_fields_set:
        return settings
    values = {**brought, **{name: getattr(settings, name) for name in settings.model_fields_set}}
    require_settled(values)
    return validate(values)


def gather(data: str | Path, settings: TrainSettings, base: str | None = None) -> Pictures:
    """Finds and judges everything before a model is loaded; imports no torch.

    Args:
        data: see `adapt.data.find`.
        settings: what is made of the pictures.
        base: whose size is asked for where the settings have none; None: then sizes are not judged.

    Raises:
        DataError: a source is missing or holds pictures that cannot be used, or masks that are asked for are not there.
        SettingsError: a held-out fraction that leaves one side empty, a list of sources that is wrong, or a new word that no
            caption has.
    """
    trackers.require(settings.trackers)
    rows(settings)  # the prompt file of the previews
    medium = medium_for(base, settings)
    pair = partial(
        paired, source_folder=settings.source_folder, needed=base and needs_sources(base, settings), known=bool(base)
    )
    judgement, warnings = _judged(data, settings, medium, pair)
    pictures = judgement.require(settings.skip_bad)
    _require_masks(pictures, judgement, settings)
    _require_prior(pictures, settings)
    if isinstance(settings.validation, str) and settings.validation != AUTO:
        other, more = _judged(settings.validation, settings, medium, pair)
        held_out = tuple(picture for picture in other.require(settings.skip_bad) if not picture.prior)
        warnings += [*more, *told_twice(judgement, other)]
    else:
        held_out, note = hold_out(judgement, settings.validation, settings.seed, settings.classes)
        aside = {picture.name for picture in held_out}
        pictures = tuple(picture for picture in pictures if picture.name not in aside)
        warnings += [note] if note else []
    pictures, held_out = with_classes(pictures, held_out, settings)
    train = _triggered(pictures, settings.trigger)
    _require_said(train, settings)
    warnings += [*_unmoved(train, settings), *_unmirrored(train, settings)]
    held_out = _plain(_varied(_triggered(held_out, settings.trigger), settings))
    return Pictures(_varied(train, settings), held_out, tuple(warnings))


def _require_said(pictures: Sequence[Picture], settings: TrainSettings) -> None:
    """New words are learned from captions."""
    for word in settings.new_tokens:
        if not any(word in text for picture in pictures for text in picture.plain):
            raise SettingsError(
                f"no caption has the new word {word}, so it would learn nothing",
                given=f"{len(pictures)} pictures",
                next=f"write it into captions, or put it before all of them with trigger='{word}'",
            )


def medium_for(base: str | None, settings: TrainSettings) -> Medium:
    """What the base takes, with the settings' sizes; `side` is 0 where it is not known yet."""
    from adapt.loading import find, medium_of

    own = medium_of(find(base)) if base else PICTURES
    return with_settings(own, settings)


def _judged(
    source: str | Path, settings: TrainSettings, medium: Medium, pair: Callable[[Found], Found]
) -> tuple[Judgement, list[str]]:
    from adapt.data import find, judge
    from adapt.data.folders import Reading
    from adapt.data.judge import lines, verdicts_of
    from adapt.data.media import reader_of
    from adapt.data.whole import judge_whole

    reader = reader_of(medium, settings.background)
    found = find(source, Reading(settings.repeats, settings.masks, noun=reader.noun, extensions=reader.extensions))
    found = pair(found)
    with verdicts_of(source, reader=reader) as verdicts:
        judgement = judge(found, medium.side, progress=_judging(), verdicts=verdicts, reader=reader)
    require_alike(judgement, settings, medium)
    remarks = (*judgement.warnings, *judge_whole(found, judgement, cut=_crop(settings, medium)))
    # `found` says that one
    told = lines((remark for remark in remarks if remark.kind != "no caption"), reader.noun)
    return judgement, [*found.warnings, *told]


def _crop(settings: TrainSettings, medium: Medium) -> Crop:
    """What is cut off. Sides that do not fit the base are refused later, by `settle`."""
    from adapt.data.buckets import buckets, default_step
    from adapt.data.whole import SQUARE

    side, scale = medium.side, medium.scale
    if medium.kind == "sound":
        return lambda size: 0.0  # judging has said how much of it is used
    if not settings.buckets or not side or side % scale:
        return SQUARE
    step = settings.bucket_step or default_step(side, scale)
    return SQUARE if side % step else buckets(side, step, settings.bucket_aspect).cut_away


def _judging() -> Any:
    progress = Progress("looking at the pictures", 0)
    return lambda done, total: progress(done, total) if total > 200 else None


def _require_prior(pictures: Sequence[Picture], settings: TrainSettings) -> None:
    """Settings of prior pictures that are nowhere would silently do nothing."""
    if any(picture.prior for picture in pictures):
        return
    if settings.prior_target == "base":
        name = "prior_target=base"
    elif settings.prior_weight != 1 and settings.prior_prompt is None:
        name = f"prior_weight={settings.prior_weight:g}"
    else:
        return
    raise SettingsError(
        f"{name} is for pictures marked as prior, and there are none",
        next="mark a source with `prior: true`, or keep a class without pictures: prior_prompt='a dog'",
    )


def _require_masks(pictures: Sequence[Picture], judgement: Judgement, settings: TrainSettings) -> None:
    """Masks that are asked for and are nowhere would silently do nothing."""
    if settings.masks == "files" and not any(picture.mask for picture in pictures):
        raise DataError(
            "There are no masks", allowed="cat-masklabel.png or mask/cat.png for cat.png", next="masks=none"
        )
    if settings.masks == "alpha" and not any(look.transparent for look in judgement.looks.values()):
        raise DataError("No picture is transparent anywhere", allowed="an alpha channel as mask", next="masks=none")


# ------------------------------------------------------------------------------------------------ captions
def _triggered(pictures: Sequence[Picture], trigger: str | None) -> tuple[Picture, ...]:
    """The trigger of its source, else of the run, before every caption that does not hold it; prior pictures have none."""
    return tuple(_with_trigger(picture, None if picture.prior else picture.trigger or trigger) for picture in pictures)


def _with_trigger(picture: Picture, trigger: str | None) -> Picture:
    from adapt.data.captions import holds

    def worded(caption: str, word: str) -> str:
        return caption if holds(caption, word) else ", ".join(filter(None, (word, caption)))

    if not trigger:
        return replace(picture, trigger=None)
    captions = tuple(worded(caption, trigger) for caption in picture.captions or ("",))
    return replace(picture, captions=captions, trigger=trigger)


def _plain(pictures: Sequence[Picture]) -> tuple[Picture, ...]:
    """Held-out pictures keep their captions as they were written."""
    return tuple(replace(picture, captions=picture.plain, tags=None) for picture in pictures)


def _varied(pictures: Sequence[Picture], settings: TrainSettings) -> tuple[Picture, ...]:
    """The pictures with what moves in their captions."""
    if not (settings.shuffle_tags or settings.tag_dropout):
        return tuple(pictures)
    return tuple(replace(picture, tags=_tags(picture, settings)) for picture in pictures)


def _tags(picture: Picture, settings: TrainSettings) -> Tags:
    return Tags(
        settings.seed,
        shuffle=settings.shuffle_tags,
        keep=settings.keep_tags if picture.keep_tags is None else picture.keep_tags,
        dropout=settings.tag_dropout,
        variants=settings.tag_variants,
        fence=settings.keep_tags_separator,
        trigger=picture.trigger,
    )


def _unmoved(pictures: Sequence[Picture], settings: TrainSettings) -> list[str]:
    """Captions in which there is nothing to shuffle: prose, or one tag."""
    from adapt.data.tags import parts_of
    from adapt.data.wording import listed

    if not settings.shuffle_tags:
        return []
    still = [p.name for p in pictures if all(len(parts_of(c, _tags(p, settings)).free) < 2 for c in p.captions)]
    return [f"Captions without two tags to shuffle ({len(still)}): {listed(still)}"] if still else []


def _unmirrored(pictures: Sequence[Picture], settings: TrainSettings) -> list[str]:
    from adapt.data.wording import listed

    if not settings.flip:
        return []
    kept = [picture.name for picture in pictures if not picture.flippable]
    text = f"Pictures that are never mirrored, because a caption says left or right ({len(kept)})"
    return [f"{text}: {listed(kept)}"] if kept else []
