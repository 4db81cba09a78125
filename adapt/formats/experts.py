"""Adapters of bases with two experts (Wan 2.2 14B): two LoRAs, and in every program's format a file for each.

diffusers' loader puts a file's `transformer.` keys into `transformer`, or into `transformer_2` where it is told to
(`load_into_transformer_2`); both files of an adapter have the same keys then, and only their places tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapt.formats.diffusers_lora import FILE_NAME, write_lora
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.wan import WAN

FIRST, SECOND = "transformer", "transformer_2"
LOW_NAME = "low_noise.safetensors"
LOW_FILE = f"{SECOND}/{LOW_NAME}"
"""Of the second expert, in an adapter's folder. Its name is not the first one's: where no file is named, diffusers looks for that
one in every folder."""
NAMES: Mapping[str, str] = {FIRST: "high_noise", SECOND: "low_noise"}
"""What the field calls the two files."""
_LOW = re.compile(r"(?i)(?:^|[-_. ])low[-_ ]?noise(?:[-_. ]|$)")


def parts_of(weights: LoraWeights) -> dict[str, LoraWeights]:
    """Component → what its file holds: the second expert's layers as if they were the first's. One entry for all that a single
    file holds, by its denoiser's name."""
    if SECOND not in weights.modules:
        return {FIRST: weights}
    rest = {name: layers for name, layers in weights.modules.items() if name != SECOND}
    low = replace(weights, modules={FIRST: weights.modules[SECOND]})
    return {**({FIRST: replace(weights, modules=rest)} if rest else {}), SECOND: low}


def write_folder(
    folder: Path,
    weights: LoraWeights,
    configs: Mapping[str, Mapping[str, Any]],
    describe: Callable[[LoraWeights], Mapping[str, str]] | None = None,
) -> None:
    """diffusers' file, or the two of an adapter of two experts, into an adapter's folder; see `write_lora`.

    Args:
        describe: what a file of these weights says about itself; None: what the adapter brings.
    """
    for component, part in parts_of(weights).items():
        own = {**configs, FIRST: configs.get(component, {})} if component == SECOND else configs
        path = folder / (LOW_FILE if component == SECOND else FILE_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lora(path, part, own, describe(part) if describe else None)


def files_of(path: Path, weights: LoraWeights) -> dict[Path, LoraWeights]:
    """File → what goes into it, when an adapter should be written to `path`: of two experts each has a file, named after it
    (`style_low_noise.safetensors`)."""
    several = SECOND in weights.modules
    parts = parts_of(weights).items()
    return {path.with_stem(f"{path.stem}_{NAMES[name]}") if several else path: part for name, part in parts}


def as_first(weights: LoraWeights) -> LoraWeights:
    """As a file has it, whoever's it is."""
    return replace(weights, modules={FIRST: weights.modules[SECOND]}) if set(weights.modules) == {SECOND} else weights


def of_both(path: Path) -> list[Path]:
    """The files of an adapter of two experts in its folder, by one of them; of others, the file itself."""
    folder = path.parent.parent if is_second(path) else path.parent
    both = [folder / FILE_NAME, folder / LOW_FILE]
    return [file for file in both if file.is_file()] if path in both else [path]


def is_second(path: Path) -> bool:
    """Whether a file is the second expert's in an adapter's folder."""
    return path.parts[-2:] == (SECOND, LOW_NAME)


def placed(path: Path, weights: LoraWeights) -> LoraWeights:
    """What was read from a file, with the second expert's layers where they belong: a file of a Wan model says by its name whose
    it is (`low_noise`), and by nothing else."""
    if set(weights.modules) != {FIRST} or not _LOW.search(path.stem) or not is_wan(weights):
        return weights
    return replace(weights, modules={SECOND: weights.modules[FIRST]})


def together(read: list[LoraWeights]) -> LoraWeights:
    """All files of an adapter as one."""
    modules = {component: layers for weights in read for component, layers in weights.modules.items()}
    return LoraWeights(modules, read[0].metadata)


def is_wan(weights: LoraWeights) -> bool:
    """Whether all layers have names of Wan's."""
    layers = (name for part in weights.modules.values() for name in part)
    return all(WAN.of_module(name) for name in layers)
