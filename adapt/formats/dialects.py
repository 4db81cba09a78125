"""All dialects in one table: which keys are whose, how they are read and written. A file is told by its keys alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import files
from adapt.errors import AdapterError
from adapt.formats import bfl, comfy, dotted, kohya, omi, underscored, xlabs
from adapt.formats.diffusers_lora import KEY as DIFFUSERS
from adapt.formats.diffusers_lora import lora_weights
from adapt.formats.embeddings import is_bundled
from adapt.formats.experts import of_both, placed, together
from adapt.formats.header import hashed
from adapt.formats.keys import grouped, layer_from, split_key
from adapt.formats.layer import Layer
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family, family_of
from adapt.formats.opening import open_tensors, read_header, require_floats
from adapt.formats.peft_folder import is_key as is_peft_key
from adapt.formats.peft_folder import read_peft
from adapt.formats.placing import Place, read_placed

if TYPE_CHECKING:
    from torch import Tensor

Placer = Callable[[Iterable[str]], Callable[[str], "Place | None"]]
Reader = Callable[[Path, "Mapping[str, Tensor]", "Mapping[str, str]"], LoraWeights]
Writer = Callable[[LoraWeights, Family], "dict[str, Tensor]"]


@dataclass(frozen=True)
class Dialect:
    """Attributes:
    name: in `--format`, where it is written.
    title: whose it is, for people.
    claims: whether a key is one of its own.
    read: tensors and header → weights.
    write: weights → tensors; None: diffusers, peft and kohya have writers of their own, and older dialects are only read.
    """

    name: str
    title: str
    claims: Callable[[str], object]
    read: Reader
    write: Writer | None = None


def _placed(placer: Placer) -> Reader:
    return lambda path, tensors, metadata: read_placed(path, tensors, metadata, placer(tensors))


def _read_folder(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> LoraWeights:
    return read_peft(path)


def _bare(key: str) -> bool:
    return dotted.BARE.match(key) is not None and DIFFUSERS.match(f"unet.{key}") is not None


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("diffusers", "diffusers", DIFFUSERS.match, lora_weights),
        Dialect("peft", "peft's folder", is_peft_key, _read_folder),
        Dialect("kohya", "kohya-ss/sd-scripts", kohya.KEY.match, kohya.kohya_weights),
        Dialect("xlabs", "XLabs", xlabs.KEY.match, _placed(xlabs.placer), xlabs.said),
        Dialect("comfyui", "ComfyUI", comfy.KEY.match, _placed(comfy.placer), comfy.said),
        Dialect("bfl", "Black Forest Labs", bfl.KEY.match, _placed(bfl.placer), bfl.said),
        Dialect("omi", "OneTrainer (OMI)", omi.KEY.match, _placed(omi.placer), omi.said),
        Dialect(
            "onetrainer",
            "OneTrainer, older",
            underscored.ONETRAINER.match,
            _placed(underscored.placer),
            underscored.said_by_onetrainer,
        ),
        Dialect(
            "simpletuner",
            "SimpleTuner (LyCORIS)",
            underscored.LYCORIS.match,
            _placed(underscored.placer),
            underscored.said_by_lycoris,
        ),
        Dialect("single-model", "a single model of diffusers", _bare, dotted.read_bare),
        Dialect("dotted", "diffusers' layers, other tensors", dotted.KEY.match, _placed(dotted.placer)),
        Dialect("older-diffusers", "diffusers before 0.20", dotted.BARE.match, _placed(dotted.placer)),
    )
}
AI_TOOLKIT = Dialect("ai-toolkit", "ai-toolkit", DIFFUSERS.match, lora_weights, dotted.said_by_ai_toolkit)
"""Read as diffusers' is: the same names, without a header that says alpha."""
WRITTEN: Mapping[str, Dialect] = {d.name: d for d in (*DIALECTS.values(), AI_TOOLKIT) if d.write is not None}


def dialect_of(names: Iterable[str], path: Path) -> Dialect:
    """The dialect whose keys these all are.

    Raises:
        AdapterError: none: a file of several dialects, of something that is no adapter, or empty.
    """
    names = [name for name in names if not is_bundled(name)]
    if not names:
        raise AdapterError("the adapter holds no LoRA", given=path)
    if found := next((d for d in DIALECTS.values() if all(d.claims(name) for name in names)), None):
        return found
    _refuse_others(names, path)
    owners = {name: next((d for d in DIALECTS.values() if d.claims(name)), None) for name in names}
    if stranger := next((name for name, owner in owners.items() if owner is None), None):
        allowed = ", ".join(d.title for d in DIALECTS.values())
        raise AdapterError("the file holds a key that is no adapter's", given=f"{stranger} in {path}", allowed=allowed)
    titles = dict.fromkeys(owner.title for owner in owners.values() if owner)
    raise AdapterError("the file mixes dialects", given=f"{' and '.join(titles)} in {path}", next="use a file of one")


def _refuse_others(names: list[str], path: Path) -> None:
    """What is taken by another door says so."""
    if all(name.startswith(("image_proj.", "ip_adapter.")) for name in names):
        raise AdapterError("the file is an IP-Adapter, no LoRA", given=path,
                           next="adapt generate --ip-adapter FILE --image-prompt PICTURE")  # fmt: skip
    if len(names) <= 2 and not any(split_key(name) for name in names):
        raise AdapterError(
            "the file is a textual inversion (new words), no LoRA", given=path, next="adapt convert-embedding"
        )


def read(path: Path) -> LoraWeights:
    """Reads and judges an adapter file of any dialect; of an adapter of two experts in its folder, both.

    Raises:
        AdapterError: not there, damaged, of no one dialect, and what the dialects refuse.
    """
    return together([_read(each) for each in of_both(path)])


def _read(path: Path) -> LoraWeights:
    header = read_header(path)
    dialect = dialect_of(header.entries, path)
    require_floats(path, header)
    if dialect.name == "peft":
        return read_peft(path)
    tensors, metadata = open_tensors(path)
    own = {name: tensor for name, tensor in tensors.items() if not is_bundled(name)}
    return placed(path, dialect.read(path, own, metadata))


def write(
    path: Path,
    weights: LoraWeights,
    dialect: Dialect,
    metadata: Mapping[str, str],
    family: Family | None = None,
    describe: Callable[[Mapping[str, Layer]], Mapping[str, str]] | None = None,
) -> LoraWeights:
    """Writes atomically in a dialect that has no writer of its own; equal weights give equal bytes.

    Args:
        describe: makes further entries of the header from the layers as the file has them; digests then stand there too.

    Returns:
        What a reader finds in it.

    Raises:
        AdapterError: what the dialect cannot express.
    """
    assert dialect.write is not None, "a dialect with a writer of its own"
    tensors = dialect.write(weights, family or family_of(weights.modules))
    path.parent.mkdir(parents=True, exist_ok=True)
    if describe is None:
        files.write(path, files.safetensors_bytes(tensors, metadata))
    else:
        layers = {name: layer_from(path, name, parts) for name, parts in grouped(path, tensors).items()}
        files.write(path, hashed(files.safetensors_bytes(tensors, {}), {**metadata, **describe(layers)}))
    return dialect.read(path, tensors, {})
