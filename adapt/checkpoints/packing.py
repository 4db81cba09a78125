"""Which networks of a base are held in few bits, by their files, and what must be installed to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adapt.checkpoints.contents import Contents
from adapt.errors import BackboneError

PACKAGES = {"gguf": ("gguf", "gguf"), "torchao": ("torchao", "torchao"), "quanto": ("optimum", "optimum-quanto"),
            "bnb": ("bitsandbytes", "bitsandbytes")}  # fmt: skip
"""Last part of a way of packing → the package's module, and its name in the package index."""


def packing_of(folder: Path, contents: Contents | None = None) -> dict[str, str]:
    """Component → how its files hold it: `gguf`, `nf4-bnb`, `fp4-bnb`, `int8-bnb`, or as diffusers calls it; those alone that are
    in few bits.

    Args:
        folder: a diffusers folder.
        contents: of the one file that some of them are in.
    """
    found: dict[str, str] = {}
    for config in sorted(folder.glob("*/config.json")):
        name = config.parent.name
        if contents and contents.has(name):
            if contents.file.suffix == ".gguf":
                found[name] = "gguf"
        elif told := _told(config):
            found[name] = told
    return found


def _told(config: Path) -> str | None:
    """What a component's `quantization_config` is called here."""
    try:
        told: Mapping[str, Any] = json.loads(config.read_text("utf-8"))["quantization_config"]
        method = str(told.get("quant_method", "unknown"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    if "bitsandbytes" not in method:
        return method
    return f"{told.get('bnb_4bit_quant_type', 'fp4')}-bnb" if told.get("load_in_4bit") else "int8-bnb"


def require_packages(folder: Path, contents: Contents | None = None) -> None:
    """Raises `BackboneError` where a base in few bits needs a package that is not there, or one that nothing here knows."""
    for name, way in packing_of(folder, contents).items():
        module, package = PACKAGES.get(way.rpartition("-")[2], (None, None))
        if module is None:
            raise BackboneError(
                f"{name} is packed in a way that adapt does not read",
                given=f"{way}, {folder}",
                allowed="GGUF, and folders of bitsandbytes, torchao and quanto",
            )
        if find_spec(module) is None:
            raise BackboneError(
                f"{name} is packed by {package}, which is not there",
                given=contents.file if contents else folder,
                next=f"pip install {package} (or 'adapt-diffusion[quant]')",
            )
