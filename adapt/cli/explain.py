"""`adapt explain`: where words are looked at, what the adapter changed, what each piece contributes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapt.cli.prompted import tell_of_explained
from adapt.errors import RunError, SettingsError

if TYPE_CHECKING:
    from adapt.api.explain import Explanation


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
    class_scale: Annotated[float | None, typer.Option(help="How strongly the class guides by itself.")] = None,
    image_prompt: Annotated[
        Path | None, typer.Option(help="A reference picture, for adapters taught with image_prompts=true.")
    ] = None,
    image_prompt_scale: Annotated[float | None, typer.Option(help="How strongly it guides by itself.")] = None,
    leave_one_out: Annotated[
        bool, typer.Option(help="Draw again without each condition, word and adapter: one more drawing each.")
    ] = True,
    base: Annotated[str | None, typer.Option(help="Backbone; default: the adapter's, else icons.")] = None,
    negative_prompt: Annotated[str, typer.Option(help="What is kept away from.")] = "",
    guidance_scale: Annotated[
        float | None, typer.Option(help="From 1, which is off; default: the adapter's, else the family's.")
    ] = None,
    guidance: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:KEY=VALUE,…]", help="As in adapt generate.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Default: the adapter's, else the family's.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed is the same picture as in adapt generate.")] = 0,
    size: Annotated[str | None, typer.Option(metavar="N|WxH", help="Pixels; default: the backbone's own.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="euler, ddim, dpm++2m …; default: the backbone's.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of explain.html, explain.json and the pictures.")] = Path(
        "explanation"
    ),
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout: every figure.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")] = None,
) -> None:
    """Draw a prompt and say why the picture is as it is: one page with attention maps of words and what each piece does.

    Example:

        adapt explain runs/my-style --prompt "a fox in a red scarf"
    """
    from adapt.cli.classes_asked import known_classes
    from adapt.cli.device import device_of, judge_device
    from adapt.cli.scaled import base_of, scaled_adapter
    from adapt.cli.size import size_of
    from adapt.loading import require
    from adapt.sampling.classes import judged
    from adapt.sampling.pictures import load_image
    from adapt.sampling.request import Request
    from adapt.sampling.words import words_named

    width, height = size_of(size)
    Request(prompt=prompt, negative_prompt=negative_prompt, guidance_scale=guidance_scale, guidance=guidance or (),
            steps=steps, seed=seed, width=width, height=height, scheduler=scheduler)  # fmt: skip
    if not prompt.strip() and not class_name and image_prompt is None:
        raise SettingsError("there is no prompt", next='--prompt "a red bicycle"')
    words_named(prompt, word or ())
    if image_prompt is not None:
        load_image(image_prompt)
    judge_device(device)
    if output.exists() and not output.is_dir():
        raise RunError("--output is a file", given=output, next="give a folder")
    paths = [scaled_adapter(text) for text in adapter or []]
    judged(class_name, class_scale, known_classes(paths))
    reference = base_of(base, paths)
    require(reference)

    from adapt.adapter import Adapter
    from adapt.api import explain as api
    from adapt.api.generate import with_scale
    from adapt.backbones import Backbone
    from adapt.progress import Progress

    tell_of_explained(prompt)
    loaded = [(Adapter.load(path), scale) for path, scale in paths]
    backbone = Backbone.load(reference, device=device_of(device))
    with Progress("drawing", 0) as bar:
        found = api.explain(
            backbone, prompt, adapters=[with_scale(a if s is None else (a, s)) for a, s in loaded], words=word or (),
            class_name=class_name, class_scale=class_scale, image_prompt=image_prompt,
            image_prompt_scale=image_prompt_scale, leave_one_out=leave_one_out,
            negative_prompt=negative_prompt, guidance_scale=guidance_scale,
            guidance=guidance or (), steps=steps, seed=seed, height=height, width=width, scheduler=scheduler,
            progress=lambda done, total: bar(done, total),
        )  # fmt: skip
    try:
        written = found.save(output)
    except OSError as error:
        raise RunError(f"the explanation cannot be written: {error.strerror}", given=output) from error
    if json:
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
