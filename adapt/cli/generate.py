"""`adapt generate`: pictures from prompts. What can be judged without torch is judged before torch is imported."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapt.cli.advice import advice_in_use
from adapt.cli.classes_asked import known_classes, rows_of
from adapt.cli.device import device_of, judge_device
from adapt.cli.prompted import tell_of_brackets
from adapt.cli.scaled import base_of, scaled_adapter
from adapt.cli.size import size_of
from adapt.errors import RunError, SettingsError

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.sampling.clip import Drawn
    from adapt.sampling.png import Used
    from adapt.sampling.prompts import Row
    from adapt.sampling.request import Drawing, Request
    from adapt.sampling.variants import Variants
    from conditioning import Predictor

METADATA = ("a1111", "none")


def generate(
    prompt: Annotated[list[str] | None, typer.Option(help="What is drawn; may be given several times.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="One prompt a line, with --n negative --s steps --d seed --l guidance --w --h; or .jsonl."),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH[:SCALE]", help="An adapter, or user/name[@revision] on the Hub; several add up."),
    ] = None,
    allow_missing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", help="Draw without this layer of an adapter, which the base does not have; * fits all."
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Backbone; default: the adapter's, else icons.")] = None,
    negative_prompt: Annotated[str, typer.Option(help="What is kept away from.")] = "",
    wildcards: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of .txt files: __animal__ is a line of animal.txt.")
    ] = None,
    all_variants: Annotated[
        bool, typer.Option("--all-variants", help="Draw every variant of {a|b} and __animal__, not one a picture.")
    ] = False,
    prompt_syntax: Annotated[
        str, typer.Option(metavar="weights|plain", help="Whether brackets in prompts mean something.")
    ] = "weights",
    clip_skip: Annotated[
        int | None, typer.Option(help="Last layers of CLIP that are left out, as in diffusers: A1111's number less 1.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="From 1, which is off; default: the adapter's, else the family's.")
    ] = None,
    embedded_guidance: Annotated[
        float | None, typer.Option(help="The guidance that distilled bases take as a number (Flux: 3.5).")
    ] = None,
    guidance_rescale: Annotated[
        float, typer.Option(help="How far contrast is brought back to the unguided picture's, 0 to 1.")
    ] = 0.0,
    guidance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,…]",
            help="cfg, adaptive, apg, cfg-zero; and, adding to it, domain, autoguidance, pag, slg; may be given several times.",
        ),
    ] = None,
    compose: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMPT[:WEIGHT]", help="A further prompt that pulls on its own; below 0 keeps it away."),
    ] = None,
    class_name: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Of an adapter with classes; mixed: finch:0.7,canary:0.3; '' none; '*' each.",
        ),
    ] = None,
    class_scale: Annotated[
        float | None, typer.Option(help="How strongly the class guides by itself, from 1; default: as the prompt does.")
    ] = None,
    image_prompt: Annotated[
        Path | None, typer.Option(help="A reference picture, for adapters taught with image_prompts=true.")
    ] = None,
    image_prompt_scale: Annotated[
        float | None, typer.Option(help="How strongly --image-prompt guides by itself; default: as the prompt does.")
    ] = None,
    control: Annotated[
        Path | None,
        typer.Option(help="A picture whose edges or colours are followed, for adapters taught with control=…"),
    ] = None,
    control_scale: Annotated[float, typer.Option(help="How closely --control is followed; 1 as trained.")] = 1.0,
    steps: Annotated[
        int | None, typer.Option(help="Inference steps; default: the adapter's, else the family's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first picture of a prompt.")] = 0,
    count: Annotated[int, typer.Option(help="Pictures of each prompt, with seeds seed, seed + 1 …")] = 1,
    size: Annotated[str | None, typer.Option(metavar="N|WxH", help="In pixels; default: the backbone's.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="ddim, euler_a, dpm++2m, unipc … or a diffusers class; default: the backbone's.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Picture to draw over.")] = None,
    strength: Annotated[float | None, typer.Option(help="How far from --image, up to 1; default: 0.75.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Where --image is repainted: white.")] = None,
    frames: Annotated[int | None, typer.Option(help="Of a clip; default: the backbone's.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of a clip; default: the backbone's.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Of a sound; default: the backbone's.")] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="png|jpg|webp|mp4|gif|wav|flac", help="Default: png; of clips mp4, of sounds wav."),
    ] = None,
    output: Annotated[Path, typer.Option(help="A folder, or a file for a single picture: .png, .jpg, .mp4 …")] = Path(
        "pictures"
    ),
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of paths.")] = False,
    batch_size: Annotated[int, typer.Option(help="Pictures at once; changes no picture.")] = 4,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")] = None,
    metadata: Annotated[
        str, typer.Option(metavar="a1111|none", help="Whether files say how they were drawn.")
    ] = "a1111",
) -> None:
    """Draw pictures from prompts, with or without adapters."""
    from adapt.sampling.pictures import load_image
    from adapt.sampling.prompts import read_prompts
    from adapt.sampling.request import Request
    from adapt.sampling.variants import Variants

    width, height = size_of(size)
    template = Request(
        prompt="",
        negative_prompt=negative_prompt,
        prompt_syntax=prompt_syntax,
        clip_skip=clip_skip,
        guidance_scale=guidance_scale,
        embedded_guidance=embedded_guidance,
        guidance_rescale=guidance_rescale,
        guidance=tuple(guidance or ()),
        compose=tuple(_weighted(text) for text in compose or ()),
        class_scale=class_scale,
        image_prompt=load_image(image_prompt) if image_prompt else None,
        image_prompt_scale=image_prompt_scale,
        control=load_image(control) if control else None,
        control_scale=control_scale,
        steps=steps,
        seed=seed,
        width=width,
        height=height,
        scheduler=scheduler,
        frames=frames,
        fps=fps,
        seconds=seconds,
    )
    adapters = [scaled_adapter(text) for text in adapter or []]
    rows = [*({"prompt": text} for text in prompt or []), *(read_prompts(prompts) if prompts else [])]
    rows = rows_of(
        rows or [{"prompt": ""}] if image_prompt or control else rows, class_name, class_scale, known_classes(adapters)
    )
    variants = Variants.of(wildcards, all_variants)
    requests = _requests(template, rows, count, image, strength, mask, variants)
    _judge(len(requests), output, batch_size, device, metadata)
    ending = _ending(format, output)
    job = Job(
        requests, adapters, base_of(base, adapters), output, batch_size, device, metadata == "a1111", allow_missing or (),
        ending,
    )  # fmt: skip
    _judge_weaker(job)
    _judge_base(job)
    _run(job, json)


# ---------------------------------------------------------------------------------------------- judged without torch
@dataclass(frozen=True)
class Job:
    """What is to be done, judged as far as that goes without torch.

    Attributes:
        adapters: paths and scales; None is the scale that the adapter recommends, else 1.
        base: the backbone's reference.
        device: None is the best there is.
        allow_missing: layers that the base may lack.
        metadata: whether files say how they were drawn.
        ending: of the files, `.png` …; "": the usual one.
    """

    requests: Sequence[Request]
    adapters: Sequence[tuple[Path, float | None]]
    base: str
    output: Path
    batch_size: int
    device: str | None
    metadata: bool
    allow_missing: Sequence[str] = ()
    ending: str = ""


def _weighted(text: str) -> tuple[str, float]:
    """`PROMPT[:WEIGHT]` → the prompt and its weight, 1 where none is given."""
    head, colon, tail = text.rpartition(":")
    try:
        return (head, float(tail)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def _requests(
    template: Request,
    rows: Sequence[Row],
    count: int,
    image: Path | None,
    strength: float | None,
    mask: Path | None,
    variants: Variants,
) -> list[Request]:
    """One request a picture. What a line of the prompt file says goes before the command line's."""
    from adapt.sampling.prompts import requests_of

    if not rows:
        raise SettingsError("there is no prompt", next='--prompt "a red bicycle", or --prompts FILE')
    given = {"count": count, "image": image, "mask": mask, "strength": strength}
    common = {name: value for name, value in given.items() if value is not None}
    requests = requests_of(template, [{**common, **row} for row in rows], variants)
    if strength is not None and not any(r.image for r in requests):
        raise SettingsError("--strength needs a picture to draw over", given=strength, next="--image FILE")
    return requests


def _judge(pictures: int, output: Path, batch_size: int, device: str | None, metadata: str) -> None:
    if batch_size < 1:
        raise SettingsError("--batch-size is out of range", given=batch_size, allowed="a whole number from 1")
    if metadata not in METADATA:
        raise SettingsError("unknown --metadata", given=metadata, allowed=", ".join(METADATA))
    judge_device(device)
    if _is_file(output) and pictures > 1:
        raise SettingsError(
            f"--output is one file, and {pictures} pictures are asked for", given=output, next="give a folder"
        )
    folder = output.parent if _is_file(output) else output
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise RunError("--output cannot be written", given=output, next="give another folder")


ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".mp4", ".gif", ".wav", ".flac")


def _is_file(output: Path) -> bool:
    return output.suffix.lower() in ENDINGS and not output.is_dir()


def _ending(format: str | None, output: Path) -> str:
    """Of the files: as --format or the file's name says; "": as is usual."""
    named = output.suffix.lower() if _is_file(output) else ""
    if format is None:
        return named
    ending = f".{format.lower().removeprefix('.')}"
    if ending not in ENDINGS or (named and named != ending):
        raise SettingsError("--format does not fit", given=format,
                            allowed=named or ", ".join(e[1:] for e in ENDINGS))  # fmt: skip
    return ending


def _judge_weaker(job: Job) -> None:
    """Guidances that compare with a weaker model have one: an adapter to weaken, a file that is there."""
    from adapt.adapter import Adapter
    from adapt.sampling.guidances import WEAKER, share_of
    from adapt.sampling.request import guidance_named, named_in

    asked = {one for request in job.requests for one in named_in(guidance_named(request.guidance))}
    for named in (one for one in asked if one.name in WEAKER):
        if not job.adapters:
            raise SettingsError(
                f"guidance {named.name} compares with the model without its adapter, and there is no adapter",
                given=str(named), next="--adapter PATH",
            )  # fmt: skip
        if named.name == "autoguidance" and share_of(named["weak"]) is None:
            Adapter.locate(named["weak"])


def _judge_base(job: Job) -> None:
    """The base is there and suits what is asked. Last, because a base on the Hub is downloaded now."""
    from adapt.loading import require
    from adapt.sampling.preflight import check_folder

    folder = require(job.base)
    check_folder(folder, job.requests)


# ---------------------------------------------------------------------------------------------- drawn with torch
def _run(job: Job, as_json: bool) -> None:
    from adapt.adapter import Adapter
    from adapt.api.advice import advice_of, remarks
    from adapt.api.generate import applied, known_of, with_scale
    from adapt.api.weaker import weaker_of
    from adapt.backbones import Backbone
    from adapt.sampling.png import Used
    from adapt.sampling.request import settle

    started = time.perf_counter()
    loaded = [(Adapter.load(path), scale) for path, scale in job.adapters]
    adapters = [with_scale(adapter if scale is None else (adapter, scale)) for adapter, scale in loaded]
    _remind(job, [adapter for adapter, _ in adapters])
    for line in advice_in_use(loaded, job.requests):
        typer.echo(line, err=True)
    backbone = Backbone.load(job.base, device=device_of(job.device))
    if job.allow_missing:
        adapters = [(adapter.fitting(backbone, job.allow_missing), scale) for adapter, scale in adapters]
    worn = [adapter for adapter, _ in adapters]
    for request in job.requests:
        backbone.require_prompt(request.prompt)
    tell_of_brackets(backbone, job.requests)
    known = known_of(adapters)
    drawings = [settle(request, backbone, advice_of(worn), known) for request in job.requests]
    for remark in remarks(worn, drawings):
        typer.echo(remark, err=True)
    used = [Used(adapter.name, adapter.digest, scale) for adapter, scale in adapters]
    weaker = weaker_of(backbone, drawings, adapters)
    with applied(backbone, adapters):
        pictures = _save_each(job, backbone, drawings, used, weaker, as_json)
    seconds = round(time.perf_counter() - started, 2)
    typer.echo(f"{len(pictures)} pictures in {seconds} s", err=True)
    if as_json:
        result = {"base": job.base, "adapters": [u._asdict() for u in used], "pictures": pictures, "seconds": seconds}
        typer.echo(dumps(result, ensure_ascii=False))


def _remind(job: Job, adapters: Sequence[Adapter]) -> None:
    for adapter in adapters:
        words = adapter.triggers
        if words and not any(w.lower() in request.prompt.lower() for w in words for request in job.requests):
            told = " or ".join(map(repr, words))
            typer.echo(f"note: no prompt holds {told}, the word that calls {adapter.name}", err=True)


def _save_each(
    job: Job,
    backbone: Backbone,
    drawings: Sequence[Drawing],
    used: Sequence[Used],
    weaker: Mapping[str, Predictor],
    as_json: bool,
) -> list[dict[str, Any]]:
    """Draws, and saves each batch at once, so that an interruption loses no finished picture."""
    from rich.console import Console
    from rich.progress import Progress

    from adapt.sampling.draw import draw_each

    console = Console(stderr=True)
    saved: dict[int, dict[str, Any]] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal, redirect_stdout=False) as bar:
        task = bar.add_task("drawing", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        drawn = draw_each(backbone, drawings, batch_size=job.batch_size, progress=watch, weaker=weaker)
        for place, picture in drawn:
            saved[place] = _saved(job, backbone, drawings[place], used, picture)
            if not as_json:
                typer.echo(saved[place]["path"])
    return [saved[place] for place in sorted(saved)]


def _saved(job: Job, backbone: Backbone, drawing: Drawing, used: Sequence[Used], picture: Drawn) -> dict[str, Any]:
    """Writes one picture and says where and what it is."""
    from adapt.sampling import schedulers
    from adapt.sampling.classes import written
    from adapt.sampling.formats import encoded, usual
    from adapt.sampling.png import describe, save_beside

    own = str(backbone.scheduler_config["_class_name"])
    spec = schedulers.find(drawing.scheduler) if drawing.scheduler else None
    sampler = spec.label if spec else schedulers.label(own)
    told = describe(drawing, model=_model(job.base), sampler=sampler, adapters=used) if job.metadata else None
    ending = job.ending or usual(picture)
    called = " ".join(filter(None, (written(drawing.classes), drawing.prompt)))
    path = job.output if _is_file(job.output) else job.output / f"{_slug(called)}-{drawing.seed}{ending}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = save_beside(path, encoded(picture, ending, told))
    except OSError as error:
        raise RunError(f"the picture cannot be written: {error.strerror}", given=path) from error
    names = ("prompt", "negative_prompt", "seed", "width", "height", "steps", "guidance_scale")
    settings = {name: getattr(drawing, name) for name in names}
    settings |= {"class": written(drawing.classes), "class_scale": drawing.class_scale} if drawing.classes else {}
    return {"path": str(path), **settings, "scheduler": spec.name if spec else own}


def _model(base: str) -> str:
    """The base's name; of a local folder only the last part, because the rest is nobody's business."""
    return Path(base).absolute().name if Path(base).exists() else base


def _slug(prompt: str) -> str:
    """The prompt as a file name: letters, digits and hyphens, 48 characters at most."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:48].strip("-") or "picture"
