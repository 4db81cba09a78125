"""`adapt generate` with torch: adapters on the base, each picture saved as soon as it is drawn."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from adapt.cli.advice import advice_in_use
from adapt.cli.device import base_of
from adapt.cli.prompted import tell_of_brackets, tell_of_pictures
from adapt.errors import RunError

if TYPE_CHECKING:
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.cli.job import Job
    from adapt.sampling.clip import Drawn
    from adapt.sampling.png import Used
    from adapt.sampling.request import Drawing, Request
    from conditioning import Predictor


class Drawers(NamedTuple):
    """What draws beside the base: adapters, and what stands beside it by kind and name."""

    used: Sequence[Used]
    beside: Mapping[str, str]


def draw(job: Job, as_json: bool) -> None:
    """Does the job: paths on stdout, or one JSON object; what is worth knowing on stderr."""
    from adapt.adapter import Adapter
    from adapt.api.generate import applied, settled, with_scale
    from adapt.api.weaker import weaker_of
    from adapt.sampling.png import Used

    started = time.perf_counter()
    loaded = [(Adapter.load(path), scale) for path, scale in job.adapters]
    adapters = [with_scale(adapter if scale is None else (adapter, scale)) for adapter, scale in loaded]
    _tell_before(job.requests, loaded)
    backbone = base_of(job.base, job.device, job.precision)
    if job.allow_missing:
        adapters = [(adapter.fitting(backbone, job.allow_missing), scale) for adapter, scale in adapters]
    used = [Used(adapter.name, adapter.digest, scale) for adapter, scale in adapters]
    with job.beside.on(backbone) as beside:
        drawings = settled(backbone, job.requests, adapters)
        _tell_settled(backbone, job.requests, drawings, [adapter for adapter, _ in adapters])
        weaker = weaker_of(backbone, drawings, adapters)
        with applied(backbone, adapters):
            pictures = _save_each(job, backbone, drawings, Drawers(used, beside), weaker, as_json)
    seconds = round(time.perf_counter() - started, 2)
    typer.echo(f"{len(pictures)} pictures in {seconds} s", err=True)
    if as_json:
        result = {"base": job.base, "adapters": [u._asdict() for u in used], "pictures": pictures, "seconds": seconds}
        typer.echo(dumps(result, ensure_ascii=False))


def _tell_before(requests: Sequence[Request], loaded: Sequence[tuple[Adapter, float | None]]) -> None:
    """Words that no prompt holds, and settings that come from adapters."""
    for adapter, _ in loaded:
        words = adapter.triggers
        if words and not any(w.lower() in request.prompt.lower() for w in words for request in requests):
            told = " or ".join(map(repr, words))
            typer.echo(f"note: no prompt holds {told}, the word that calls {adapter.name}", err=True)
    for line in advice_in_use(loaded, requests):
        typer.echo(line, err=True)


def _tell_settled(
    backbone: Backbone, requests: Sequence[Request], drawings: Sequence[Drawing], worn: Sequence[Adapter]
) -> None:
    """What the base and the adapters make of it."""
    from adapt.api.advice import remarks

    for adapter in worn:
        if adapter.facts.base.get("fingerprint") in backbone.kin() - {backbone.fingerprint()}:
            made_for = adapter.facts.base.get("reference") or adapter.facts.base.get("pipeline") or "another base"
            told = f"{adapter.name} was made for {made_for}, another variant of {backbone.entry.title}"
            typer.echo(f"note: {told}, and fits this one's network", err=True)
    tell_of_brackets(backbone, requests)
    tell_of_pictures(worn, requests)
    for remark in remarks(worn, drawings):
        typer.echo(remark, err=True)


def _save_each(
    job: Job,
    backbone: Backbone,
    drawings: Sequence[Drawing],
    by: Drawers,
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
            saved[place] = _saved(job, backbone, drawings[place], by, picture)
            if not as_json:
                typer.echo(saved[place]["path"])
    return [saved[place] for place in sorted(saved)]


def _saved(job: Job, backbone: Backbone, drawing: Drawing, by: Drawers, picture: Drawn) -> dict[str, Any]:
    """Writes one picture and says where and what it is."""
    from adapt.sampling import schedulers
    from adapt.sampling.classes import written
    from adapt.sampling.formats import encoded
    from adapt.sampling.png import describe, save_beside

    own = str(backbone.scheduler_config["_class_name"])
    spec = schedulers.find(drawing.scheduler) if drawing.scheduler else None
    sampler = spec.label if spec else schedulers.label(own)
    says = job.metadata == "a1111"
    told = (
        describe(drawing, model=_model(job.base), sampler=sampler, adapters=by.used, beside=by.beside) if says else None
    )
    path = _path(job, drawing, picture)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = save_beside(path, encoded(picture, path.suffix.lower(), told))
    except OSError as error:
        raise RunError(f"the picture cannot be written: {error.strerror}", given=path) from error
    names = ("prompt", "negative_prompt", "seed", "width", "height", "steps", "guidance_scale")
    settings = {name: getattr(drawing, name) for name in names}
    settings |= {"class": written(drawing.classes), "class_scale": drawing.class_scale} if drawing.classes else {}
    return {"path": str(path), **settings, "scheduler": spec.name if spec else own}


def _path(job: Job, drawing: Drawing, picture: Drawn) -> Path:
    """The file that was asked for, or one in the folder by class, prompt and seed."""
    from adapt.sampling.classes import written
    from adapt.sampling.formats import usual

    if job.is_file:
        return job.output
    called = " ".join(filter(None, (written(drawing.classes), drawing.prompt)))
    return job.output / f"{_slug(called)}-{drawing.seed}{job.ending or usual(picture)}"


def _model(base: str) -> str:
    """The base's name; of what lies here only the last part of its path, because the rest is nobody's business."""
    from adapt.source import IN_FILE, IN_VARIANT, ON_HUB, bundled, is_here

    if base in bundled() or (ON_HUB.fullmatch(base) and not is_here(base)):
        return base
    named = IN_FILE.fullmatch(base) or IN_VARIANT.fullmatch(base)
    return Path(named[1] if named else base).absolute().name


def _slug(prompt: str) -> str:
    """The prompt as a file name: letters, digits and hyphens, 48 characters at most."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:48].strip("-") or "picture"
