"""`adapt sweep`: an adapter at many settings, from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from adapt.errors import RunError, SettingsError

if TYPE_CHECKING:
    from adapt.evaluation.swept import Swept

Number = TypeVar("Number", int, float)


def sweep(
    adapter: Annotated[str, typer.Argument(help="An adapter, a run's folder, or user/name[@revision] on the Hub.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="What is drawn; may be given several times. Default: the prompts of the adapter's samples."),
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
        int | None, typer.Option(help="Pictures of each prompt at every setting; default: eight or more in all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first picture of a prompt.")] = 0,
    base: Annotated[str | None, typer.Option(help="Backbone; default: the adapter's.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of sheet.png, sweep.html and sweep.json.")] = Path("sweep"),
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout: every figure.")] = False,
    batch_size: Annotated[int, typer.Option(help="Pictures at once; changes no picture.")] = 4,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")] = None,
) -> None:
    """Draw an adapter at several scales, guidance scales and steps, always from the same noise: one sheet, one page.

    Example:

        adapt sweep runs/my-style --prompt "a fox" --prompt "a hut" --guidance-scale 1,3,5 --steps 10,20
    """
    from adapt.adapter import Adapter
    from adapt.cli.device import device_of, judge_device
    from adapt.cli.scaled import base_of, scaled_adapter
    from adapt.loading import find, read_index

    axes: dict[str, Any] = {
        "scales": _numbers("--scale", scale, float),
        "guidance_scales": _numbers("--guidance-scale", guidance_scale, float),
        "steps": _numbers("--steps", steps, int),
    }
    _judge_axes(axes)
    judge_device(device)
    path, given = scaled_adapter(adapter)
    if given is not None:
        raise SettingsError("a sweep's adapter has no scale", given=adapter, next=f"--scale {given:g}")
    reference = base_of(base, [(path, None)])
    read_index(find(reference))
    _judge_output(output)

    from adapt.api import sweep as api
    from adapt.backbones import Backbone
    from adapt.progress import Progress

    loaded, backbone = Adapter.load(path), Backbone.load(reference, device=device_of(device))
    with Progress("drawing", 0) as bar:
        found = api.sweep(
            backbone, loaded, prompt=prompt or (), count=count, seed=seed, batch_size=batch_size,
            progress=lambda done, total, left: bar(done, total, left=left), **axes,
        )  # fmt: skip
    try:
        written = found.save(output)
    except OSError as error:
        raise RunError(f"the sweep cannot be written: {error.strerror}", given=output) from error
    paths = {name: str(path) for name, path in written.items()}
    if json:
        return typer.echo(dumps({**found.swept.as_dict(), "files": paths}, ensure_ascii=False))
    for line in [*_table(found.swept), *paths.values()]:
        typer.echo(line)


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


def _table(swept: Swept) -> Sequence[str]:
    """The figures as lines of text."""
    head = f"{'scale':>6} {'guidance':>9} {'steps':>6} {'seconds':>8}"
    rows = [
        f"{row.setting.scale:6g} {row.setting.guidance_scale:9g} {row.setting.steps:6d} {row.seconds:8.2f}"
        for row in (swept.base, *swept.rows)
    ]
    return [head, *rows]
