"""Where an adapter's weights stand: in a folder of ours, of peft's, of a run, on the Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from adapt.adapter.facts import FACTS_NAME
from adapt.errors import AdapterError
from adapt.fetch import fetch, needed, reference
from adapt.fetch.network import CONTROL_NET
from adapt.formats import FILE_NAME
from adapt.formats.conditioners import FOLDER as CONDITIONING
from adapt.formats.embeddings import FOLDER as EMBEDDINGS
from adapt.formats.experts import LOW_FILE, is_second
from adapt.formats.opening import check_file
from adapt.formats.peft_folder import CONFIG_NAME, FOLDER, WEIGHTS_NAME, read_config

INSIDE = (
    FILE_NAME,
    f"{FOLDER}/{WEIGHTS_NAME}",
    f"adapter/{FILE_NAME}",
    f"adapter/{FOLDER}/{WEIGHTS_NAME}",
    LOW_FILE,
    f"adapter/{LOW_FILE}",
    WEIGHTS_NAME,
)
"""Where the weights stand in an adapter's folder, a run's, or a folder of peft's."""
CACHED = re.compile(r"/models--[^/]*--([^/]+)/snapshots/[^/]+(?:/|$)")
"""Where huggingface_hub's cache keeps a repository: its folders are called after commits."""


def locate(path: str | Path) -> Path:
    """As `Adapter.locate`."""
    path = here(path)
    if path.is_dir():
        found = next((path / name for name in INSIDE if (path / name).is_file()), None) or _of_several(path)
        if found is None:
            _refuse_control_net(path)
            raise AdapterError(
                "the folder holds no adapter",
                given=path,
                allowed=f"a folder with {FILE_NAME}, or with peft's {CONFIG_NAME}",
                next="for an unfinished run: adapt train … --resume",
            )
        _require_inside(found, path)
        whole = home(found)  # of its own folder peft/ it lies above
        inside = whole if whole is not None and path.is_relative_to(whole) else path
        path = found
    else:
        inside = home(path) or path.parent
    for file in _beside(path):
        _require_inside(file, inside, "a link leads out of the adapter's folder", "put the file itself there")
    check_file(path)
    if path.name == WEIGHTS_NAME:
        read_config(path.with_name(CONFIG_NAME))
    return path


def _refuse_control_net(folder: Path) -> None:
    """Raises `AdapterError` for what is taken by another door."""
    try:
        told = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(told, dict) and told.get("_class_name") == CONTROL_NET:
        raise AdapterError("the folder holds a ControlNet, no LoRA", given=folder,
                           next="adapt generate --controlnet FOLDER --control PICTURE")  # fmt: skip


def here(path: str | Path) -> Path:
    """The path itself, or where an adapter of the Hub now is."""
    what = reference(path)
    if what is None:
        return Path(path)
    folder = fetch(what, needed(what))
    if what.file:
        return folder / what.file
    inside = any((folder / name).is_file() for name in INSIDE)
    return folder if inside else next(file for file in sorted(folder.glob("*.safetensors")))


def _beside(weights: Path) -> list[Path]:
    """What is read besides the weights."""
    folder = home(weights)
    if folder is None:
        return []
    parts = [folder / name for name in (CONDITIONING, EMBEDDINGS, FOLDER)]
    return [folder / FACTS_NAME, *parts, *(path for part in parts for path in part.rglob("*"))]


def _require_inside(
    file: Path,
    folder: Path,
    what: str = "the adapter's file is a link out of its folder",
    then: str = "name the file itself",
) -> None:
    """Raises `AdapterError` for a link out of an adapter's folder; the Hub's cache links to blobs of its own."""
    real, inside = file.resolve(), folder.resolve()
    commit = next((each for each in (inside, *inside.parents) if each.parent.name == "snapshots"), None)
    cache = commit.parents[1] / "blobs" if commit else inside
    if not real.is_relative_to(inside) and not real.is_relative_to(cache):
        raise AdapterError(what, given=file, next=then)


def home(weights: Path) -> Path | None:
    """The adapter's folder of a weights file that stands in one; None for a bare file."""
    if weights.name == FILE_NAME:
        return weights.parent
    if is_second(weights):
        return weights.parent.parent
    peft = weights.parent.parent if weights.parent.parent.name == FOLDER else weights.parent
    return peft.parent if (weights.name, peft.name) == (WEIGHTS_NAME, FOLDER) else None


def _of_several(folder: Path) -> Path | None:
    """The weights file of one of several networks in an adapter's folder or a run's."""
    found = (
        each for inside in (folder, folder / "adapter") for each in sorted((inside / FOLDER).glob(f"*/{WEIGHTS_NAME}"))
    )
    return next(found, None)


def name_of(weights: Path) -> str:
    """What the adapter is called after: its run, its folder, or its file."""
    folder = home(weights.absolute())
    if cached := CACHED.search(weights.absolute().parent.as_posix()):
        return cached[1] if folder is not None else weights.stem
    if folder is None:
        return weights.absolute().parent.name if weights.name == WEIGHTS_NAME else weights.stem
    return folder.parent.name if folder.name == "adapter" else folder.name
