"""Parts of the condition that adapters have learned to make, told to the base that they are on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from adapt.backbones import Backbone
from adapt.backbones import told as words
from adapt.backbones.beside import Beside
from adapt.backbones.features import features_of
from adapt.backbones.sources import HOLE
from adapt.backbones.sources import PART as SOURCE
from adapt.data.controls import EXTRACTORS, FILES
from adapt.sampling.pixels import nothing_left, to_hole, to_pixels
from adapt.sampling.request import Drawing
from adapt.sampling.sources import size_of
from adapt.types import Sizes
from conditioning import Condition, Part

if TYPE_CHECKING:
    from conditioning import ClassConditioner


def told(backbone: Backbone, condition: Condition, drawings: Sequence[Drawing]) -> Condition:
    """The condition with class and reference picture of each drawing, as far as there are conditioners for them."""
    raw: dict[str, list[Any]] = {"class": [dict(drawing.classes) for drawing in drawings]}
    if "image" in backbone.conditioners:
        raw["image"] = references(backbone, drawings)
    if "control" in backbone.conditioners:
        raw["control"] = controls(backbone, drawings)
    return _with(backbone, condition, raw).replaced(sources(backbone, drawings))


@torch.no_grad()
def spoken(
    backbone: Backbone,
    drawings: Sequence[Drawing],
    texts: Sequence[str],
    sizes: Sequence[Sizes] | None = None,
    guidance: float | None = None,
) -> Condition:
    """What texts say, one a drawing: to a text encoder that sees what is edited, each with its drawing's picture.

    Args:
        sizes, guidance: as in `Backbone.condition`.
    """
    if not backbone.reads_source:
        return words.told(backbone, texts, drawings[0].reading, sizes, guidance)
    known: dict[tuple[str, int], Part] = {}
    keys = [(text, id(drawing.source)) for text, drawing in zip(texts, drawings, strict=True)]
    for (text, picture), drawing in zip(keys, drawings, strict=True):
        if (text, picture) not in known and drawing.source is not None:
            pixels = to_pixels(drawing.source, *size_of(drawing.source, drawing, backbone))
            known[text, picture] = backbone.encode_words([text], pixels)
    rows = [backbone.assembled(known[key], None, guidance) for key in keys]
    found = Condition.cat(rows)
    return backbone.assembled(found.parts[backbone.caption_part], sizes, guidance)


def nothing(backbone: Backbone, condition: Condition, beside: Condition | None = None) -> Condition:
    """The condition with no class and no reference picture.

    Args:
        beside: whose control and source stay: where something is drawn, and of what, is the same on both sides of every guidance.
            Of a class, what it changes in layers stays (`ClassConditioner.beside`). None: nothing of it.
    """
    rows = len(condition)
    found = _with(backbone, condition, {"class": [""] * rows, "image": [None] * rows, "control": [None] * rows})
    kept = {name: part for name, part in (beside.parts if beside else {}).items() if name in ("control", SOURCE)}
    if beside is not None and "own" in beside.parts.get("class", {}):
        kept["class"] = cast("ClassConditioner", backbone.conditioners["class"]).beside(beside.parts["class"])
    return found.replaced(kept)


@torch.no_grad()
def _with(backbone: Backbone, condition: Condition, raw: dict[str, list[Any]]) -> Condition:
    return condition.replaced({part: each.encode(raw[part]) for part, each in backbone.conditioners.items()})


def controls(backbone: Backbone, drawings: Sequence[Drawing]) -> list[Any]:
    """What each drawing's control is to what follows it, at its strength; None without one."""
    known: dict[int, Any] = {}
    for drawing in drawings:
        if id(drawing.control) not in known:
            known[id(drawing.control)] = None if drawing.control is None else _followed(backbone, drawing)
    return [known[id(drawing.control)] for drawing in drawings]


def sources(backbone: Backbone, drawings: Sequence[Drawing]) -> dict[str, Part]:
    """The part `source` of what is edited or filled, one row a drawing; none where nothing is. A picture is encoded once."""
    known: dict[tuple[int, int], Part] = {}
    pairs = [(id(drawing.source), id(drawing.hole)) for drawing in drawings]
    for pair, drawing in zip(pairs, drawings, strict=True):
        if pair not in known and (backbone.fills or drawing.source is not None):
            known[pair] = _filled(backbone, drawing) if backbone.fills else _edited(backbone, drawing)
    rows = [known[pair] for pair in pairs if pair in known]
    return {SOURCE: {name: torch.cat([row[name] for row in rows]) for name in rows[0]}} if rows else {}


def _edited(backbone: Backbone, drawing: Drawing) -> Part:
    assert drawing.source is not None
    return backbone.encode_source(to_pixels(drawing.source, *size_of(drawing.source, drawing, backbone)))


def _filled(backbone: Backbone, drawing: Drawing) -> Part:
    """Without a picture, everything is a hole in a grey one."""
    height, width = drawing.height, drawing.width
    if drawing.source is None or drawing.hole is None:
        return backbone.encode_hole(torch.zeros(1, 3, height, width), torch.ones(1, 1, height, width))
    hole = to_hole(drawing.hole, height, width, (height, width))
    part = backbone.encode_hole(to_pixels(drawing.source, height, width), hole)
    if not bool(part[HOLE].any()):
        raise nothing_left()
    return part


@torch.no_grad()
def _followed(backbone: Backbone, drawing: Drawing) -> Any:
    """To a network beside the base the picture and its strength; else what is taken from the picture, as pixels of 8 bits, or as
    latents."""
    conditioner = backbone.conditioners["control"]
    assert drawing.control is not None
    extract = EXTRACTORS[getattr(conditioner, "source", FILES)]
    seen = extract(to_pixels(drawing.control, drawing.height, drawing.width)[0])
    if isinstance(conditioner, Beside):
        return conditioner.look(backbone, drawing.control, seen), drawing.control_scale
    if getattr(conditioner, "places", 0):
        return drawing.control_scale * ((seen / 2 + 0.5).clamp(0, 1) * 255).round() / 255
    mean, _ = backbone.encode_media(seen[None])
    return drawing.control_scale * mean[0].cpu()


def references(backbone: Backbone, drawings: Sequence[Drawing]) -> list[Any]:
    """What each drawing's reference picture is to what looks at it; None without one."""
    known: dict[int, Any] = {}
    for drawing in drawings:
        picture = drawing.image_prompt
        if id(picture) not in known:
            known[id(picture)] = None if picture is None else _features(backbone, drawing)
    return [known[id(drawing.image_prompt)] for drawing in drawings]


@torch.no_grad()
def _features(backbone: Backbone, drawing: Drawing) -> Any:
    conditioner = backbone.conditioners["image"]
    assert drawing.image_prompt is not None
    if isinstance(conditioner, Beside):
        pixels = to_pixels(drawing.image_prompt, drawing.height, drawing.width)
        return conditioner.look(backbone, drawing.image_prompt, pixels[0]), 1.0
    side = backbone.resolution
    mean, _ = backbone.encode_media(to_pixels(drawing.image_prompt, side, side))
    return features_of(mean[0].cpu())
