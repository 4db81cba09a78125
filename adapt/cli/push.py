"""`adapt push`: an adapter to the Hub. Everything is shown first; without a terminal nothing is asked."""

from __future__ import annotations

import json as json_
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from adapt.hub import Plan, Wishes


def push(
    adapter: Annotated[str, typer.Argument(help="An adapter's folder, a run's folder, or a .safetensors file.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="user/name; it is made when it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is seen by its owner only.")] = False,
    tag: Annotated[str | None, typer.Option(metavar="NAME", help="Name the commit, for example v1.")] = None,
    pr: Annotated[bool, typer.Option("--pr", help="As a pull request, for repositories of others.")] = False,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="The adapter's licence, such as cc-by-4.0; default: its base's.")
    ] = None,
    data_license: Annotated[
        str | None, typer.Option(metavar="ID", help="Licence of the training pictures, for the card.")
    ] = None,
    data_source: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where the training pictures are from, for the card.")
    ] = None,
    replace_card: Annotated[
        bool | None,
        typer.Option(
            "--replace-card/--keep-card",
            help="What happens to a card on the Hub that a person changed; default: asked on a terminal, else kept.",
        ),
    ] = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Title of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before sending.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout; asks nothing.")] = False,
) -> None:
    """Push an adapter to the Hugging Face Hub: weights, facts, samples, card and notebook, in one commit.

    Login: `hf auth login`, or HF_TOKEN. Exit code 4: login or permission is missing. Example:

        adapt push runs/my-style me/my-style --data-license cc-by-4.0 --tag v1
    """
    from adapt.hub import Wishes
    from adapt.hub import push as to_hub

    _quiet()
    asks = sys.stdin.isatty() and sys.stderr.isatty() and not json
    if asks and not (yes or dry_run) and data_license is None:
        data_license = _data_license(adapter)
    wishes = Wishes(private, tag, pr, license, data_license, data_source, replace_card, message)

    def confirm(plan: Plan) -> Wishes | None:
        if not json:
            typer.echo("\n".join(plan.lines()), err=not dry_run)
        if dry_run:
            return wishes
        return _ask(plan, wishes, yes) if asks else wishes

    done = to_hub(adapter, repository, wishes=wishes, dry_run=dry_run, confirm=confirm)
    if json:
        typer.echo(json_.dumps(done.as_dict(), ensure_ascii=False))
    elif dry_run:
        typer.echo("nothing was sent", err=True)
    elif done.commit is None:
        typer.echo("left as it is; nothing was sent", err=True)
    else:
        changed = done.sent or done.plan.removed
        typer.echo(f"{len(done.sent)} files sent" if changed else "the Hub has all of this already", err=True)
        typer.echo(done.url)


def _data_license(adapter: str) -> str | None:
    """The licence of the training pictures, asked for where the adapter does not say it."""
    from adapt.adapter import Adapter

    if Adapter.read_facts(adapter).data.get("license"):
        return None
    question = "Licence of the training pictures, such as cc-by-4.0 (empty: not stated)"
    return str(typer.prompt(question, default="", show_default=False, err=True)).strip() or None


def _ask(plan: Plan, wishes: Wishes, yes: bool) -> Wishes | None:
    """On a terminal: whether to send, and what becomes of a card that a person wrote."""
    if plan.asks_for_card:
        wishes = replace(
            wishes, replace_card=typer.confirm("The Hub's README.md was changed by a person. Replace it?", err=True)
        )
    if yes or typer.confirm(f"Send this to {plan.repository}?", default=True, err=True):
        return wishes
    return None


def _quiet() -> None:
    """No bars of huggingface_hub where there is no terminal to show them on."""
    if not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
