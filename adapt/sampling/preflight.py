"""What a backbone's folder says of requests before anything is loaded. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt.sampling import schedulers
from adapt.sampling.request import Request, check_size


def check_folder(folder: Path, requests: Sequence[Request]) -> None:
    """Judges sizes and schedulers by the configurations in a diffusers folder; `settle` judges again when it is loaded.

    Raises:
        SettingsError: a size or a scheduler that this base cannot draw with.
    """
    blocks = _config(folder / "vae" / "config.json").get("block_out_channels", [0])
    factor = 2 ** (len(blocks) - 1)  # pixels a latent
    scheduler = _config(folder / "scheduler" / "scheduler_config.json")
    for request in requests:
        check_size(request.width or factor, request.height or factor, factor)
        if request.scheduler and "_class_name" in scheduler:
            schedulers.check(schedulers.find(request.scheduler), scheduler)


def _config(file: Path) -> dict[str, Any]:
    """A component's configuration; empty when it cannot be read, which loading then explains."""
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
