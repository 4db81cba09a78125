"""What went wrong with the Hub, as an error of ours."""

from __future__ import annotations

from adapt.errors import AdaptError, HubError, TransferError
from adapt.fetch.reference import Reference

LOGIN = "`hf auth login`, or set HF_TOKEN"


def explained(error: BaseException, what: Reference) -> AdaptError:
    """The error of huggingface_hub or of the network as ours: one line, what to do next, and 4 for login and permission."""
    from huggingface_hub import errors as hub

    cause = _root(error)
    given = str(what)
    if isinstance(cause, AdaptError):
        return cause
    if isinstance(cause, hub.GatedRepoError):
        page = f"{_endpoint()}/{what.repository}"
        how = "with the account of your token, then the same command again" if _logged_in() else f"then {LOGIN}"
        return HubError("its owner asks you to accept terms first", given=given, next=f"accept them on {page} {how}")
    if isinstance(cause, hub.DisabledRepoError):
        return TransferError("the Hub has disabled this repository", given=given)
    if isinstance(cause, hub.RevisionNotFoundError):
        return TransferError("the repository has no such revision", given=given, allowed=_revisions(what.repository))
    if isinstance(cause, hub.HfHubHTTPError):
        return _refused(cause, what)
    if isinstance(cause, hub.OfflineModeIsEnabled):
        return TransferError(
            "HF_HUB_OFFLINE forbids asking the Hub",
            given=given,
            next="HF_HUB_OFFLINE=0; or check the name: neither here nor in the Hub's cache is anything of it",
        )
    if isinstance(cause, hub.LocalTokenNotFoundError | hub.OIDCError):
        return HubError("nobody is logged in", next=LOGIN)
    if isinstance(cause, hub.HFValidationError):
        return TransferError("no name of a repository", given=given, allowed="user/name")
    if _is_network(cause):
        return TransferError(
            f"the Hub cannot be reached: {type(cause).__name__}",
            given=f"{given} at {_endpoint()}",
            next="check the network, then the same command again; what arrived is kept",
        )
    return TransferError(f"the Hub's answer cannot be used: {_short(cause)}", given=given, next="try again later")


def is_unsettled(error: BaseException) -> bool:
    """Whether the Hub may have done what it was asked for although it did not say so."""
    status = getattr(getattr(_root(error), "response", None), "status_code", 500)
    return status >= 500 or status < 400


def _refused(cause: Exception, what: Reference) -> AdaptError:
    """By the status that the Hub answered with."""
    response = getattr(cause, "response", None)
    status, given = getattr(response, "status_code", 0), str(what)
    if status == 401:
        if _logged_in() and "nvalid" in str(cause):
            return HubError("the Hub does not accept the token", given=given, next=LOGIN)
        return HubError("not there, or private: the Hub asks for a login", given=given, next=LOGIN)
    if status == 403:
        return HubError(
            f"the Hub does not allow it: {_short(cause)}",
            given=given,
            next=f"a token with write access to {what.repository.partition('/')[0]}: {LOGIN}; or offer it with --pr",
        )
    if status == 404:
        return _missing(what)
    if status == 409:
        return TransferError(
            f"it is there already, or was made meanwhile: {_short(cause)}", given=given, next="the same command again"
        )
    if status == 412:
        return TransferError(
            "somebody changed the repository meanwhile; nothing was changed by this command",
            given=given,
            next="the same command again",
        )
    if status == 429:
        return TransferError("the Hub asks for fewer requests", given=given, next="wait some minutes, then again")
    if status >= 500:
        return TransferError(
            f"the Hub has trouble of its own (status {status})",
            given=given,
            next="the same command again; what arrived is kept",
        )
    return TransferError(f"the Hub refused it (status {status}): {_short(cause)}", given=given)


def _missing(what: Reference) -> AdaptError:
    from huggingface_hub import HfApi

    for kind in ("dataset", "space"):
        try:
            HfApi().repo_info(what.repository, repo_type=kind)
        except Exception:
            continue
        return TransferError(f"this is a {'data set' if kind == 'dataset' else kind}, not a model", given=what)
    hint = "check the name; there is no such path here either" + ("" if _logged_in() else f". A private one: {LOGIN}")
    return TransferError("the Hub has no such model, or not for you", given=what, next=hint)


def _revisions(repository: str) -> str | None:
    """Branches and tags, for the message."""
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(repository)
    except Exception:
        return None
    return ", ".join([ref.name for ref in (*refs.branches, *refs.tags)][:12]) or None


def _root(error: BaseException) -> BaseException:
    """What the library wrapped: uploads in a RuntimeError, missing cache entries in one of its own."""
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionResolutionError

    wrappers = (RuntimeError, LocalEntryNotFoundError, RevisionResolutionError)
    while isinstance(error, wrappers) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_network(error: BaseException) -> bool:
    import httpx2

    return isinstance(error, httpx2.HTTPError | ConnectionError | TimeoutError)


def _short(error: BaseException) -> str:
    """What the Hub said, in 200 characters."""
    said = getattr(error, "server_message", None) or str(error)
    return " ".join(said.split())[:200] or type(error).__name__


def _logged_in() -> bool:
    from huggingface_hub import get_token

    try:
        return get_token() is not None
    except Exception:
        return False


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
