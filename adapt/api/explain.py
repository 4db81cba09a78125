"""`adapt.explain`: a drawing taken apart: where its words are looked at, what adapters changed, what each piece contributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from adapt.adapter import Adapter
from adapt.api.advice import warn
from adapt.api.generate import applied, settled, with_scale
from adapt.api.weaker import bare_of, weaker_of
from adapt.backbones import Backbone
from adapt.backbones.attention import Recorder, require_layers
from adapt.backbones.columns import NOTHING, Span
from adapt.backbones.sources import PART as SOURCE
from adapt.backbones.told import columns
from adapt.errors import SettingsError
from adapt.evaluation.explained import AdapterChange, Explained, Kind, LeftOut, distance
from adapt.lora.by_time import at_share
from adapt.lora.change import changes
from adapt.prompts import PLAIN, WEIGHTS, Unmarked, unmarked
from adapt.report.explained import save_explanation
from adapt.sampling.classes import written
from adapt.sampling.draw import Watch, decoded, draw_latents
from adapt.sampling.guidances import WEAKER
from adapt.sampling.heat import Looked, elsewhere, looked_at
from adapt.sampling.loop import silent
from adapt.sampling.noise import generator_of
from adapt.sampling.parts import nothing, spoken
from adapt.sampling.pictures import if_given, load_image
from adapt.sampling.request import LARGEST_SEED, Drawing, Request, named_in
from adapt.sampling.variants import BY_SEED
from adapt.sampling.watched import Change, Compared, Without
from adapt.sampling.words import Word, left_out, words_named, words_of
from conditioning import Condition, Part, Predictor

MOST_WORDS = 16
"""Of a longer prompt no more words are left out, one drawing each, unless they are asked for."""

Scaled = Sequence[tuple[Adapter, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation(Explained):
    """What was found, with the pictures."""

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Writes `explain.html`, which needs nothing else, `explain.json` and every picture as PNG.

        Returns:
            What was written, by name.
        """
        return save_explanation(self, Path(folder))


def explain(
    backbone: Backbone,
    prompt: str,
    *,
    adapters: Sequence[Adapter | tuple[Adapter, float]] = (),
    words: Sequence[str] = (),
    leave_one_out: bool = True,
    class_name: str | Mapping[str, float] | None = None,
    class_scale: float | None = None,
    image_prompt: Image | str | Path | None = None,
    image_prompt_scale: float | None = None,
    control: Image | str | Path | None = None,
    control_scale: float = 1.0,
    compose: Sequence[tuple[str, float]] = (),
    prompt_syntax: str = WEIGHTS,
    image: Image | str | Path | None = None,
    image_guidance_scale: float | None = None,
    negative_prompt: str = "",
    guidance_scale: float | None = None,
    guidance: str | Sequence[str] = (),
    steps: int | None = None,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[int, int], None] = silent,
) -> Explanation:
    """Draws a prompt and explains the picture, which is byte for byte the one that `generate` draws. The
    backbone is afterwards what it was, bit for bit.

    Args:
        adapters: as in `generate`; none: the base alone.
        words: of the prompt, one or several in a row each; none: all.
        class_name, class_scale: of an adapter that knows classes; one class or a mixture.
        image_prompt, image_prompt_scale: of an adapter that takes a reference picture.
        control, control_scale: of an adapter that draws along one.
        compose: further prompts, each of which is left out too.
        prompt_syntax: words are those of the prompt without its weights; of a variant, those of the one that the seed picks.
        image, image_guidance_scale: what is edited, of bases that edit.
        leave_one_out: draw again without each part, word, adapter and the negative prompt: one more drawing each.
        progress: `progress(done, total)`, in drawings.

    Other arguments are those of `generate`.

    Raises:
        SettingsError: a setting out of range, a word that is not in the prompt, a base that makes no pictures.
        AdapterError: an adapter for another base.
    """
    request = Request(
        prompt=prompt, prompt_syntax=prompt_syntax, compose=compose, class_name=class_name, class_scale=class_scale,
        image_prompt=if_given(load_image, image_prompt), image_prompt_scale=image_prompt_scale,
        control=if_given(load_image, control), control_scale=control_scale,
        image=if_given(load_image, image), image_guidance_scale=image_guidance_scale,
        negative_prompt=negative_prompt, guidance_scale=guidance_scale, guidance=guidance, steps=steps, seed=seed,
        height=height, width=width, scheduler=scheduler,
    )  # fmt: skip
    scaled = [with_scale(adapter) for adapter in adapters]
    return explained(backbone, request, scaled, words=words, leave_one_out=leave_one_out, progress=progress)


def explained(
    backbone: Backbone,
    request: Request,
    adapters: Scaled,
    *,
    words: Sequence[str] = (),
    leave_one_out: bool = True,
    progress: Callable[[int, int], None] = silent,
) -> Explanation:
    """What `explain` does, of a request."""
    _require_pictures(backbone)
    if request.image is not None and not backbone.edits:
        raise SettingsError(
            "an image is for bases that edit it: drawing over one is not explained", next="leave it out"
        )
    [request] = BY_SEED([request])
    prompt = unmarked(request.prompt, request.prompt_syntax if backbone.readers else PLAIN)
    given = words_named(prompt.text, words) or spoken_words(prompt.text)
    [drawing] = settled(backbone, [request], adapters)
    warn([adapter for adapter, _ in adapters], [drawing])
    no_maps = _no_maps(backbone, prompt, drawing)
    if words and no_maps:
        raise SettingsError(f"no word has a map: {no_maps}", given=", ".join(words), next="leave --word out")
    bare = _Bare.of(backbone, drawing, adapters)
    chosen = given if words else given[:MOST_WORDS]
    pieces = _pieces(backbone, drawing, adapters, bare.told, prompt, chosen) if leave_one_out else []
    paint = _Painter(backbone, progress, 1 + len(pieces))
    watch = _Watch(backbone, drawing, bare, prompt, maps=no_maps is None)
    with applied(backbone, adapters):
        picture = paint(drawing, bare.weaker, watch)
    drawn = _left_out(paint, pieces, picture)
    return Explanation(
        prompt=prompt.prompt, reference=backbone.reference, settings=_settings(drawing), picture=picture, no_maps=no_maps,
        looked=watch.looked(given), elsewhere=watch.elsewhere(), adapters=bare.changes,
        times=watch.times, left_out=tuple(one for one in drawn if one.kind != "seed"),
        another_seed=next((one for one in drawn if one.kind == "seed"), None),
        passed_over=() if words or not leave_one_out else tuple(word.text for word in given[MOST_WORDS:]),
    )  # fmt: skip


def _require_pictures(backbone: Backbone) -> None:
    if backbone.medium.kind != "picture":
        raise SettingsError("explain looks at pictures", given=f"{backbone.reference} makes {backbone.medium.noun}")


def spoken_words(text: str) -> list[Word]:
    """The words that are said: `BREAK` is none."""
    return [word for word in words_of(text) if word.text != "BREAK"]


def _no_maps(backbone: Backbone, prompt: Unmarked, drawing: Drawing) -> str | None:
    """Why there are no maps of words; None: there are."""
    if not prompt.blended and not words_of(prompt.text):
        return "the prompt has no words"
    try:
        require_layers(backbone)
        columns(backbone, prompt, drawing.reading)
    except SettingsError as error:
        return f"{error.message} ({error.given})"
    return None


def _settings(drawing: Drawing) -> dict[str, Any]:
    names = ("negative_prompt", "seed", "width", "height", "steps", "guidance_scale", "scheduler")
    found = {name: getattr(drawing, name) for name in names}
    found |= {"class": written(drawing.classes), "class_scale": drawing.class_scale} if drawing.classes else {}
    found |= {"control_scale": drawing.control_scale} if drawing.control is not None else {}
    found |= {"compose": [list(one) for one in drawing.compose]} if drawing.compose else {}
    return {**found, "guidance": [one.told() for one in named_in(drawing.guidance)]}


# ------------------------------------------------------------------------------------------------ the picture
@dataclass(frozen=True)
class _Bare:
    """What is asked of the base before adapters are on it.

    Attributes:
        base: predicts without them; None: there are none.
        parts: the prompt, as its own encoders have it.
        told: names of all parts that are told with the adapters.
        changes: what each adapter changes in the weights.
        weaker: predictors that the guidance compares with.
    """

    base: Predictor | None
    parts: Mapping[str, Part]
    told: tuple[str, ...]
    changes: tuple[AdapterChange, ...]
    weaker: Mapping[str, Predictor]

    @staticmethod
    def of(backbone: Backbone, drawing: Drawing, adapters: Scaled) -> _Bare:
        parts = spoken(backbone, [drawing], [drawing.prompt]).to(backbone.device, backbone.dtype).parts
        weights = tuple(_change(backbone, adapter, scale) for adapter, scale in adapters)
        base = bare_of(backbone, adapters) if adapters else None
        taught = [part for adapter, scale in adapters if scale for part in adapter.conditioners]
        taught = [part for part in taught if part != "control" or drawing.control is not None]
        taught += [SOURCE] if drawing.source is not None and backbone.drops_source else []
        return _Bare(base, parts, (*parts, *taught), weights, weaker_of(backbone, [drawing], adapters))


def _change(backbone: Backbone, adapter: Adapter, scale: float) -> AdapterChange:
    adapter.check(backbone)
    layers = changes(backbone.modules, at_share(adapter.layers(), 0.0), scale)  # of T-LoRA: as without noise
    return AdapterChange(adapter.name, adapter.digest, scale, tuple(layers))


class _Watch:
    """Looks on while the picture is drawn; see `draw_latents`."""

    def __init__(self, backbone: Backbone, drawing: Drawing, bare: _Bare, prompt: Unmarked, maps: bool) -> None:
        self._backbone, self._drawing, self._bare, self._maps = backbone, drawing, bare, maps
        self._prompt = prompt
        self._recorder: Recorder | None = None
        self._compared: Compared | None = None

    def __call__(self, condition: Condition) -> Predictor:
        predict: Predictor = self._backbone.predict
        if self._maps:
            predict = self._recorder = Recorder(self._backbone, condition)
        if self._bare.base is not None:
            bare = condition.replaced(self._bare.parts)
            predict = self._compared = Compared(predict, self._bare.base, condition, bare)
        self._spans, self._others = self._tokens(condition) if self._maps else ([], [])
        return predict

    def _tokens(self, condition: Condition) -> tuple[list[Span], list[Word]]:
        """What each token is about. Other parts have tokens behind the text's: each part is as a word behind the prompt."""
        prompt, caption = self._prompt.text, self._backbone.caption_part
        spans = list(columns(self._backbone, self._prompt, self._drawing.reading))
        spans += [NOTHING] * (condition.parts[caption]["tokens"].shape[1] - len(spans))
        others: list[Word] = []
        for name in sorted(set(condition.parts) - {caption}):
            if "tokens" in (part := condition.parts[name]):
                start = len(prompt) + 1 + len(others)
                others.append(Word(f"[{name}]", start, start + 1))
                spans += [(start, start + 1)] * part["tokens"].shape[1]
        return spans, others

    def looked(self, words: Sequence[Word]) -> tuple[Looked, ...]:
        """One a word and one a part beside the text; nothing where there are no maps."""
        if self._recorder is None:
            return ()
        dims = self._backbone.latent_shape(*self._drawing.dims)[1:]
        found = looked_at(self._recorder.maps(), dims, self._spans, [*words, *self._others])
        return tuple(replace(one, word=self._as_written(one.word)) for one in found)

    def _as_written(self, word: Word) -> Word:
        """Where a word stands in the prompt, marks and all."""
        return word if word in self._others else Word(word.text, *self._prompt.written(word.start, word.end))

    def elsewhere(self) -> dict[str, float]:
        """What goes to no word and no part."""
        if self._recorder is None:
            return {}
        return elsewhere(self._recorder.maps(), self._spans, [*words_of(self._prompt.text), *self._others])

    @property
    def times(self) -> tuple[Change, ...]:
        """What the adapters change in the prediction."""
        return tuple(self._compared.changes) if self._compared else ()


class _Painter:
    """Draws one picture after another, on the base as it is then, and counts them."""

    def __init__(self, backbone: Backbone, progress: Callable[[int, int], None], total: int) -> None:
        self.backbone, self.progress, self.done, self.total = backbone, progress, 0, total

    def __call__(self, drawing: Drawing, weaker: Mapping[str, Predictor], watch: Watch | None = None) -> Image:
        latents = draw_latents(self.backbone, [drawing], [generator_of(drawing.seed)], weaker=weaker, watch=watch)
        picture = decoded(self.backbone, latents, drawing)[0]
        assert isinstance(picture, Image), "a base that makes pictures makes pictures"
        self.done += 1
        self.progress(self.done, self.total)
        return picture


# ------------------------------------------------------------------------------------------------ one thing left out
@dataclass(frozen=True)
class _Piece:
    """What is drawn to see what something contributes.

    Attributes:
        kind, name: what is left out; see `LeftOut`.
        drawing, adapters: what is drawn instead.
        watch: in the backbone's place.
    """

    kind: Kind
    name: str
    drawing: Drawing
    adapters: Scaled
    watch: Watch | None = None


def _pieces(
    backbone: Backbone,
    drawing: Drawing,
    adapters: Scaled,
    parts: Sequence[str],
    prompt: Unmarked,
    words: Sequence[Word],
) -> list[_Piece]:
    """Everything that can be left out: parts, words, adapters, the negative prompt; and, beside them, another seed."""
    found = [_part(backbone, drawing, adapters, name) for name in parts]
    if backbone.caption_part == "text" and len(spoken_words(prompt.text)) > 1:
        texts = [(word, left_out(prompt, word)) for word in words]
        found += [
            _Piece("word", word.text, replace(drawing, prompt=text), adapters) for word, text in texts if text
        ]  # without its only word, a prompt is the part that is left out above
    for number, (text, _) in enumerate(drawing.compose):
        further = (*drawing.compose[:number], *drawing.compose[number + 1 :])
        found.append(_Piece("further prompt", text, replace(drawing, compose=further), adapters))
    for number, (adapter, _) in enumerate(adapters):
        rest = [*adapters[:number], *adapters[number + 1 :]]
        found.append(_Piece("adapter", adapter.name, drawing if rest else _alone(drawing), rest))
    if drawing.negative_prompt:
        found.append(_Piece("negative prompt", drawing.negative_prompt, replace(drawing, negative_prompt=""), adapters))
    other = drawing.seed + 1 if drawing.seed < LARGEST_SEED else 0
    return [*found, _Piece("seed", str(other), replace(drawing, seed=other), adapters)]


def _part(backbone: Backbone, drawing: Drawing, adapters: Scaled, name: str) -> _Piece:
    """Without a part. A control stands on both sides of guidance, so that it is left out of the drawing."""
    if name == "control":
        return _Piece("part", name, replace(drawing, control=None), adapters)
    return _Piece("part", name, drawing, adapters, partial(_lacking, backbone, drawing, name))


def _lacking(backbone: Backbone, drawing: Drawing, name: str, condition: Condition) -> Predictor:
    """Predicts without a part."""
    if name == SOURCE:
        null: Part = {key: torch.zeros_like(x) for key, x in condition.parts[name].items()}
    else:
        null = _null(backbone, drawing).parts[name]
    return Without(backbone.predict, condition, name=name, null=null)


def _null(backbone: Backbone, drawing: Drawing) -> Condition:
    """What says nothing to the encoders as they are now, adapters and all."""
    said = spoken(backbone, [drawing], [""]) if backbone.reads_source else backbone.null()
    return nothing(backbone, said).to(backbone.device, backbone.dtype)


def _alone(drawing: Drawing) -> Drawing:
    """Without guidances that compare with the model without its adapter: there is none any more."""
    if not isinstance(drawing.guidance, tuple):
        return drawing
    return replace(drawing, guidance=tuple(one for one in drawing.guidance if one.name not in WEAKER))


def _left_out(paint: _Painter, pieces: Sequence[_Piece], full: Image) -> list[LeftOut]:
    return [LeftOut(one.kind, one.name, found, distance(full, found)) for one, found in _painted(paint, pieces)]


def _painted(paint: _Painter, pieces: Sequence[_Piece]) -> Iterator[tuple[_Piece, Image]]:
    for piece in pieces:
        weaker = weaker_of(paint.backbone, [piece.drawing], piece.adapters)
        with applied(paint.backbone, piece.adapters):
            yield piece, paint(piece.drawing, weaker, piece.watch)
