"""`adapt caption`: caption files from a model that sees. Shown first; nothing that is there is replaced unasked."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.api.beside import Captioner, Proposal

TOKENS = 120


def caption(
    data: Annotated[Path, typer.Argument(help="A folder of pictures.")],
    model: Annotated[
        str | None, typer.Option(help="A vision-language model's folder; with --server: the model's name there.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="A server that speaks OpenAI's dialect: vLLM, llama.cpp, Ollama …")
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Where the server's key is; default: OPENAI_API_KEY, for OpenAI only."),
    ] = None,
    ask: Annotated[str | None, typer.Option(metavar="TEXT", help="What the model is asked of each picture.")] = None,
    trigger: Annotated[str | None, typer.Option(help="A word that each caption begins with.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of an answer at most.")] = TOKENS,
    replace: Annotated[bool, typer.Option("--replace", help="Also pictures that have a caption.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the captions, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking; send to servers elsewhere.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout; asks nothing.")] = False,
) -> None:
    """Write a caption file beside each picture that has none, in the words of a vision-language model.

    Without a terminal nothing is asked, and nothing is written without --yes. Examples:

        adapt caption my-pictures --model models/a-vision-model

        adapt caption my-pictures --server http://localhost:8000 --trigger zqx --yes
    """
    from adapt.api.beside import propose_captions, wanting_captions, write
    from adapt.progress import say

    if model is None and server is None:
        raise SettingsError("no model is named", next="--model FOLDER, or --server URL")
    pictures = wanting_captions(data, replace)
    asks = sys.stdin.isatty() and sys.stderr.isatty() and not json
    if not pictures:
        say("every picture has a caption; --replace makes them anew")
        return typer.echo(json_.dumps({"captions": [], "written": 0})) if json else None
    _consent(server, len(pictures), asks, yes)
    captioner = _captioner(model, server, ask, max_tokens, key_env)
    proposals: list[Proposal] = []
    for number, proposal in enumerate(propose_captions(data, pictures, captioner, trigger), 1):
        proposals.append(proposal)
        if not json:
            typer.echo(f"{proposal.picture}: {proposal.told}{'  (replaces)' if proposal.replaces else ''}")
        if number % 20 == 0:
            say(f"{number} of {len(pictures)}")
    agreed = not dry_run and (yes or (asks and typer.confirm(f"Write {len(proposals)} caption files?", err=True)))
    written = write(proposals, replace=replace) if agreed else []
    if json:
        told = [{"picture": p.picture, "caption": p.told} for p in proposals]
        return typer.echo(json_.dumps({"captions": told, "written": len(written)}, ensure_ascii=False))
    say(f"{len(written)} caption files written" if agreed else "nothing was written; --yes writes without asking")
    return None


def _consent(server: str | None, count: int, asks: bool, yes: bool) -> None:
    """Pictures leave the machine only when that is agreed to.

    Raises:
        SettingsError: it is not.
    """
    from adapt.api.beside.server import address, is_here

    if server is None or is_here(address(server)) or yes:
        return
    if asks and typer.confirm(f"{count} pictures will be sent to {server}. Go on?", err=True):
        return
    raise SettingsError(
        "the pictures would leave this machine", given=f"{count} to {server}", next="--yes agrees to it"
    )


def _captioner(model: str | None, server: str | None, ask: str | None, tokens: int, key_env: str | None) -> Captioner:
    if server is not None:
        from adapt.api.beside.server import server_captioner
        from adapt.api.beside.words import PROMPT

        return server_captioner(server, model, ask or PROMPT, tokens, key_env)
    from adapt.api.beside.local import local_captioner

    assert model is not None
    return local_captioner(Path(model), ask, tokens)
