"""Pulling: a repository's adapter as a folder here, verified."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from adapt import files
from adapt.adapter import Adapter
from adapt.errors import RunError, SettingsError
from adapt.fetch import everything, fetch, reference
from adapt.fetch.choice import SAFE


def pull(name: str, output: str | Path | None = None) -> Path:
    """Brings an adapter here: one commit of it, each file compared with the digest that the Hub says.

    Args:
        name: `user/name`, `user/name@revision`, or `user/name/file.safetensors`.
        output: a folder that is not there yet, for a copy of one's own; None: it stays in the Hub's cache, shared by all.

    Returns:
        The folder, or the one file that was named.

    Raises:
        SettingsError: no name of a repository.
        TransferError, HubError: see `adapt.fetch.fetch`.
        AdapterError: no adapter is in it, or a damaged one.
        RunError: `output` is there already.
    """
    what = reference(name)
    if what is None:
        raise SettingsError("no name of a repository on the Hub", given=name, allowed="user/name or user/name@revision")
    target = Path(output) if output is not None else None
    if target is not None and target.exists():
        raise RunError("the folder is there already", given=target, next="give another --output")
    folder = fetch(what, everything(what))
    Adapter.locate(folder / what.file if what.file else folder)
    if target is None:
        return folder / what.file if what.file else folder
    _copy(folder, target, only=what.file)
    return target


def _copy(folder: Path, target: Path, only: str | None) -> None:
    """A copy that appears whole: files, not links into the cache."""
    temporary = target.with_name(f"{files.TEMPORARY}{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name.endswith(SAFE) and only in (None, name):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, temporary / name)
        files.replace_folder(temporary, target)
    except OSError as error:
        raise RunError(f"the folder cannot be written: {error.strerror}", given=target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
