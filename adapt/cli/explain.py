"""`adapt explain`: where words are looked at, what the adapter changed, what each piece contributes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapt.cli import options
from adapt.cli.prompted import marks_in, tell_of_brackets, tell_of_pictures, weighted
from adapt.errors import RunError, SettingsError

if TYPE_CHECKING:
    from adapt.api.explain import Explanation
    from adapt.sampling.request import Request


def explain(
    adapter: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH[:SCALE]]…", help="Adapters, or user/name[@revision] on the Hub; none: the base."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What is drawn and explained.")] = "",
    word: Annotated[
        list[str] | None,
        typer.Option(help="A word of the prompt, or several in a row; may be given several times; default: all."),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Of an adapter with classes; as in adapt generate.")
    ] = None,
    class_scale: options.ClassScale = None,
    image_prompt: options.ImagePrompt = None,
    image_prompt_scale: options.ImagePromptScale = None,
    control: options.Control = None,
    control_scale: options.ControlScale = 1.0,
    compose: options.Compose = None,
    prompt_syntax: options.PromptSyntax = "weights",
    image: Annotated[Path | None, typer.Option(help="What is edited, with a base that edits.")] = None,
    image_guidance_scale: options.ImageGuidanceScale = None,
    leave_one_out: Annotated[
        bool, typer.Option(help="Draw again without each condition, word and adapter: one more drawing each.")
    ] = True,
    base: options.Base = None,
    negative_prompt: options.NegativePrompt = "",
    guidance_scale: options.GuidanceScale = None,
    guidance: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:KEY=VALUE,…]", help="As in adapt generate.")
    ] = None,
    steps: options.Steps = None,
    seed: Annotated[int, typer.Option(help="The same seed is the same picture as in adapt generate.")] = 0,
    size: options.Size = None,
    scheduler: options.Scheduler = None,
    output: Annotated[Path, typer.Option(help="Folder of explain.html, explain.json and the pictures.")] = Path(
        "explanation"
    ),
    json: options.JsonFigures = False,
    device: options.Device = None,
    precision: options.Precision = None,
) -> None:
    """Draw a prompt and say why the picture is as it is: one page with attention maps of words and what each piece does.

    Example:

        adapt explain runs/my-style --prompt "a fox in a red scarf"
    """
    from adapt.cli.device import judge_device, judge_precision
    from adapt.cli.scaled import base_of, scaled_adapter
    from adapt.cli.size import size_of
    from adapt.loading import require
    from adapt.sampling.pictures import if_given, load_image
    from adapt.sampling.request import Request

    width, height = size_of(size)
    request = Request(
        prompt=prompt, prompt_syntax=prompt_syntax, compose=tuple(map(weighted, compose or ())),
        negative_prompt=negative_prompt, guidance_scale=guidance_scale,
        guidance=guidance or (), class_name=class_name, class_scale=class_scale,
        image_prompt=if_given(load_image, image_prompt), image_prompt_scale=image_prompt_scale,
        control=if_given(load_image, control), control_scale=control_scale,
        image=if_given(load_image, image), image_guidance_scale=image_guidance_scale,
        steps=steps, seed=seed, width=width, height=height, scheduler=scheduler,
    )  # fmt: skip
    adapters = [scaled_adapter(text) for text in adapter or []]
    _judge(request, word or (), adapters, output)
    judge_device(device)
    judge_precision(precision)
    reference = base_of(base, adapters)
    require(reference)
    found = _found(request, word or (), leave_one_out, adapters, reference, device, precision)
    _tell(found, output, json)


def _judge(request: Request, words: Sequence[str], adapters: Sequence[tuple[Path, float | None]], output: Path) -> None:
    """What can be judged without torch."""
    from adapt.cli.classes_asked import known_classes
    from adapt.sampling.classes import judged
    from adapt.sampling.words import words_named

    shown = request.image_prompt is not None or request.control is not None
    if not request.prompt.strip() and not request.class_name and not shown:
        raise SettingsError("there is no prompt", next='--prompt "a red bicycle"')
    if not marks_in(request.prompt):  # else what its words are depends on the base
        words_named(request.prompt, words)
    judged(request.class_name, request.class_scale, known_classes(adapters))
    if output.exists() and not output.is_dir():
        raise RunError("--output is a file", given=output, next="give a folder")


def _found(
    request: Request,
    words: Sequence[str],
    leave_one_out: bool,
    adapters: Sequence[tuple[Path, float | None]],
    base: str,
    device: str | None,
    precision: str | None,
) -> Explanation:
    """Drawn and taken apart."""
    from adapt.adapter import Adapter
    from adapt.api.explain import explained
    from adapt.api.generate import with_scale
    from adapt.cli.device import base_of
    from adapt.progress import Progress

    loaded = [(Adapter.load(path), scale) for path, scale in adapters]
    scaled = [with_scale(adapter if scale is None else (adapter, scale)) for adapter, scale in loaded]
    backbone = base_of(base, device, precision)
    tell_of_brackets(backbone, [request])
    tell_of_pictures([adapter for adapter, _ in scaled], [request])
    with Progress("drawing", 0) as bar:
        return explained(
            backbone, request, scaled, words=words, leave_one_out=leave_one_out,
            progress=lambda done, total: bar(done, total),
        )  # fmt: skip


def _tell(found: Explanation, output: Path, as_json: bool) -> None:
    """Writes it down, and says what was found."""
    try:
        written = found.save(output)
    except OSError as error:
        raise RunError(f"the explanation cannot be written: {error.strerror}", given=output) from error
    if as_json:
        return typer.echo(dumps({**found.as_dict(), "files": list(map(str, written.values()))}, ensure_ascii=False))
    for line in [*_told(found), *(str(path) for name, path in written.items() if not name.endswith(".png"))]:
        typer.echo(line)


def _told(found: Explanation) -> Iterator[str]:
    """The figures as lines of text."""
    if found.no_maps:
        yield f"no maps: {found.no_maps}"
    left = [one.distance for one in found.left_out if one.kind == "word"]
    for one, apart in zip_longest(found.looked, left[: len(found.looked)]):
        read = f"{one.share:6.1%} of looks" if one.tokens else "is cut off"
        yield f"{one.word.text:16} {read}" + ("" if apart is None else f", without it {apart:.3f}")
    for other in found.left_out:
        if other.kind != "word":
            yield f"without {other.kind} {other.name}: {other.distance:.3f}"
    if found.another_seed:
        yield f"another seed: {found.another_seed.distance:.3f}"
    if found.times:
        mean = sum(one.relative for one in found.times) / len(found.times)
        yield f"change of the prediction: {mean:.1%} in the mean over steps"
