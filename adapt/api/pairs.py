"""The edit pairs of a run: whether the base edits pictures, and what each of them was before. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapt.config import TrainSettings
from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.backbones import Backbone
    from adapt.data import Found


def teaches_edits(settings: TrainSettings) -> bool:
    """Whether a base that draws and edits is to learn edits."""
    return settings.preset == "edit" or (settings.source_folder is not None and settings.control != "files")


def needs_sources(base: str, settings: TrainSettings) -> str | None:
    """Why each picture needs another one beside it, by the base's folder alone; None: it needs none.

    Raises:
        SettingsError: settings of bases that edit, for one that does not, or the other way round.
    """
    from adapt.loading import edits, edits_too, find

    along, folder = settings.control == "files", find(base)
    if edits(folder) or (edits_too(folder) and teaches_edits(settings)):
        if along:
            raise SettingsError("control=files takes the pictures that a base which edits is told", given=base,
                                next="leave control out")  # fmt: skip
        return "the base edits pictures"
    if along and settings.source_dropout is None:
        return "control=files draws along them"
    for name in ("source_folder", "source_dropout"):
        if getattr(settings, name) is not None:
            raise SettingsError(f"{name} is for bases that edit pictures", given=base,
                                next="leave it out, or give such a base: `adapt bases` says which")  # fmt: skip
    return None


def paired(found: Found, source_folder: str | None, needed: str | None, *, known: bool = True) -> Found:
    """The pictures with those beside them: what they were before they were edited, or what they are drawn along.

    Args:
        source_folder: where they lie, if not where metadata says.
        needed: why each picture needs one; None: none does.
        known: whether that is known; False: nothing is asked for.

    Raises:
        DataError: pictures without a source, or sources that are not there.
    """
    from adapt.data.pairs import require_sources, with_sources_of, without_sources

    if known and needed is None:
        return without_sources(found)
    if source_folder is not None:
        return with_sources_of(found, Path(source_folder).expanduser())
    if needed:
        require_sources(found.pictures, len(found.pictures), needed)
    return found


HOLES = 8
"""Of each picture, if nothing else is said."""


def settled_sources(settings: TrainSettings, backbone: Backbone) -> dict[str, float | int]:
    """How often rows go without their source, and how many holes a picture has, filled in.

    Raises:
        SettingsError: the base has no null of a source, or fills no holes; or the run learns something without sources.
    """
    if settings.inpaint_masks is not None and not backbone.fills:
        raise SettingsError("inpaint_masks is for bases that fill holes", given=backbone.reference,
                            next="leave it out; `masks` says where pictures count, with every base")  # fmt: skip
    if not backbone.takes_source:
        return {}
    for name, value in (("slider", settings.slider), ("prior_prompt", settings.prior_prompt)):
        if value is not None:
            does = "fills holes" if backbone.fills else "edits pictures"
            raise SettingsError(f"{name} asks the base by words alone, and this one {does}",
                                given=backbone.reference, next="leave it out")  # fmt: skip
    if settings.hears_itself and backbone.reads_source:
        raise SettingsError("the text encoder of this base sees pictures too, and is not trained",
                            given="train_text_encoder or new_tokens", next="leave it out")  # fmt: skip
    return {"inpaint_masks": settings.inpaint_masks or HOLES} if backbone.fills else _dropout(settings, backbone)


def _dropout(settings: TrainSettings, backbone: Backbone) -> dict[str, float | int]:
    if not backbone.drops_source:
        if settings.source_dropout:
            raise SettingsError("the base knows no edit without a picture: source_dropout would teach it one",
                                given=settings.source_dropout, next="leave it out")  # fmt: skip
        return {}
    return {"source_dropout": 0.05 if settings.source_dropout is None else settings.source_dropout}
