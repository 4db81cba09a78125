"""What a backbone's folder says of requests before anything is loaded. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt.backbones.registry import FAMILIES
from adapt.prompts import read
from adapt.sampling import schedulers
from adapt.sampling.request import Request, check_size


def check_folder(folder: Path, requests: Sequence[Request]) -> None:
    """Judges sizes, schedulers and prompts by the configurations in a diffusers folder; `settle` judges again when it is loaded.

    Raises:
        SettingsError: a size or a scheduler that this base cannot draw with, a prompt that it cannot read.
    """
    blocks = _config(folder / "vae" / "config.json").get("block_out_channels", [0])
    factor = 2 ** (len(blocks) - 1)  # pixels a latent
    scheduler = _config(folder / "scheduler" / "scheduler_config.json")
    weighted = weighs(folder)
    for request in requests:
        for text in request.texts if weighted else ():
            read(text, request.prompt_syntax)
        check_size(request.width or factor, request.height or factor, factor)
        if request.scheduler and "_class_name" in scheduler:
            schedulers.check(schedulers.find(request.scheduler), scheduler)


def weighs(folder: Path) -> bool:
    """Whether the base in a folder takes weights in prompts."""
    index = _config(folder / "model_index.json")
    return any(family.weighs and family.fits(index) for family in FAMILIES.values())


def _config(file: Path) -> dict[str, Any]:
    """A component's configuration; empty when it cannot be read, which loading then explains."""
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
