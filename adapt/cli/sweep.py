"""`adapt sweep`: an adapter at many settings, from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from adapt.cli import options
from adapt.errors import RunError, SettingsError

if TYPE_CHECKING:
    from adapt.api.recommend import Stored
    from adapt.api.sweep import Sweep
    from adapt.backbones import Backbone
    from adapt.evaluation.swept import Row, Swept

Number = TypeVar("Number", int, float)


def sweep(
    adapter: Annotated[str, typer.Argument(help="An adapter, a run's folder, or user/name[@revision] on the Hub.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="What is drawn; may be given several times. Default: captions of --reference, else the samples'."
        ),
    ] = None,
    class_name: options.ClassNames = None,
    class_scale: options.ClassScale = None,
    image_prompt: options.ImagePrompt = None,
    image_prompt_scale: options.ImagePromptScale = None,
    control: options.Control = None,
    control_scale: options.ControlScale = 1.0,
    reference: Annotated[
        Path | None,
        typer.Option(help="Pictures of the style, best ones not trained on: what it is compared with and judged by."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="N,N…", help="Scales of the adapter; default: 0.7, 1 and 1.3 × the recommended one."),
    ] = None,
    guidance_scale: Annotated[
        str | None, typer.Option(metavar="N,N…", help="From 1, which is off; default: around the recommended one.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="N,N…", help="Inference steps; default: 0.5, 1 and 1.5 × the recommended.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Pictures of each prompt at every setting; default: sixteen or more in all.")
    ] = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    base: Annotated[str | None, typer.Option(help="Backbone; default: the adapter's.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of sheet.png, sweep.html and sweep.json.")] = Path("sweep"),
    store: Annotated[
        bool | None,
        typer.Option(
            "--store/--no-store",
            help="Write what is recommended into adapter.json; default: yes, from 16 pictures and references on.",
        ),
    ] = None,
    json: options.JsonFigures = False,
    batch_size: options.BatchSize = 4,
    device: options.Device = None,
    precision: options.Precision = None,
) -> None:
    """Draw an adapter at several scales, guidance scales and steps, always from the same noise: one sheet, one page.

    Example:

        adapt sweep runs/my-style --prompt "a fox" --prompt "a hut" --guidance-scale 1,3,5 --steps 10,20
    """
    from adapt.cli.classes_asked import classes_of
    from adapt.cli.device import judge_device, judge_precision
    from adapt.cli.size import size_of
    from adapt.loading import require

    width, height = size_of(size)
    axes: dict[str, Any] = {
        "scales": _numbers("--scale", scale, float),
        "guidance_scales": _numbers("--guidance-scale", guidance_scale, float),
        "steps": _numbers("--steps", steps, int),
    }
    _judge_axes(axes)
    judge_device(device)
    judge_precision(precision)
    path, name = _named(adapter, base)
    classes = classes_of(path, class_name, class_scale, told=reference is not None)
    require(name)
    _judge_output(output)
    _judge_store(path, store)

    from adapt.adapter import Adapter
    from adapt.api import sweep as api
    from adapt.api.reference import NONE, read_reference
    from adapt.cli.device import base_of
    from adapt.progress import Progress

    compared = read_reference(reference) if reference else NONE
    loaded, backbone = Adapter.load(path), base_of(name, device, precision)
    with Progress("drawing", 0) as bar:
        found = api.sweep(
            backbone, loaded, prompt=prompt or (), class_name=classes, class_scale=class_scale,
            image_prompt=image_prompt, image_prompt_scale=image_prompt_scale, control=control, control_scale=control_scale,
            count=count, seed=seed, height=height, width=width, batch_size=batch_size, reference=compared,
            progress=lambda done, total, left: bar(done, total, left=left), **axes,
        )  # fmt: skip
    _tell(found, path, backbone, store, output, json)


def _named(adapter: str, base: str | None) -> tuple[Path, str]:
    """Where the adapter is, and its base."""
    from adapt.cli.scaled import base_of, scaled_adapter

    path, given = scaled_adapter(adapter)
    if given is not None:
        raise SettingsError("a sweep's adapter has no scale", given=adapter, next=f"--scale {given:g}")
    return path, base_of(base, [(path, None)])


def _tell(found: Sweep, adapter: Path, backbone: Backbone, store: bool | None, output: Path, as_json: bool) -> None:
    """Writes it down, stores what is recommended, and says what was found."""
    try:
        written = found.save(output)
    except OSError as error:
        raise RunError(f"the sweep cannot be written: {error.strerror}", given=output) from error
    stored = _store(adapter, found.swept, backbone, store)
    paths = {name: str(path) for name, path in written.items()}
    if as_json:
        told = {**found.swept.as_dict(), "files": paths, "stored": stored and stored.as_dict()}
        return typer.echo(dumps(told, ensure_ascii=False))
    for line in [*_table(found.swept), *([str(stored)] if stored else []), *paths.values()]:
        typer.echo(line)


def _store(path: Path, swept: Swept, backbone: Backbone, wanted: bool | None) -> Stored | None:
    """Stores what is recommended, and says what was done; None: nothing was stored."""
    from adapt.api import recommend

    if swept.recommended is None or wanted is False:
        return None
    if wanted is None and swept.indicative:
        typer.echo("note: not stored, because so few pictures only indicate; --store stores it all the same", err=True)
        return None
    if wanted is None and (why := recommend.why_not(path)) is not None:
        typer.echo(f"note: not stored: {why}", err=True)
        return None
    return recommend.store(path, swept, swept.recommended, backbone)


def _numbers(name: str, text: str | None, kind: Callable[[str], Number]) -> tuple[Number, ...] | None:
    """`1,3,5` → numbers."""
    if text is None:
        return None
    try:
        return tuple(kind(piece) for piece in text.split(","))
    except ValueError as error:
        noun = "whole numbers" if kind is int else "numbers"
        raise SettingsError(f"{name} cannot be read", given=text, allowed=f"{noun} separated by commas") from error


def _judge_axes(axes: dict[str, Any]) -> None:
    """What is given is in range, before anything is loaded."""
    from adapt.evaluation.grid import Grid

    Grid(**{**{"scales": (1.0,), "guidance_scales": (1.0,), "steps": (1,)}, **{k: v for k, v in axes.items() if v}})


def _judge_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise RunError("--output is a file", given=output, next="give a folder")


def _judge_store(path: Path, wanted: bool | None) -> None:
    """What is to be stored, can be: before anything is drawn."""
    from adapt.api.recommend import why_not

    if wanted and (why := why_not(path)) is not None:
        raise RunError("--store: the recommended settings cannot be stored", given=why)


def _table(swept: Swept) -> Sequence[str]:
    """The figures as lines of text, and what they come to."""
    columns = ("scale", "guidance", "steps", "seconds", "style", "±", "prompts", "diversity", "score")
    rows = [_cells(row) for row in (swept.base, *swept.rows)]
    shown = [i for i in range(len(columns)) if any(cells[i] for cells in rows)]
    told = ["  ".join(f"{cells[i]:>{max(6, len(columns[i]))}}" for i in shown) for cells in (columns, *rows)]
    advice = "recommended" if swept.recommended else "nothing is recommended"
    few = " (so few pictures only indicate)" if swept.recommended and swept.indicative else ""
    return [*told, f"{advice}: {swept.reason}{few}"]


def _cells(row: Row) -> tuple[str, ...]:
    figures = (row.seconds, row.style, row.style_error, row.prompt, row.diversity, row.score)
    scale, guidance, steps = row.setting
    return (
        f"{scale:g}" if scale else "base",
        f"{guidance:g}",
        str(steps),
        *("" if v is None else f"{v:.2f}" for v in figures),
    )
