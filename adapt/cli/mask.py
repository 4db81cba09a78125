"""`adapt mask`: mask files beside pictures. Shown first; nothing that is there is replaced unasked."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.api.beside.outlines import Outline

WAYS = ("alpha", "background", "rembg")


def mask(
    data: Annotated[Path, typer.Argument(help="A folder of pictures.")],
    by: Annotated[
        str,
        typer.Option(
            metavar="|".join(WAYS), help="The alpha channel; all but a plain background; or the models of rembg."
        ),
    ] = "alpha",
    tolerance: Annotated[
        int, typer.Option(min=0, max=255, help="background: largest difference of a channel from the border's colour.")
    ] = 24,
    model: Annotated[str | None, typer.Option(help="rembg: one of its models; it fetches it.")] = None,
    grow: Annotated[int, typer.Option(help="Pixels by which the subject is made larger; below 0 smaller.")] = 0,
    feather: Annotated[float, typer.Option(min=0.0, help="Radius in pixels by which edges are softened.")] = 0.0,
    replace: Annotated[bool, typer.Option("--replace", help="Also pictures that have a mask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout; asks nothing.")] = False,
) -> None:
    """Write NAME-masklabel.png beside each picture that has no mask: white is learned, black is not.

    Without a terminal nothing is asked, and nothing is written without --yes. Example:

        adapt mask my-pictures --by background --grow 2 --feather 2 --yes
    """
    from adapt.api.beside import write
    from adapt.api.beside.outlines import Skipped, propose_masks, wanting_masks
    from adapt.progress import say

    if by not in WAYS:
        raise SettingsError("unknown way to find a mask", given=by, allowed=", ".join(WAYS))
    outline = _outline(by, tolerance, model)
    found = list(propose_masks(wanting_masks(data, replace), outline, grow, feather))
    skipped = [row for row in found if isinstance(row, Skipped)]
    proposals = [row for row in found if not isinstance(row, Skipped)]
    if not json:
        for row in proposals:
            typer.echo(f"{row.picture}: {row.told}{'  (replaces)' if row.replaces else ''}")
        for missing in skipped:
            say(f"no mask   {missing.picture}: {missing.reason}")
    asks = sys.stdin.isatty() and sys.stderr.isatty() and not json and bool(proposals)
    agreed = not dry_run and (yes or (asks and typer.confirm(f"Write {len(proposals)} masks?", err=True)))
    written = write(proposals, replace=replace) if agreed else []
    if json:
        told = [{"picture": row.picture, "covers": row.told} for row in proposals]
        reasons = {row.picture: row.reason for row in skipped}
        typer.echo(json_.dumps({"masks": told, "skipped": reasons, "written": len(written)}, ensure_ascii=False))
    else:
        say(f"{len(written)} masks written" if agreed else "nothing was written; --yes writes without asking")


def _outline(by: str, tolerance: int, model: str | None) -> Outline:
    from adapt.api.beside.outlines import by_alpha, by_background, by_rembg

    if by == "rembg":
        return by_rembg(model)
    return by_alpha if by == "alpha" else by_background(tolerance)
