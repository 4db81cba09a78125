"""The page of an explanation, and its pictures: `explain.html`, `explain.json`, PNGs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from PIL import Image

from adapt import files
from adapt.evaluation.explained import AdapterChange, Explained, LeftOut
from adapt.lora.change import LayerChange
from adapt.report.overlay import overlay
from adapt.report.page import filled
from adapt.report.pictures import uri, webp
from adapt.report.svg import Mark, Series, chart
from adapt.sampling.formats import encoded

PAGE, FACTS, PICTURE = "explain.html", "explain.json", "picture.png"
TEMPLATE = "explain.html"
SIDE = 384
"""Longest side of pictures in the page; the files beside it are whole."""
STRONGEST = 10
KINDS = (
    ("attention to the text", re.compile(r"\.attn2\.|add_[kqv]_proj|to_add_out")),
    ("attention", re.compile(r"\.(attn\d?|attention|self_attn|self_attention)\.")),
    ("feed-forward", re.compile(r"\.(ff|ff_context|mlp|intermediate|proj_mlp)\b|\.output\.dense")),
)
"""Kinds of layers by their names, the first that fits; all others are convolutions and projections."""
OTHER = "convolutions, projections"


class Shown(NamedTuple):
    """A picture in the page: its address and what stands below it."""

    uri: str
    name: str
    told: str


# ------------------------------------------------------------------------------------------------ files
def save_explanation(explained: Explained, folder: Path) -> dict[str, Path]:
    """Writes everything into a folder, in place of an older explanation there.

    Returns:
        What was written, by name.
    """
    overlays = [overlay(explained.picture, one.heat.numpy()) for one in explained.looked]
    contents = dict(_contents(explained, overlays))
    told = {**explained.as_dict(), "files": sorted(contents)}
    contents |= {PAGE: render_explained(explained, overlays).encode(), FACTS: files.dump_json(told).encode()}
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    for name, content in contents.items():
        files.write(folder / name, content)
    return {name: folder / name for name in (PAGE, FACTS, *told["files"])}


def _contents(explained: Explained, overlays: Sequence[Image.Image]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the pictures."""
    yield PICTURE, encoded(explained.picture, ".png")
    for number, (one, found) in enumerate(zip(explained.looked, overlays, strict=True), 1):
        yield f"word-{number:02d}-{_slug(one.word.text)}.png", encoded(found, ".png")
    for number, left in enumerate(explained.left_out, 1):
        yield f"without-{number:02d}-{_slug(left.name)}.png", encoded(left.picture, ".png")
    if explained.another_seed:
        yield f"seed-{explained.another_seed.name}.png", encoded(explained.another_seed.picture, ".png")


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:32].strip("-") or "sign"


def _sweep(folder: Path) -> None:
    """Takes away the pictures that an older explanation says it wrote."""
    try:
        names = [str(name) for name in json.loads((folder / FACTS).read_text("utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        if re.fullmatch(r"(word|without)-\d\d-[\w-]+\.png|seed-\d+\.png", name):
            (folder / name).unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------ the page
def render_explained(explained: Explained, overlays: Sequence[Image.Image]) -> str:
    """The page, which needs nothing else.

    Args:
        overlays: one for each of `explained.looked`.
    """
    return filled(
        TEMPLATE,
        explained=explained,
        picture=_uri(explained.picture),
        verdict=verdict(explained),
        words=[
            Shown(
                _uri(found), one.word.text, f"{one.share:.1%} of looks" if one.tokens else "cut off: nothing reads it"
            )
            for one, found in zip(explained.looked, overlays, strict=True)
        ],
        focus=[one.focus for one in explained.looked],
        elsewhere=_elsewhere(explained),
        adapters=[(one, layer_chart(one), strongest(one)) for one in explained.adapters],
        times=time_chart(explained),
        left=[(_named(one), _uri(one.picture), one.distance) for one in explained.left_out],
        another=explained.another_seed and (_uri(explained.another_seed.picture), explained.another_seed),
        longest=max((one.distance for one in _all_left(explained)), default=0.0) or 1.0,
    )


def _all_left(explained: Explained) -> list[LeftOut]:
    return [*explained.left_out, *([explained.another_seed] if explained.another_seed else [])]


def _uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return uri(webp(small))


def _named(one: LeftOut) -> str:
    """What is left out, in words."""
    what = {
        "part": f"the {one.name} condition",
        "word": f"“{one.name}”",
        "adapter": f"the adapter {one.name}",
        "further prompt": f"the further prompt “{one.name}”",
    }
    return f"without {what.get(one.kind, f'the {one.kind}')}"


def verdict(explained: Explained) -> str:
    """The explanation in a sentence or two."""
    found = []
    if read := [one for one in explained.looked if one.tokens]:
        most = max(read, key=lambda one: one.share)
        found.append(f"Of the words, “{most.word.text}” is looked at most: {most.share:.1%} of all looks.")
    if words := [one for one in explained.left_out if one.kind == "word"]:
        matters = max(words, key=lambda one: one.distance)
        found.append(f"The picture changes most without “{matters.name}”: by {matters.distance:.3f}.")
    if explained.times:
        mean = sum(one.relative for one in explained.times) / len(explained.times)
        who = "adapter changes" if len(explained.adapters) == 1 else "adapters change"
        found.append(f"The {who} the prediction by {mean:.1%} of its length in the mean over steps.")
    return " ".join(found)


def _elsewhere(explained: Explained) -> str:
    shares = explained.elsewhere
    if not shares:
        return ""
    rest = f"{shares['no_word']:.1%} go to the tokens of start and end, padding and punctuation"
    picture = f", {shares['picture']:.1%} to the picture itself" if shares["picture"] > 0.0005 else ""
    return f"Of all looks, {rest}{picture}."


# ------------------------------------------------------------------------------------------------ charts
def layer_chart(change: AdapterChange) -> Markup:
    """‖ΔW‖ / ‖W‖ of every layer, in the network's order, by kind."""
    names = [*(name for name, _ in KINDS), OTHER]
    places = [(number, one.relative, kind_of(one.name)) for number, one in enumerate(change.layers, 1)]
    series = [
        Series([(x, y) for x, y, kind in places if kind == name], name, f"c{number} points", dots=True)
        for number, name in enumerate(names, 1)
    ]
    title = f"Change of the weights of each layer by {change.name}"
    return chart([one for one in series if one.points], title, "layer, in the network's order", "‖ΔW‖ ÷ ‖W‖",
                 _marks(change.layers), level=0.0)  # fmt: skip


def kind_of(name: str) -> str:
    """The kind of a layer, by its name."""
    return next((kind for kind, pattern in KINDS if pattern.search(name)), OTHER)


def _marks(layers: Sequence[LayerChange]) -> list[Mark]:
    """Where blocks begin; some of them, where there are many."""
    starts: list[tuple[int, str]] = []
    for block, run in groupby(enumerate(layers, 1), key=lambda each: block_of(each[1].name)):
        numbers = [number for number, _ in run]
        if len(numbers) > 2:  # single layers at the ends would leave no room for the others' names
            starts.append((numbers[0], block))
    kept: list[Mark] = []
    for number, block in starts:
        if not kept or number - kept[-1].x >= len(layers) / 8:
            kept.append(Mark(number, block))
    return kept


def block_of(name: str) -> str:
    """`unet.down_blocks.1.attentions.0.…` → `down 1`; `transformer.transformer_blocks.7.…` → `block 7`."""
    component, _, inside = name.partition(".")
    if component.startswith("text_encoder"):
        return component.replace("_", " ")
    if found := re.match(r"(\w+?)_blocks?\.?(\d+)?", inside):
        kind = {"transformer": "block", "single_transformer": "single"}.get(found[1], found[1].replace("_", " "))
        return f"{kind} {found[2]}" if found[2] else kind
    return inside.partition(".")[0].replace("_", " ")


def strongest(change: AdapterChange) -> list[LayerChange]:
    """The layers that are changed most."""
    return sorted(change.layers, key=lambda one: -one.relative)[:STRONGEST]


def time_chart(explained: Explained) -> Markup:
    """The relative change of the prediction over the steps of the drawing."""
    points = [(float(number), one.relative) for number, one in enumerate(explained.times, 1)]
    return chart(
        [Series(points, "with adapter − without, ÷ without", "c1", dots=True)], "Change of the prediction at each step",
        "step: from noise to picture", "‖Δ prediction‖ ÷ ‖prediction‖", level=0.0,
    )  # fmt: skip
