"""`adapt.push` and `adapt.pull`: sharing, from Python."""

from __future__ import annotations

from pathlib import Path

from adapt import hub
from adapt.hub import Pushed, Wishes


def push(
    adapter: str | Path,
    repository: str,
    *,
    private: bool = False,
    tag: str | None = None,
    pr: bool = False,
    license: str | None = None,
    data_license: str | None = None,
    data_source: str | None = None,
    replace_card: bool = False,
    message: str | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Pushes an adapter to the Hub as one commit: weights, facts, samples, the card and a notebook. Asks nothing.

    Args:
        adapter: a folder, a run's folder, or a `.safetensors` file.
        repository: `user/name`; it is made when it is not there.
        private: a new repository is seen by its owner only.
        tag: name for the commit, such as `v1`.
        pr: as a pull request, for repositories of others.
        license: the adapter's licence, as the Hub writes it; None: its base's.
        data_license: of the training pictures; None: the card says that it is not stated.
        data_source: where the pictures are from, in words, for the card.
        replace_card: a card on the Hub that a person has changed is replaced; else it is kept.
        message: of the commit.
        dry_run: sends nothing.

    Returns:
        The page, the commit, and what was sent; `plan` has every file and what should be known.

    Raises:
        SettingsError, AdapterError: it cannot be pushed so; nothing was sent.
        HubError: a login or a permission is missing.
        TransferError: the Hub cannot be reached or did not take it; the repository is as it was.
    """
    wishes = Wishes(private, tag, pr, license, data_license, data_source, replace_card, message)
    return hub.push(adapter, repository, wishes=wishes, dry_run=dry_run)


def pull(repository: str, *, output: str | Path | None = None) -> Path:
    """Brings an adapter of the Hub here, each file compared with the digest that the Hub says.

    Args:
        repository: `user/name`, `user/name@revision`, or `user/name/file.safetensors`.
        output: a folder that is not there yet, for a copy of one's own; None: the Hub's cache.

    Returns:
        The folder (the file, where one was named), which `Adapter.load` takes.

    Raises:
        TransferError, HubError: not there, not for this user, not reachable, damaged on the way.
        AdapterError: no adapter is in it.
        RunError: `output` is there already.
    """
    return hub.pull(repository, output)
