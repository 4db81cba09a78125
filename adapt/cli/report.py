"""`adapt report`: a run as one HTML file, while it goes on or afterwards."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="The --output of a training, finished or not.")],
    output: Annotated[Path | None, typer.Option(help="Where the page goes; default: report.html in RUN.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="The facts as one JSON object on stdout; writes nothing.")
    ] = False,
) -> None:
    """Write what a run has done and learned as one HTML file that needs nothing else."""
    from adapt.errors import RunError
    from adapt.report import facts_of, write_report

    if json:
        return typer.echo(json_.dumps(facts_of(run).as_dict()))
    try:
        typer.echo(write_report(run, output))
    except OSError as error:
        raise RunError(
            f"the report cannot be written: {error.strerror}", given=error.filename or run, next="give --output"
        ) from error
