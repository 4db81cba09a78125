"""`adapt`: the commands, and how they end. Imports nothing heavy: `--help` and usage errors answer at once."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from adapt.cli.ask import ask
from adapt.cli.bases import bases
from adapt.cli.caption import caption
from adapt.cli.card import card
from adapt.cli.check import check
from adapt.cli.classes import classes
from adapt.cli.convert_embedding import convert_embedding
from adapt.cli.demo import demo
from adapt.cli.diff import diff
from adapt.cli.explain import explain
from adapt.cli.export import export
from adapt.cli.extract import extract
from adapt.cli.generate import generate
from adapt.cli.inspect import inspect
from adapt.cli.mask import mask
from adapt.cli.merge import merge
from adapt.cli.pull import pull
from adapt.cli.push import push
from adapt.cli.report import report
from adapt.cli.resize import resize
from adapt.cli.sweep import sweep
from adapt.cli.train import train
from adapt.cli.verify import verify
from adapt.errors import AdaptError
from adapt.training.shortage import asked_for

BUG = 101
LESS = "smaller pictures or fewer at once (--size, --batch-size), or free the memory that other programs hold"

app = typer.Typer(
    name="adapt",
    help="Teach a pretrained diffusion model a small image set and get one adapter that works everywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help would take half of the time that `--help` has
)
for making in (check, caption, mask, train, ask, report, generate, sweep, explain):
    app.command()(making)
for command in (export, card, push, pull, bases, demo):
    app.command()(command)
for tool in (inspect, verify, diff, merge, resize, extract, classes, convert_embedding):  # on adapter files
    app.command()(tool)


def _version(wanted: bool) -> None:
    if wanted:
        from adapt import __version__

        typer.echo(f"adapt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0 done, 1 `check` found something, 2 the user's input, 4 Hub login, 101 a bug of ours, 130 / 143 stopped with the
    checkpoint saved.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return int(app(words, standalone_mode=False) or 0)
    except AdaptError as error:
        return _tell(error, "--json" in words)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own: wrong words on the command line
            if not words:
                return 2  # it has shown the commands
            return _tell(AdaptError(_one_line(error.format_message()), next="adapt --help"), "--json" in words)
        if (wanted := asked_for(error)) is not None:
            return _tell(AdaptError("memory ran out", given=wanted, next=LESS), "--json" in words)
        traceback.print_exc()
        typer.echo("this is a bug in adapt: please report it with the lines above", err=True)
        return BUG


def _one_line(text: str) -> str:
    line = " ".join(text.split()) or "show the commands"
    return line.rstrip(".")


def _tell(error: AdaptError, as_json: bool) -> int:
    typer.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False) if as_json else f"error: {error}", err=True)
    return error.exit_code


def run() -> None:
    """The console script."""
    raise SystemExit(main())
