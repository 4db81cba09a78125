"""`adapt generate`: pictures from prompts. What can be judged without torch is judged before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.cli import options
from adapt.cli.beside import Beside
from adapt.cli.classes_asked import known_classes, rows_of
from adapt.cli.job import Job
from adapt.cli.prompted import weighted
from adapt.cli.scaled import base_of, scaled_adapter
from adapt.cli.size import size_of
from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.sampling.prompts import Row
    from adapt.sampling.request import Request
    from adapt.sampling.variants import Variants


def generate(
    prompt: options.Prompt = None,
    prompts: options.PromptFile = None,
    adapter: options.Adapters = None,
    allow_missing: options.AllowMissing = None,
    base: options.Base = None,
    negative_prompt: options.NegativePrompt = "",
    wildcards: options.Wildcards = None,
    all_variants: options.AllVariants = False,
    prompt_syntax: options.PromptSyntax = "weights",
    clip_skip: options.ClipSkip = None,
    guidance_scale: options.GuidanceScale = None,
    embedded_guidance: options.EmbeddedGuidance = None,
    guidance_rescale: options.GuidanceRescale = 0.0,
    guidance: options.Guidances = None,
    compose: options.Compose = None,
    class_name: options.ClassNames = None,
    class_scale: options.ClassScale = None,
    image_prompt: options.ImagePrompt = None,
    image_prompt_scale: options.ImagePromptScale = None,
    control: options.Control = None,
    control_scale: options.ControlScale = 1.0,
    controlnet: options.ControlNet = None,
    ip_adapter: options.IPAdapter = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    count: options.Count = 1,
    size: options.Size = None,
    scheduler: options.Scheduler = None,
    image: options.Picture = None,
    image_guidance_scale: options.ImageGuidanceScale = None,
    strength: options.Strength = None,
    mask: options.Mask = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    seconds: options.Seconds = None,
    format: options.Ending = None,
    output: options.Pictures = Path("pictures"),
    json: options.JsonForPaths = False,
    batch_size: options.BatchSize = 4,
    device: options.Device = None,
    precision: options.Precision = None,
    metadata: options.Metadata = "a1111",
) -> None:
    """Draw pictures from prompts, with or without adapters."""
    from adapt.sampling.pictures import if_given, load_image
    from adapt.sampling.request import Request
    from adapt.sampling.variants import Variants

    width, height = size_of(size)
    template = Request(
        prompt="", negative_prompt=negative_prompt, prompt_syntax=prompt_syntax, clip_skip=clip_skip,
        guidance_scale=guidance_scale, embedded_guidance=embedded_guidance, guidance_rescale=guidance_rescale,
        guidance=tuple(guidance or ()), compose=tuple(map(weighted, compose or ())), class_scale=class_scale,
        image_prompt=if_given(load_image, image_prompt),
        image_guidance_scale=image_guidance_scale, control=if_given(load_image, control), control_scale=control_scale,
        steps=steps, seed=seed, width=width, height=height, scheduler=scheduler, frames=frames, fps=fps, seconds=seconds,
    )  # fmt: skip
    adapters = [scaled_adapter(text) for text in adapter or []]
    rows = _rows(template, prompt or (), prompts)
    rows = rows_of(rows, class_name, class_scale, known_classes(adapters))
    given = {
        "count": count,
        "image": image,
        "mask": mask,
        "strength": strength,
        "image_prompt_scale": image_prompt_scale,
    }
    requests = _requests(template, rows, given, Variants.of(wildcards, all_variants))
    beside = Beside.of(controlnet, ip_adapter, requests)
    job = Job(requests=requests, beside=beside, adapters=adapters, base=base_of(base, adapters), output=output, format=format,
              batch_size=batch_size, device=device,
              precision=precision, metadata=metadata, allow_missing=allow_missing or ())  # fmt: skip
    job.judge()

    from adapt.cli.drawing import draw

    draw(job, json)


def _rows(template: Request, prompts: Sequence[str], file: Path | None) -> list[Row]:
    """The prompts of the command line, then the file's; no words, where a picture says what is drawn."""
    from adapt.sampling.prompts import read_prompts

    rows: list[Row] = [*({"prompt": text} for text in prompts), *(read_prompts(file) if file else [])]
    shown = template.image_prompt is not None or template.control is not None
    return rows or ([{"prompt": ""}] if shown else [])


def _requests(template: Request, rows: Sequence[Row], given: Mapping[str, Any], variants: Variants) -> list[Request]:
    """One request a picture. What a line of the prompt file says goes before the command line's, which is `given`."""
    from adapt.sampling.prompts import requests_of

    if not rows:
        raise SettingsError("there is no prompt", next='--prompt "a red bicycle", or --prompts FILE')
    common = {name: value for name, value in given.items() if value is not None}
    shown = template.image_prompt is not None
    if "image_prompt_scale" in common and not (shown or any("image_prompt" in row for row in rows)):
        raise SettingsError("--image-prompt-scale needs a reference picture", next="--image-prompt FILE")
    alone = {
        name: value for name, value in common.items() if name != "image_prompt_scale"
    }  # of lines without a reference
    told = [{**(common if shown or "image_prompt" in row else alone), **row} for row in rows]
    requests = requests_of(template, told, variants)
    if given["strength"] is not None and not any(r.image for r in requests):
        raise SettingsError("--strength needs a picture to draw over", given=given["strength"], next="--image FILE")
    return requests
