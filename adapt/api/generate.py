"""`adapt.generate`: pictures from prompts, with or without adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from PIL.Image import Image

from adapt.adapter import Adapter
from adapt.api.advice import advice_of, warn
from adapt.api.weaker import weaker_of
from adapt.backbones import Backbone
from adapt.errors import SettingsError
from adapt.sampling.clip import Drawn
from adapt.sampling.draw import draw
from adapt.sampling.known import Known
from adapt.sampling.loop import silent
from adapt.sampling.pictures import if_given, load_image, load_mask
from adapt.sampling.request import Drawing, Request, settle
from adapt.sampling.variants import Variants
from conditioning import Guidance


def generate(
    backbone: Backbone,
    *,
    prompt: str | Sequence[str],
    adapters: Sequence[Adapter | tuple[Adapter, float]] = (),
    negative_prompt: str = "",
    wildcards: str | Path | None = None,
    all_variants: bool = False,
    prompt_syntax: str = "weights",
    clip_skip: int | None = None,
    guidance_scale: float | None = None,
    embedded_guidance: float | None = None,
    guidance_rescale: float = 0.0,
    guidance: str | Sequence[str] | Guidance = (),
    compose: Sequence[tuple[str, float]] = (),
    class_name: str | Mapping[str, float] | Sequence[str] | None = None,
    class_scale: float | None = None,
    image_prompt: Image | str | Path | None = None,
    image_prompt_scale: float | None = None,
    control: Image | str | Path | None = None,
    control_scale: float = 1.0,
    steps: int | None = None,
    seed: int = 0,
    count: int = 1,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    height: int | None = None,
    width: int | None = None,
    scheduler: str | None = None,
    image: Image | str | Path | None = None,
    strength: float | None = None,
    image_guidance_scale: float | None = None,
    mask: Image | str | Path | None = None,
    frames: int | None = None,
    fps: float | None = None,
    seconds: float | None = None,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> list[Drawn]:
    """Draws `count` pictures of each prompt. The backbone is afterwards what it was, bit for bit.

    Args:
        prompt: one or several.
        adapters: each alone (at the scale that it recommends, else 1) or with a scale: 1 as trained, 0 nothing.
        negative_prompt: what is kept away from; "" is the family's null condition.
        wildcards: a folder of `.txt` files: `__animal__` in a prompt is a line of `animal.txt`.
        all_variants: every variant of `{a|b}` and `__animal__` is drawn, each with all seeds; otherwise one a picture, which
            its seed decides.
        prompt_syntax: `weights`: variants, `(word:1.3)`, `[word]`, `BREAK`, `blend(a:0.7|b:0.3)`; `plain`: every character is
            text. Where the family takes no weights, brackets are text.
        clip_skip: layers of CLIP that are left out at its end, as diffusers counts (A1111's number less 1).
        guidance_scale: ≥ 1, and 1 turns guidance off; None: 1 where an adapter has guidance inside (`distill=guidance`), else as
            the first adapter recommends, else the family's. Above 1 with guidance inside warns.
        embedded_guidance: what distilled families (Flux) take as a number; None: the family's.
        guidance_rescale: 0 … 1, how far the standard deviation is brought back to the unguided one's.
        guidance: how it is guided, `NAME[:key=value,…]`: `cfg`, `adaptive`, `apg`, `cfg-zero`; and, adding to it,
            `domain`, `autoguidance`, `pag`, `slg`; or a `Guidance` of your own in place of all.
        compose: further prompts with weights, each pulling on its own; a weight below 0 keeps something away.
        class_name: of an adapter that knows classes: one, or shares of several (`finch:0.7,canary:0.3`, or a mapping), or "" for
            none; a list of such: each of them with each prompt.
        class_scale: how strongly the class guides by itself, 1 is off; None: `guidance_scale` is for prompt and class together.
        image_prompt: a reference picture or its path, for adapters that were taught with `image_prompts=true`.
        image_prompt_scale: how strongly it guides by itself, as `class_scale`.
        control: what is drawn along, for adapters taught with `control=edges`: a picture of the drawing's size, or its path.
        control_scale: how strongly: 1 as trained, 0 not at all.
        steps: inference steps, ≥ 1; None as above.
        seed: 0 … 2**63 - 1. The pictures of one prompt have the seeds `seed`, `seed + 1` …; each seed gives the same
            picture alone and among others.
        generator: in place of seeds. A sequence has one for each picture, in order; a single one serves them all,
            row by row.
        height, width: pixels; None: the backbone's own, in the shape of `image` where there is one.
        scheduler: a short name (`euler_a`, `dpm++2m_karras` …) or a diffusers class name; None: the backbone's own.
        image: drawn over (image to image), or edited, by bases that edit: a picture or its path.
        strength: share of the way that `image` is noised, 0 < strength ≤ 1; None: 0.75, with inpainting bases 1. Not of
            bases that edit.
        image_guidance_scale: how closely `image` is kept to by bases that have such a guidance (InstructPix2Pix), 1 is off; None:
            the family's.
        mask: white is repainted (inpainting): a picture or its path; needs `image`.
        frames, fps: of a clip, from bases that make clips; None: the backbone's own.
        seconds: of a sound, from bases that make sounds; None: the backbone's own.
        batch_size: pictures at once, ≥ 1.
        progress: `progress(done, total)`, counted in steps × pictures.

    Returns:
        RGB pictures (`Clip`s, `Sound`s): all of the first prompt, then all of the second …; where all variants
            are drawn, those of a prompt's first seed, then those of its second …

    Raises:
        SettingsError: a setting out of range, unknown or contradictory.
        DataError: `image` or `mask` cannot be read, or leaves nothing to repaint.
        AdapterError: an adapter for another base; the backbone is untouched.
    """
    common = Request(
        prompt="", negative_prompt=negative_prompt, prompt_syntax=prompt_syntax, clip_skip=clip_skip,
        guidance_scale=guidance_scale, embedded_guidance=embedded_guidance, guidance_rescale=guidance_rescale,
        guidance=guidance, compose=compose, class_scale=class_scale, image_prompt=if_given(load_image, image_prompt),
        image_prompt_scale=image_prompt_scale, control=if_given(load_image, control), control_scale=control_scale,
        steps=steps, seed=seed, height=height, width=width, scheduler=scheduler, image=if_given(load_image, image),
        strength=strength, image_guidance_scale=image_guidance_scale, mask=if_given(load_mask, mask),
        frames=frames, fps=fps, seconds=seconds,
    )  # fmt: skip
    requests = Variants.of(wildcards, all_variants)(_each(common, prompt, class_name, count))
    scaled = [with_scale(adapter) for adapter in adapters]
    drawings = settled(backbone, requests, scaled)
    warn([adapter for adapter, _ in scaled], drawings)
    generators = _generators(generator, len(drawings))
    weaker = weaker_of(backbone, drawings, scaled)
    with applied(backbone, scaled):
        return draw(
            backbone, drawings, batch_size=batch_size, generators=generators, progress=progress or silent, weaker=weaker
        )


def _each(
    common: Request,
    prompt: str | Sequence[str],
    class_name: str | Mapping[str, float] | Sequence[str] | None,
    count: int,
) -> list[Request]:
    """Each prompt with each class, `count` times with rising seeds."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if count < 1 or not prompts:
        given = f"{len(prompts)} prompts, count {count}"
        raise SettingsError("there is nothing to draw", given=given, allowed="1 or more each")
    classes = [class_name] if class_name is None or isinstance(class_name, str | Mapping) else class_name
    return [
        replace(common, prompt=text, class_name=label, seed=common.seed + number)
        for text in prompts
        for label in classes
        for number in range(count)
    ]


def settled(
    backbone: Backbone, requests: Sequence[Request], adapters: Sequence[tuple[Adapter, float]]
) -> list[Drawing]:
    """The requests with everything decided: by themselves, else by the adapters, which are not on yet, else by the base.

    Raises:
        SettingsError: see `settle`, and `Backbone.require_prompt`.
    """
    for request in requests:
        backbone.require_prompt(request.prompt)
    advice, known = advice_of([adapter for adapter, _ in adapters]), known_of(adapters)
    return [settle(request, backbone, advice, known) for request in requests]


def with_scale(adapter: Adapter | tuple[Adapter, float]) -> tuple[Adapter, float]:
    """An adapter and its scale: the given one, else the recommended one, else 1."""
    return adapter if isinstance(adapter, tuple) else (adapter, float(adapter.recommended.get("scale", 1.0)))


def known_of(adapters: Sequence[tuple[Adapter, float]]) -> Known:
    """What these adapters know beside words; one at scale 0 knows nothing."""
    return Known.of({part: c for adapter, scale in adapters if scale for part, c in adapter.conditioners.items()})


@contextmanager
def applied(backbone: Backbone, adapters: Sequence[tuple[Adapter, float]]) -> Iterator[None]:
    """The backbone with adapters at their scales, inside the `with`; they come off in reverse whatever happens."""
    with ExitStack() as stack:
        for adapter, scale in adapters:
            stack.enter_context(adapter.apply(backbone, scale))
        yield


def _generators(given: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[torch.Generator] | None:
    if given is None:
        return None
    generators = [given] * count if isinstance(given, torch.Generator) else list(given)
    if len(generators) != count:
        raise SettingsError("there must be one generator a picture", given=len(generators), allowed=count)
    return generators
