"""Networks loaded from the files of a base: safetensors only, no remote code, no network."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.backbones.registry import family_of
from adapt.checkpoints import header
from adapt.checkpoints.contents import DENOISERS
from adapt.checkpoints.packing import packing_of
from adapt.errors import BackboneError
from adapt.loading.index import index_of, read_index
from adapt.quiet import quiet_libraries
from adapt.source import Source, source, variant_of
from adapt.whole import WEIGHTED, unfit

if TYPE_CHECKING:
    import torch

    from adapt.backbones import Backbone


def load(reference: str, *, dtype: torch.dtype, device: str | torch.device, without: Sequence[str] = ()) -> Backbone:
    """See `Backbone.load`."""
    where = source(reference)
    folder, index = where.folder, index_of(where)
    row = family_of(index)
    assert row is not None, "read_index has looked"
    family = row.load()
    pipeline = load_pipeline(where, index["_class_name"], dtype, family.full_precision, without)
    left_out = folder / family.denoiser_name / "config.json"
    config = json.loads(left_out.read_text("utf-8")) if family.denoiser_name in without else None
    _require_values(pipeline, where)
    return family(pipeline.to(device), reference, config)


def plain(backbone: Backbone) -> Any:
    """The diffusers pipeline of the same base, loaded anew in its dtype on its device: what proofs compare with."""
    where = source(backbone.reference)
    return load_pipeline(where, backbone.pipeline_class, backbone.dtype).to(backbone.device)


def _require_values(pipeline: Any, where: Source) -> None:
    """Raises `BackboneError` for networks with layers that the files have no weights for, and for denoisers with weights that
    have no layer: libraries only warn of it."""
    for name, part in pipeline.components.items():
        if hasattr(part, "named_parameters") and (empty := [n for n, p in part.named_parameters() if p.is_meta]):
            raise unfit(name, f"{len(empty)} tensors are missing", f"{where.folder}, {empty[0]} first")
    packed = packing_of(where.folder, where.contents)
    for name in DENOISERS:
        network, files = getattr(pipeline, name, None), where.weights(name)
        if network is None or not files or name in packed:
            continue
        there = sum(entry.numbers for file in files for entry in header(file).values())
        wanted = sum(value.numel() for value in network.state_dict().values())
        if there - wanted > SPARE:
            raise unfit(name, f"its files hold {there - wanted} numbers more", where.folder)


SPARE = 4096
"""Numbers that files may have beside their network's: positions, marks of programs."""


LEFT_OUT = ("safety_checker", "feature_extractor", "prior_image_processor")
"""Components that nothing here needs; their weights are not loaded."""


def _absent(index: Mapping[str, Any]) -> list[str]:
    """Components that the base was saved without (Stable Diffusion 3 without T5)."""
    return [name for name, entry in index.items() if entry == [None, None]]


def load_pipeline(
    where: Source, class_name: str, dtype: torch.dtype, full_precision: Sequence[str] = (), without: Sequence[str] = ()
) -> Any:
    """The plain diffusers pipeline: safetensors only, no remote code, no network.

    Args:
        full_precision: components that are not held in less than float32.
        without: components that are not loaded.

    Raises:
        BackboneError: the files do not fit together, or are not whole.
    """
    os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "1")
    with quiet_libraries():
        import diffusers
        import torch

        from adapt.backbones.packed import recast

        wide = dict.fromkeys(full_precision, torch.promote_types(dtype, torch.float32))
        dtypes = {"default": dtype, **wide} if wide else dtype
        try:
            kind = getattr(diffusers, class_name)
            takes = inspect.signature(kind.__init__).parameters
            index = read_index(where.folder, weights=False)
            row = family_of(index)
            assert row is not None, "read_index has looked"
            none = dict(row.load().made(where.folder))
            none |= {name: None for name in (*LEFT_OUT, *without, *_absent(index)) if name in takes}
            if "requires_safety_checker" in takes:
                none["requires_safety_checker"] = False
            texts = _readers_of_text(where.folder, index)
            parts = {**dict.fromkeys(texts), **_from_checkpoint(where, index, dtype, wide, none)}
            parts |= _encoders(where, index, dtype, wide, {*none, *parts})
            _require_named(where.folder, index, takes, {*none, *parts})
            pipeline = kind.from_pretrained(
                where.folder, dtype=dtypes, use_safetensors=True, local_files_only=True, variant=where.variant,
                **none, **parts,
            )  # fmt: skip
            pipeline.register_modules(**texts)
            for name, network in pipeline.components.items():
                if isinstance(network, torch.nn.Module):
                    recast(network, wide.get(name, dtype))
            return pipeline
        except (OSError, ValueError, RuntimeError, ImportError) as error:  # ImportError: a scheduler's package
            reason = str(error).strip().splitlines()[0].partition(". If you want to instead")[0]
            raise BackboneError(f"the base cannot be loaded: {reason}", given=where.folder) from error


def _require_named(
    folder: Path, index: Mapping[str, Any], takes: Mapping[str, inspect.Parameter], there: Collection[str]
) -> None:
    """Raises `BackboneError` for a `model_index.json` that does not name what its pipeline is made of."""
    needed = [
        name for name, p in takes.items() if p.default is p.empty and name != "self" and p.kind is not p.VAR_KEYWORD
    ]
    if lacking := [name for name in needed if name not in index and name not in there]:
        raise BackboneError(
            "model_index.json does not name a part of its pipeline", given=f"{folder}: {', '.join(lacking)}"
        )


def _encoders(
    where: Source,
    index: Mapping[str, Any],
    dtype: torch.dtype,
    wide: Mapping[str, torch.dtype],
    without: Collection[str],
) -> dict[str, Any]:
    """Text encoders of transformers by component: what it finds no weights for, it makes up, and says so in a warning alone.

    Args:
        without: components that are not wanted, or there already.

    Raises:
        BackboneError: layers without weights.
    """
    import transformers

    found = {}
    for name in (name for name in WEIGHTED if name.startswith("text_encoder") and name not in without):
        library, kind = index.get(name) or ("", "")
        if library != "transformers":
            continue
        variant = where.variant if any(variant_of(file.name) == where.variant for file in where.weights(name)) else None
        found[name], told = getattr(transformers, kind).from_pretrained(
            where.folder / name, dtype=wide.get(name, dtype), use_safetensors=True, local_files_only=True,
            variant=variant, output_loading_info=True,
        )  # fmt: skip
        if missing := sorted(told["missing_keys"]):
            raise unfit(name, f"{len(missing)} tensors are missing", f"{where.folder}, {missing[0]} first")
        if more := _further_layers(found[name], told["unexpected_keys"]):
            raise unfit(name, f"{len(more)} tensors have no layer", f"{where.folder}, {more[0]} first")
    return found


def _further_layers(encoder: Any, names: Collection[str]) -> list[str]:
    """Of names that an encoder has no place for, those of layers like its own with other numbers. (A decoder's, or those of
    what looks at pictures, are left out as they should be.)"""
    own = {re.sub(r"\d+", "#", name) for name in encoder.state_dict()}
    alike = {name: re.sub(r"\d+", "#", name) for name in names}
    return sorted(name for name, kind in alike.items() if kind in own or kind.partition(".")[2] in own)


def _readers_of_text(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizers inside of processors of texts and pictures, by component: these need torchvision, and read a text as their
    tokenizer does (Flux.2 dev)."""
    from transformers import AutoTokenizer

    kinds = {name: str(entry[1]) for name, entry in index.items() if name.startswith("tokenizer")}
    names = [name for name, kind in kinds.items() if kind.endswith("Processor")]
    return {name: AutoTokenizer.from_pretrained(folder / name, local_files_only=True) for name in names}


def _from_checkpoint(
    where: Source,
    index: Mapping[str, Any],
    dtype: torch.dtype,
    wide: Mapping[str, torch.dtype],
    none: Mapping[str, Any],
) -> dict[str, Any]:
    """The networks that the one file has, by component; none where there is no such file.

    Raises:
        BackboneError: they do not fit the folder's configurations.
    """
    if (contents := where.contents) is None:
        return {}
    from adapt.checkpoints.network import Reader
    from adapt.checkpoints.values import values_of

    entries = {name: index[name] for name in WEIGHTED if isinstance(index.get(name), list) and index[name][1]}
    entries = {name: entry for name, entry in entries.items() if name not in none and contents.has(name, entry[1])}
    if not entries:
        return {}
    reader = Reader(contents, values_of(contents.file, dtype), where.folder)
    return {
        name: reader.encoder(name, library, kind, wide.get(name, dtype))
        if name.startswith("text_encoder")
        else reader.network(name, kind, wide.get(name, dtype))
        for name, (library, kind) in entries.items()
    }
