"""Pushing: one commit that appears whole or not at all, and is looked at afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.errors import AdaptError
from adapt.fetch import Reference, be_patient, explained, is_unsettled, patience
from adapt.hub import remote
from adapt.hub.plan import Plan, Wishes, plan

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

Confirm = Callable[[Plan], Wishes | None]
"""Shows a plan and gives the wishes as they are then, or None to leave it."""


@dataclass(frozen=True)
class Pushed:
    """Attributes:
    repository: `user/name`.
    url: the page, or the pull request.
    commit: its whole id; None where nothing was sent (a dry run, or left by the user).
    sent: names of the files that the commit added or changed.
    plan: what was planned.
    """

    repository: str
    url: str
    commit: str | None
    sent: tuple[str, ...]
    plan: Plan = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        told = {"repository": self.repository, "url": self.url, "commit": self.commit, "sent": list(self.sent)}
        return {**self.plan.as_dict(), **told}


def push(
    adapter: str | Path,
    repository: str,
    *,
    wishes: Wishes | None = None,
    dry_run: bool = False,
    confirm: Confirm | None = None,
) -> Pushed:
    """Pushes an adapter to the Hub, as one commit. A card on the Hub that a person wrote is kept unless the wishes say otherwise.

    Args:
        adapter: a folder, a run's folder, or a `.safetensors` file.
        repository: `user/name`; made when it is not there. A bare `name` is the user's own.
        wishes: private, tag, licences …
        dry_run: sends nothing.
        confirm: is shown the plan and decides.

    Raises:
        AdapterError, SettingsError: the adapter cannot be pushed, or not so; nothing was sent.
        HubError: a login or a permission is missing.
        TransferError: the Hub cannot be reached, or did not take it; the repository is as it was before.
    """
    api = _api()
    be_patient()
    with tempfile.TemporaryDirectory(prefix="adapt-push-") as scratch:
        made = plan(api, adapter, repository, wishes or Wishes(), Path(scratch), dry=dry_run)
        page = f"{api.endpoint}/{made.repository}"
        if confirm is not None:
            decided = confirm(made)
            if decided is None:
                return Pushed(made.repository, page, None, (), made)
            made = Plan(made.repository, made.parcel, made.state, decided, made.notes)
        if dry_run:
            return Pushed(made.repository, page, None, (), made)
        return _carry_out(api, made, page)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="adapt")


def _carry_out(api: HfApi, made: Plan, page: str) -> Pushed:
    assert made.state is not None, "the Hub was asked"
    what, sent = Reference(made.repository), made.sent
    commit, url = made.state.head, page
    if sent or made.removed:
        if made.wishes.pr and (there := _request(api, made)):
            return Pushed(made.repository, there[1], there[0], (), made)
        head = made.state.head or _create(api, made)
        commit, url = _commit(api, made, head, page)
        if not made.wishes.pr:
            _look_again(api, made, commit)
    if made.wishes.tag and commit:
        try:
            api.create_tag(made.repository, tag=made.wishes.tag, revision=commit)
        except Exception as error:
            told = explained(error, what)
            raise type(told)(f"the adapter is pushed, but its tag is not: {told.message}", given=made.wishes.tag,
                             next=f"hf repos tag create {made.repository} {made.wishes.tag}") from error  # fmt: skip
    return Pushed(made.repository, url, commit, tuple(sent), made)


def _look_again(api: HfApi, made: Plan, commit: str) -> None:
    """Compares what the Hub now holds with what was sent."""
    try:
        remote.require_landed(api, made.repository, made.expected, commit)
    except AdaptError as told:
        raise type(told)(
            f"the commit {commit[:12]} is made; {told.message}", given=told.given, next=told.next
        ) from told


def _create(api: HfApi, made: Plan) -> str:
    """Makes the repository and gives its first commit. It stays, empty, when the push fails after it.

    One that is there after all is not pushed over: what is in it was not looked at.
    """
    try:
        api.create_repo(made.repository, private=made.wishes.private or None, exist_ok=False)
        return str(api.model_info(made.repository, timeout=patience.SECONDS).sha)
    except Exception as error:
        raise explained(error, Reference(made.repository)) from error


def _commit(api: HfApi, made: Plan, head: str, page: str) -> tuple[str, str]:
    """Sends everything as one commit on top of `head`: whoever came in between makes it fail. Gives its id and its page.

    When the answer is lost, the repository is asked whether the commit, or the pull request, is there.
    """
    title = made.wishes.message or f"{made.parcel.name}, pushed with adapt"
    try:
        done = api.create_commit(
            made.repository,
            operations=_operations(made),
            commit_message=title,
            parent_commit=head,
            create_pr=made.wishes.pr,
        )
        return done.oid, (done.pr_url or page) if made.wishes.pr else page
    except Exception as error:
        landed = _landed_after_all(api, made, head, page) if is_unsettled(error) else None
        if landed is None:
            raise explained(error, Reference(made.repository)) from error
        return landed


def _operations(made: Plan) -> list[CommitOperationAdd | CommitOperationDelete]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    def source(content: bytes | Path) -> bytes | str:
        return content if isinstance(content, bytes) else str(content)

    return [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=source(i.content)) for name, i in made.sent.items()),
        *(CommitOperationDelete(path_in_repo=name) for name in made.removed),
    ]


def _landed_after_all(api: HfApi, made: Plan, head: str, page: str) -> tuple[str, str] | None:
    """The commit of this push and its page, where only its answer was lost."""
    try:
        if made.wishes.pr:
            return _request(api, made)
        commit = remote.landed(api, made.repository, made.expected, gone=made.removed)
    except AdaptError:
        return None
    return (commit, page) if commit and commit != head else None


def _request(api: HfApi, made: Plan) -> tuple[str, str] | None:
    """A pull request that offers the same already: of this push, whose answer was lost, or of the one before."""
    return remote.open_request(api, made.repository, made.expected, made.is_stray)
