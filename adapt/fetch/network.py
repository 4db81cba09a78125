"""A single network of diffusers' on disk or on the Hub: `config.json` and safetensors beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from adapt.errors import AdapterError
from adapt.fetch.bring import fetch
from adapt.fetch.reference import reference

CONFIG, CONTROL_NET = "config.json", "ControlNetModel"


def network_folder(named: str | Path, class_name: str, what: str) -> Path:
    """The folder of a network of this class of diffusers'; one of the Hub is fetched first.

    Args:
        what: it is called, for messages.

    Raises:
        AdapterError: something else, or only pickles.
        TransferError, HubError: see `fetch`.
    """
    asked = reference(named)
    folder = Path(named) if asked is None else fetch(asked, _files)
    try:
        found = json.loads((folder / CONFIG).read_text("utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise AdapterError(f"there is no {what} here: no {CONFIG} that can be read", given=named,
                           allowed=f"a folder with a {class_name} of diffusers, or a Hub id") from error  # fmt: skip
    if found != class_name:
        raise AdapterError(f"this is no {what} that adapt can use", given=f"{named}: {found}", allowed=class_name)
    if not any(folder.glob("*.safetensors")):
        raise AdapterError(f"the {what} has no safetensors weights", given=named,
                           next="other files can run code when opened: save it again with safe_serialization=True")  # fmt: skip
    return folder


def _files(sizes: Mapping[str, int]) -> list[str]:
    """Configuration and weights at a repository's root: the plain ones, else those of a variant."""
    weights = [name for name in sizes if name.endswith(".safetensors") and "/" not in name]
    plain = [name for name in weights if name.count(".") == 1]
    return [CONFIG, *(plain or weights)] if CONFIG in sizes else []


def ip_adapter_file(named: str | Path) -> Path:
    """The weights of an IP-Adapter; one of the Hub is fetched, with the picture encoders that its repository has for it.

    Raises:
        AdapterError: a repository, of which no file is named.
        TransferError, HubError: see `fetch`.
    """
    asked = reference(named)
    if asked is None:
        return Path(named)
    if asked.file is None:
        raise AdapterError("a repository of IP-Adapters holds several", given=named,
                           next=f"name one: {asked.repository}/models/ip-adapter_sd15.safetensors")  # fmt: skip
    weights = asked.file
    inside = (f"{Path(weights).parent.as_posix()}/image_encoder/", "models/image_encoder/")

    def wanted(sizes: Mapping[str, int]) -> list[str]:
        beside = [name for name in sizes if name.startswith(inside) and name.endswith((".json", ".safetensors"))]
        return [weights, *beside] if weights in sizes else []

    return fetch(asked, wanted) / weights
