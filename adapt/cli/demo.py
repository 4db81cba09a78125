"""`adapt demo`: the main job on the bundled backbone and 48 pictures of another artist's style."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from adapt.cli import options
from adapt.errors import DataError

ROOT = Path(__file__).parents[2]
DATA = Path("examples/data/openmoji")
RECIPE = Path("training_scripts/recipes/openmoji.yaml")


def demo(
    output: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what is there and start over.")] = False,
    json: options.Json = False,
) -> None:
    """Train an adapter on 48 OpenMoji pictures and compare it with its base. A few minutes on two cores."""
    root = next((place for place in (Path(), ROOT) if (place / DATA).is_dir() and (place / RECIPE).is_file()), None)
    if root is None:
        raise DataError(
            "the demo's pictures are in adapt's repository, not in the installed package",
            next="clone it and run `make demo`, or `adapt train` your own pictures",
        )
    from adapt.api.demo import run_demo

    result = run_demo(root / DATA, root / RECIPE, output, fresh)
    if json:
        return typer.echo(json_.dumps(result.as_dict()))
    for line in result.lines():
        typer.echo(line)
