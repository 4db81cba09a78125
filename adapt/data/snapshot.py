"""Data sets on the Hub, as a folder in the Hub's own cache; without network what lies there already."""

from __future__ import annotations

import re
from pathlib import Path

from adapt.data.picture import CLIPS, EXTENSIONS, SOUNDS
from adapt.errors import DataError, HubError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_READ = (
    *EXTENSIONS,
    *SOUNDS,
    *CLIPS,
    ".txt",
    ".caption",
    ".jsonl",
    ".csv",
    ".json",
    ".parquet",
    ".arrow",
    ".tar",
    ".md",
)
"""What is fetched: pictures, sounds, clips, captions, tables, archives, the card. Loading scripts are not."""


def is_hub_id(source: str) -> bool:
    """Whether it is written like `user/name`."""
    return _HUB_ID.fullmatch(source) is not None


def snapshot(name: str) -> Path:
    """The local copy of a data set, downloaded first where the network may be used (`HF_HUB_OFFLINE=1`: not at all).

    Raises:
        DataError: there is neither a folder nor a data set of this name, or it is out of reach.
        HubError: the Hub asks for a login or for consent to the data set's terms.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    endings = [f"*{ending}" for suffix in _READ for ending in (suffix, suffix.upper())]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=endings))
    except GatedRepoError as error:
        raise HubError(
            "This data set asks you to accept its terms first",
            given=name,
            next="accept them there, then `hf auth login`",
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            "There is no such folder, and no such data set on the Hub, or it is private",
            given=name,
            next="check the name; for a private one: `hf auth login`",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DataError(
            "There is no such folder, and no data set of this name in the local cache or within reach on the Hub",
            given=name,
            next="give a folder, or connect once to download it",
        ) from error
