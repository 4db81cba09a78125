"""What a text of a shared file tells of the machine that it was written on: absolute paths, of any system and any root.

URLs, names of modules, fractions and links within a page's own site are none. A value that is a path as a whole is told by its
beginning; in running text a path has three parts, or begins with a folder in which people keep their work.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

SYSTEM = "bin|boot|dev|etc|lib|lib32|lib64|proc|run|sbin|sys|usr"
ROUTES = "path|api|sdapi|v1|v2|docs|models|datasets|spaces"
WORK = (
    "data|mnt|media|srv|scratch|workspace|content|kaggle|Volumes|private|var|tmp|opt|nfs|gpfs|lustre|storage|work"
    "|home|root|Users"
)
"""Folders in which people keep their work."""
OTHER = re.compile(
    r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+"  # a picture
    r"|\b(?!file:)[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>`]+"  # an address
    rf"""|(?:\]\(|\b(?:href|src)=["']?)/(?!(?:{WORK})/)[^\s)"'>]*"""  # a link within the page's own site
)
"""Slashes that are no path's."""
FILE = re.compile(r"\bfile:/+", re.I)
START = r"(?<![^\s\"'`(\[{<=:,;|])"
PART = r"[^\s/\\:*?\"'<>|`(){}\[\],;]+"
LONG = re.compile(rf"{START}/(?!(?:{SYSTEM}|{ROUTES}|\d+)/){PART}/{PART}/{PART}")
DRIVE = re.compile(rf"(?<![\w/])[A-Za-z]:[\\/]{{1,2}}{PART}[\\/]+{PART}")
WHOLE = re.compile(r"\s*(?:file:/*)?(?:/[^/\0\n]+/[^\0\n]*|[A-Za-z]:[\\/][^\0\n{}]+|\\\\[^\\\0\n]+\\[^\0\n]+)")
"""A value that is one path: from the root, from a drive, from another machine's share."""
NAME = re.compile(r"(?:^|\.|_)name_or_path$")
"""Keys under which libraries keep where a network came from."""
_NEEDED = """peft_type task_type inference_mode peft_version r lora_alpha alpha target_modules exclude_modules rank_pattern
    alpha_pattern use_rslora use_dora bias lora_bias fan_in_fan_out modules_to_save layers_to_transform layers_pattern
    layer_replication target_parameters init_lora_weights init_weights lora_dropout rank_dropout module_dropout
    rank_dropout_scale use_effective_conv2d decompose_both decompose_factor oft_block_size coft eps block_share
    use_cayley_neumann num_cayley_neumann_terms boft_block_size boft_block_num boft_n_butterfly_factor boft_dropout
    vera_dropout projection_prng_key save_projection d_initial"""
NEEDED = frozenset(_NEEDED.split())
"""Fields of peft's configurations that say what the weights are. Not among them: where the base lay, its revision, classes of
the training's own program, files of calibration data."""
STARTS = ("loftq", "eva", "corda", "lora_ga")
"""Ways of `init_lora_weights` that ask for settings of their own, which only a training needs."""


def names_a_path(text: str) -> bool:
    """Whether an absolute path stands in a running text."""
    rest = FILE.sub(" /", OTHER.sub(" ", text))
    return bool(LONG.search(rest) or DRIVE.search(rest) or _familiar().search(rest))


def is_a_path(value: str) -> bool:
    """Whether a value is an absolute path as a whole, or names one."""
    return bool(WHOLE.fullmatch(OTHER.sub(" ", value))) or names_a_path(value)


@cache
def _familiar() -> re.Pattern[str]:
    """Paths below folders in which people keep their work, and below those of this machine."""
    here = [re.escape(name) for name in _roots() if not re.fullmatch(f"{SYSTEM}|{ROUTES}", name)]
    return re.compile(rf"{START}/(?:{'|'.join([WORK, *here])})/{PART}")


def _roots() -> list[str]:
    try:
        return sorted(path.name for path in Path(os.sep).iterdir() if path.name[0].isalnum())
    except OSError:
        return []


def strings_in(value: Any) -> Iterator[str]:
    """Every text of a JSON value: keys, values, and those of JSON that stands in a text."""
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            yield from strings_in(parsed(value))
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            yield from (str(key), *strings_in(inside))
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from strings_in(inside)


def parsed(text: str) -> Any:
    """What a JSON text says; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def says_a_path(value: Any) -> bool:
    """Whether any text of a JSON value is, or names, an absolute path."""
    return any(map(is_a_path, strings_in(value)))


def peft_entries(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a peft configuration that loading needs, without those that say a path."""
    found = {key: value for key, value in config.items() if key.rpartition(".")[2] in NEEDED and not says_a_path(value)}
    return {key: value for key, value in found.items() if not (_starts(key) and value in STARTS)}


def _starts(key: str) -> bool:
    return key.rpartition(".")[2] == "init_lora_weights"


def peft_header(text: str) -> str | None:
    """`lora_adapter_metadata` as it may be shared: `peft_entries` of each component; the same text where nothing is taken out.
    None where it is no JSON object."""
    told = parsed(text)
    if not isinstance(told, dict):
        return None
    clean = peft_entries(told)
    return text if clean == told else json.dumps(clean, sort_keys=True)
