"""What is on the Hub already: read before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import AdaptError, HubError, SettingsError, TransferError
from adapt.fetch import Reference, explained, patience
from adapt.fetch.explained import LOGIN
from adapt.fetch.reference import PART
from adapt.licences import Licence

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

    from adapt.hub.parcel import Item

CARD = "README.md"
REQUESTS = 20
"""Of a user's open pull requests to one repository, the newest that are looked at."""


@dataclass(frozen=True)
class State:
    """A repository as it is.

    Attributes:
        head: the main branch's commit; None where there is no repository.
        private: whether only its owner sees it.
        files: name → digest: sha256 of large files, git's of the others.
        tags: names.
        card: the text of its README.md, or None.
    """

    head: str | None = None
    private: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    card: str | None = None

    def has(self, item: Item) -> bool:
        """Whether the same bytes are there under the same name."""
        return self.files.get(item.name) in (item.sha256, item.git)


def full_name(api: HfApi, repository: str) -> str:
    """`user/name`; a bare name gets the user's.

    Raises:
        SettingsError: no name of a repository.
        HubError: nobody is logged in.
    """

    if re.fullmatch(f"{PART}/{PART}", repository) and "--" not in repository and ".." not in repository:
        return repository
    if not re.fullmatch(PART, repository):
        raise SettingsError("no name of a repository on the Hub", given=repository, allowed="user/name")
    require_login()
    try:
        return f"{api.whoami()['name']}/{repository}"
    except Exception as error:
        raise explained(error, Reference(f"you/{repository}")) from error


def require_login() -> None:
    """Raises `HubError` when there is no token at all; whether it is a good one the Hub says."""
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception as error:
        raise HubError(f"no token could be had: {error}", next=LOGIN) from error
    if not token:
        raise HubError("nobody is logged in to the Hub", next=LOGIN)


def state(api: HfApi, repository: str) -> State:
    """The repository's head, files, tags and card; empty when it is not there.

    Raises:
        TransferError, HubError: it cannot be asked.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = api.model_info(repository, files_metadata=True, timeout=patience.SECONDS)
        refs = api.list_repo_refs(repository)
        files = {sibling.rfilename: _digest(sibling) for sibling in info.siblings or ()}
        card = _card(api, repository, info.sha) if CARD in files else None
    except RepositoryNotFoundError as error:
        if isinstance(error, GatedRepoError) or error.response.status_code == 401:
            raise explained(error, Reference(repository)) from error
        return State()
    except Exception as error:
        raise explained(error, Reference(repository)) from error
    return State(info.sha, bool(info.private), files, frozenset(tag.name for tag in refs.tags), card)


def _digest(sibling: RepoSibling) -> str:
    return sibling.lfs.sha256 if sibling.lfs else str(sibling.blob_id)


def _card(api: HfApi, repository: str, head: str | None) -> str:
    path = api.hf_hub_download(repository, CARD, revision=head)
    return Path(path).read_text("utf-8", "replace")


@dataclass(frozen=True)
class Base:
    """The base as the Hub has it.

    Attributes:
        found: whether everybody can see it there.
        licence: as its card says.
        gated: whether its owner asks for terms to be accepted.
    """

    found: bool
    licence: Licence | None = None
    gated: bool = False


def base(api: HfApi, name: str) -> Base:
    """Looks the base up.

    Raises:
        TransferError: the Hub cannot be asked.
        SettingsError: it is no model.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = api.model_info(name, timeout=patience.SECONDS)
    except GatedRepoError:
        return Base(True, gated=True)
    except RepositoryNotFoundError as error:
        other = explained(error, Reference(name))
        if "not a model" in str(other):
            raise SettingsError(f"base_model is wrong: {other.message}", given=name) from error
        return Base(False)
    except Exception as error:
        raise explained(error, Reference(name)) from error
    return Base(not info.private, Licence.of(vars(info.card_data) if info.card_data else {}, name), bool(info.gated))


def landed(
    api: HfApi, repository: str, items: Mapping[str, Item], revision: str | None = None, gone: Sequence[str] = ()
) -> str | None:
    """The commit in which the repository holds exactly these bytes under these names, and none of the others; None when it
    does not.

    Raises:
        AdaptError: it cannot be asked.
    """
    there = _held(api, repository, revision)
    whole = all(there.has(item) for item in items.values()) and not there.files.keys() & set(gone)
    return there.head if whole else None


def _held(api: HfApi, repository: str, revision: str | None) -> State:
    """Commit and files at a revision."""
    try:
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=patience.SECONDS)
    except Exception as error:
        raise explained(error, Reference(repository)) from error
    return State(info.sha, files={s.rfilename: _digest(s) for s in info.siblings or ()})


def open_request(
    api: HfApi, repository: str, items: Mapping[str, Item], stray: Callable[[str], bool]
) -> tuple[str, str] | None:
    """Commit and page of an open pull request of this user's that offers exactly this; None: there is none.

    Args:
        stray: whether a file of this name would be another version's.

    Raises:
        AdaptError: it cannot be asked.
    """
    try:
        mine = api.get_repo_discussions(
            repository, author=api.whoami()["name"], discussion_type="pull_request", discussion_status="open"
        )
        for request in islice(mine, REQUESTS):
            there = _held(api, repository, request.git_reference)
            if all(there.has(item) for item in items.values()) and not any(map(stray, there.files)):
                return str(there.head), request.url
    except AdaptError:
        raise
    except Exception as error:
        raise explained(error, Reference(repository)) from error
    return None


def require_landed(api: HfApi, repository: str, items: Mapping[str, Item], revision: str) -> None:
    """Raises `TransferError` when the commit holds other bytes than were sent."""
    if landed(api, repository, items, revision) is None:
        raise TransferError(
            "the Hub holds other bytes than were sent",
            given=f"{repository} at {revision[:12]}",
            next="the same command again, while nothing writes into the adapter's folder",
        )
