"""Licences: what a base's is, and whether what is said of an adapter fits it. No legal advice: it compares names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.errors import SettingsError, did_you_mean

_IDS = """apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
    artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0
    cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0
    etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research
    lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense
    zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other"""
IDS = frozenset(_IDS.split())
"""Identifiers that the Hub's card validation takes."""
PERMISSIVE = frozenset(
    ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "unlicense", "zlib")
)
"""An adapter of a base under one of these may carry any licence."""


@dataclass(frozen=True)
class Licence:
    """As a card's front matter says it.

    Attributes:
        id: one of `IDS`; `other` goes with a name and a link.
        name: of a licence that the Hub has no identifier for.
        link: where its text is.
    """

    id: str
    name: str | None = None
    link: str | None = None

    def as_dict(self) -> dict[str, str]:
        """`license`, `license_name`, `license_link`: those that are there."""
        told = {"license": self.id, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in told.items() if value}

    def __str__(self) -> str:
        return self.name or self.id

    @staticmethod
    def of(values: Mapping[str, Any], repository: str | None = None) -> Licence | None:
        """From a card's front matter, or `base` of `adapter.json`; None where it says none.

        Args:
            repository: whose card it is: a link to a file of it becomes an address.
        """
        id = values.get("license")
        if not isinstance(id, str) or not id:
            return None
        name, link = (v if isinstance(v := values.get(key), str) else None for key in ("license_name", "license_link"))
        if link and repository and "://" not in link:
            link = f"https://huggingface.co/{repository}/blob/main/{link.removeprefix('./')}"
        return Licence(id, name, link)


def _other(name: str, repository: str) -> Licence:
    return Licence("other", name, f"https://huggingface.co/{repository}/blob/main/LICENSE.md")


BASES = {
    "icons": Licence("apache-2.0"),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": Licence("creativeml-openrail-m"),
    "CompVis/stable-diffusion-v1-4": Licence("creativeml-openrail-m"),
    "stabilityai/stable-diffusion-2-1": Licence("openrail++"),
    "stabilityai/stable-diffusion-xl-base-1.0": Licence("openrail++"),
    "stabilityai/stable-diffusion-3.5-medium": _other(
        "stabilityai-ai-community", "stabilityai/stable-diffusion-3.5-medium"
    ),
    "stabilityai/stable-diffusion-3.5-large": _other(
        "stabilityai-ai-community", "stabilityai/stable-diffusion-3.5-large"
    ),
    "black-forest-labs/FLUX.1-dev": _other("flux-1-dev-non-commercial-license", "black-forest-labs/FLUX.1-dev"),
    "black-forest-labs/FLUX.1-schnell": Licence("apache-2.0"),
    "black-forest-labs/FLUX.2-klein-base-4B": Licence("apache-2.0"),
    "Qwen/Qwen-Image": Licence("apache-2.0"),
    "lodestones/Chroma1-HD": Licence("apache-2.0"),
    "fal/AuraFlow-v0.3": Licence("apache-2.0"),
}
"""Of well-known bases, for when their own card cannot be read (offline). `adapt push` asks the Hub first."""


def of_base(reference: str | None, folder: Path | None = None) -> Licence | None:
    """What the base's own card says, else what is known of it by name; None when neither does."""
    card = folder / "README.md" if folder else None
    there = front_matter(card.read_text("utf-8", "replace")) if card and card.is_file() else {}
    told = Licence.of(there, reference if reference and "/" in reference else None)
    return told or BASES.get(reference or "")


def front_matter(text: str) -> dict[str, Any]:
    """The YAML between the dashes at the head of a card; {} when there is none that can be read."""
    import yaml

    head, dashes, _ = text.removeprefix("﻿").removeprefix("---").partition("\n---")
    if not text.lstrip("﻿").startswith("---\n") or not dashes:
        return {}
    try:
        values = yaml.safe_load(head)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def require_known(id: str) -> str:
    """The identifier.

    Raises:
        SettingsError: one that the Hub refuses.
    """
    if id not in IDS:
        near = did_you_mean(id, sorted(IDS))
        raise SettingsError(
            "the Hub knows no such licence",
            given=id,
            allowed="an identifier such as apache-2.0, cc-by-4.0, openrail++; or other",
            next=f"did you mean {near}?" if near else "other, with the text's name in the card",
        )
    return id


def conflicts(base: Licence | None, said: Licence | None, pictures: str | None) -> list[str]:
    """What does not fit together, one sentence each; empty when nothing is known to.

    Args:
        base: of the base model.
        said: of the adapter.
        pictures: of what it was trained on.
    """
    found = []
    if base and said and base.id not in PERMISSIVE and (said.id, said.name) != (base.id, base.name):
        found.append(
            f"the base's licence is {base}, and the card says {said}: adapters of it have to follow the base's"
        )
    if said and pictures and "-nc" in pictures and "-nc" not in said.id and "non-commercial" not in str(said):
        found.append(f"the pictures are {pictures}, for non-commercial use, and the card says {said}")
    if said and pictures and "-nd" in pictures:
        found.append(f"the pictures are {pictures}: it does not allow derived works to be shared")
    if said and pictures and "-sa" in pictures and said.id != pictures:
        found.append(
            f"the pictures are {pictures}, which asks the same licence of what is made of them; the card says {said}"
        )
    return found
