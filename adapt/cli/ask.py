"""`adapt ask`: something of a run that is training, without stopping it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ask(
    run: Annotated[Path, typer.Argument(help="The --output of a training that goes on.")],
    request: Annotated[str, typer.Argument(help="sample, save, measure or stop.")],
) -> None:
    """Ask a run that is training for previews, a checkpoint, a measurement, or to save and stop."""
    from adapt.training.requests import ask as ask_run

    ask_run(run, request)
    typer.echo(f"asked for {request}; the run does it after its present step and says so in {run / 'events.jsonl'}")
