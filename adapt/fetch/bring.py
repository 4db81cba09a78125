"""Brings files of one commit here, verified; huggingface_hub does the transfer and keeps the cache."""

from __future__ import annotations

import glob
import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from adapt.errors import AdapterError, AdaptError, TransferError
from adapt.fetch.choice import Choice
from adapt.fetch.explained import explained
from adapt.fetch.patience import be_patient
from adapt.fetch.reference import Reference

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

LARGEST = 16 * 2**30
"""Bytes. No adapter is larger; a whole model that was named by mistake is not fetched."""


def fetch(what: Reference, choose: Choice) -> Path:
    """The folder that holds the chosen files as they are in one commit, from the cache where they are there already.

    Raises:
        TransferError: not reachable, no such repository or revision, damaged on the way.
        HubError: a login or a permission is missing.
        AdapterError: no adapter is in it, or a file's name leads out of the folder.
    """
    from huggingface_hub import HfApi

    be_patient()
    try:
        revision = HfApi().resolve_revision(what.repository, revision=what.revision)
        entries = listing(what.repository, revision)
        names = choose({name: entry.size for name, entry in entries.items()})
        _judge(what, {name: entries[name].size for name in names})
        return _verified(what, revision, {name: entries[name] for name in names})
    except AdaptError:
        raise
    except Exception as error:
        raise explained(error, what) from error


def listing(repository: str, revision: str) -> dict[str, RepoFile]:
    """Name → entry of every file of a commit; from the cache if its list is there.

    Raises:
        AdapterError: a name that leads out of the folder.
    """
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        found = get_cached_repo_tree(repository, revision=revision)
    except CachedRepoTreeNotFoundError:
        tree = HfApi().list_repo_tree(repository, recursive=True, revision=revision)
        found = [entry for entry in tree if isinstance(entry, RepoFile)]
    for entry in found:
        parts = PurePosixPath(entry.path).parts
        if entry.path.startswith("/") or ".." in parts or re.search(r"[\\:\x00-\x1f]", entry.path):
            raise AdapterError("a file of this repository leads out of its folder", given=repr(entry.path))
    return {entry.path: entry for entry in found}


def _judge(what: Reference, sizes: Mapping[str, int]) -> None:
    if (total := sum(sizes.values())) > LARGEST:
        raise AdapterError(
            "too large for an adapter; nothing was fetched",
            given=f"{what}: {total / 2**30:.1f} GiB",
            allowed=f"{LARGEST / 2**30:.0f} GiB",
        )


# ------------------------------------------------------------------------------------------------ verified
def _verified(what: Reference, revision: str, entries: Mapping[str, RepoFile]) -> Path:
    """Fetches and compares digests; what is damaged is fetched once more, and never left in the cache."""
    folder = _snapshot(what, revision, entries)
    wrong = [name for name in entries if not _is_whole(folder / name, entries[name])]
    if wrong:
        for name in wrong:
            _forget(folder / name)
        folder = _snapshot(what, revision, {name: entries[name] for name in wrong})
        wrong = [name for name in wrong if not _is_whole(folder / name, entries[name])]
    for name in wrong:
        _forget(folder / name)
    if wrong:
        raise TransferError(
            "a file does not have the digest that the Hub says", given=f"{wrong[0]} of {what}", next="try again later"
        )
    return folder


def _snapshot(what: Reference, revision: str, entries: Mapping[str, RepoFile]) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(name) for name in entries]
    bar = None if sys.stderr.isatty() else _silent()
    return Path(snapshot_download(what.repository, revision=revision, allow_patterns=patterns, tqdm_class=bar))


def _silent() -> type:
    """A progress bar that shows nothing, for when there is no terminal to show it on."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Silent(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]

    return Silent


def _is_whole(path: Path, entry: RepoFile) -> bool:
    """Whether the file is what git has under this id: itself, or for large files the pointer of git-lfs that names its sha256."""
    if not path.is_file() or path.stat().st_size != entry.size:
        return False
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(2**20):
            sha256.update(piece)
            git.update(piece)
    if entry.lfs is not None:
        return sha256.hexdigest() == entry.lfs.sha256
    if path.resolve().name == sha256.hexdigest():
        return True  # the cache calls it so because the Hub did
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256.hexdigest()}\nsize {entry.size}\n".encode()
    )
    of_pointer = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
    return entry.blob_id in (git.hexdigest(), of_pointer)


def _forget(path: Path) -> None:
    """Takes a damaged file out of the cache, so that no other program finds it there."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
