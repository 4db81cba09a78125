"""What a base's folder says, and its networks loaded from it. Reading configurations imports no torch, loading does."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.backbones.registry import SOURCED, Family, family_of, known_pipelines
from adapt.checkpoints import header
from adapt.checkpoints.contents import DENOISERS
from adapt.checkpoints.packing import packing_of, require_packages
from adapt.errors import BackboneError
from adapt.medium import Medium
from adapt.quiet import quiet_libraries
from adapt.source import Source, bundled, composed, find, kept, source, variant_of
from adapt.whole import WEIGHTED, require_whole, unfit

if TYPE_CHECKING:
    import torch

    from adapt.backbones import Backbone
    from adapt.types import TokenCounter

__all__ = [
    "at_hand",
    "bundled",
    "caption_counter",
    "edits",
    "find",
    "frame_of",
    "held_in",
    "in_few_bits",
    "load",
    "load_pipeline",
    "medium_of",
    "own_precision",
    "plain",
    "read_index",
    "require",
    "told_of",
]
HALVES = {"KandinskyV22Pipeline": "its prior", "KandinskyV22PriorPipeline": "its decoder"}
"""Pipelines that are published apart and say nothing alone → what they lack."""
AUTOENCODERS = ("vae", "movq")


def at_hand(reference: str | None) -> str | None:
    """A base that is on this machine, whole, as what to load it by; None where it would have to be fetched, or is none."""
    if not reference:
        return None
    try:
        where = kept(reference)
        index_of(where)
    except (BackboneError, OSError):
        return None
    return composed(str(where.folder), variant=where.variant) if where.repository else reference


def require(reference: str) -> Path:
    """The folder with the configuration of a base that is there, whole and of a family that is known.

    Raises:
        BackboneError: it is not.
    """
    where = source(reference)
    index_of(where)
    return where.folder


def index_of(where: Source) -> dict[str, Any]:
    """The `model_index.json` of a base that is there, whole and of a family that is known.

    Raises:
        BackboneError: it is not.
    """
    contents = where.contents
    index = read_index(where.folder, weights=False)
    if contents and (family := family_of(index)):
        contents.require_family(family.name, family.title)
    require_whole(where, index)
    require_packages(where.folder, contents)
    return index


def read_index(folder: Path, *, weights: bool = True) -> dict[str, Any]:
    """The folder's `model_index.json`, its family known.

    Args:
        weights: whether the weights are in the folder too; those of a checkpoint in one file are not.

    Raises:
        BackboneError: not readable, or a pipeline that adapt does not know.
    """
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text("utf-8"))
        if not isinstance(index, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise BackboneError("model_index.json cannot be read", given=folder) from error
    if family_of(index) is None and (missing := HALVES.get(str(index.get("_class_name")))):
        raise BackboneError(
            f"the base is one half of a pipeline: {missing} is missing", given=folder,
            next="save both in one folder: docs/families.md, Bases in two parts",
        )  # fmt: skip
    if family_of(index) is None:
        raise BackboneError(
            "pipeline that adapt does not know yet",
            given=index.get("_class_name"),
            allowed=", ".join(sorted(known_pipelines())),
            next="adapt bases lists the families",
        )
    if weights:
        require_whole(Source(folder), index)
    return index


OWN = {"F32": "fp32", "F64": "fp32", "F16": "fp16", "BF16": "bf16"}
"""What most of a denoiser's numbers are, as files call it → `precision`; everything else is packed."""


def own_precision(where: Source) -> str:
    """What most of the denoiser's numbers are in its files: `fp32`, `fp16`, `bf16`; else as the files call it (`F8_E4M3`), or
    how it is held in few bits (`gguf`)."""
    packed = packing_of(where.folder, where.contents)
    if few := next((packed[name] for name in DENOISERS if name in packed), None):
        return few
    contents = where.contents
    files = [file for name in DENOISERS for file in where.weights(name)]
    entries = contents.denoiser.values() if contents else [e for file in files for e in header(file).values()]
    numbers: Counter[str] = Counter()
    for entry in entries:
        numbers[entry.dtype] += entry.numbers
    most = numbers.most_common(1)[0][0] if numbers else "F32"
    return OWN.get(most, most)


def held_in(where: Source, device: str) -> str:
    """What a base is held in when nothing is said: as its denoiser's weights are, `fp32`, `fp16` or `bf16`.

    CPUs compute poorly in float16: there it is float32. Weights in few bits are unpacked in every pass, to float32 on a CPU and
    bfloat16 elsewhere; those in 8-bit floats are widened to bfloat16.

    Args:
        device: `cpu`, `cuda:0` …
    """
    own, on_cpu = own_precision(where), device.partition(":")[0] == "cpu"
    if own in OWN.values():
        return "fp32" if own == "fp16" and on_cpu else own
    return "bf16" if own.startswith("F8") or not on_cpu else "fp32"


def told_of(own: str, held: str) -> str | None:
    """What is worth saying of `own_precision` and what a base is held in; None: nothing."""
    if own == held:
        return None
    known = own in OWN.values() or own.startswith("F8")
    return (
        f"weights in {own}, held in {held}" if known else f"weights packed as {own}, unpacked to {held} in every pass"
    )


def in_few_bits(reference: str) -> bool:
    """Whether the denoiser's files hold it in few bits."""
    where = source(reference)
    return not set(DENOISERS).isdisjoint(packing_of(where.folder, where.contents))


def frame_of(folder: Path) -> tuple[int, int] | None:
    """The side in pixels of the pictures that a base makes by default, and what sides are multiples of, from its configuration
    alone; None where that does not say it."""
    try:
        family = _row_of(folder)
        assert family is not None
        denoiser = next(path for name in ("unet", "transformer") if (path := folder / name / "config.json").is_file())
        config = json.loads(denoiser.read_text("utf-8"))
        sample: Any = family.sample_size or config.get("sample_size") or config["sample_height"]
        autoencoder = next((name for name in AUTOENCODERS if (folder / name).is_dir()), None)
        if autoencoder is None:  # in pixel space
            return int(max(sample) if isinstance(sample, list) else sample), _halvings(denoiser)
        scale = _scale_of(json.loads((folder / autoencoder / "config.json").read_text("utf-8")))
        return int(max(sample) if isinstance(sample, list) else sample) * scale, scale * family.patch
    except (OSError, ValueError, KeyError, TypeError, StopIteration, AssertionError):
        return None


def edits(folder: Path) -> bool:
    """Whether a base is given a picture beside the noise, from its configuration alone."""
    try:
        name = json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return known_pipelines().get(name) in SOURCED


def edits_too(folder: Path) -> bool:
    """Whether a plain base also edits the picture that it is given, if it is given one."""
    row = _row_of(folder)
    return row is not None and row.edits_too


def _row_of(folder: Path) -> Family | None:
    """The family of a folder, without a word about what is wrong with it."""
    try:
        return family_of(json.loads((folder / "model_index.json").read_text("utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _scale_of(vae: dict[str, Any]) -> int:
    """Pixels a latent, from the configuration of an autoencoder of diffusers."""
    if "spatio_temporal_scaling" in vae:
        return int(vae["patch_size"] * 2 ** sum(vae["spatio_temporal_scaling"]))
    if "temperal_downsample" in vae:  # spelt so
        return int(vae.get("scale_factor_spatial") or 2 ** len(vae["temperal_downsample"]))
    patch = max(vae.get("patch_size") or [1])  # Flux.2: places of the autoencoder that are one latent, along each side
    return int(patch * 2 ** (len(vae.get("encoder_block_out_channels") or vae["block_out_channels"]) - 1))


def _halvings(denoiser: Path) -> int:
    """What the sides of a UNet's pictures are multiples of."""
    return int(2 ** (len(json.loads(denoiser.read_text("utf-8"))["block_out_channels"]) - 1))


def medium_of(folder: Path) -> Medium:
    """What a base makes and takes, from its configuration alone; `side` is 0 where that does not say it."""
    (side, scale), row = frame_of(folder) or (0, 8), _row_of(folder)
    if row is None or row.medium == "picture":
        return Medium(side=side, scale=scale)
    vae = json.loads((folder / "vae" / "config.json").read_text("utf-8"))
    if row.medium == "sound":
        return _sound_of(folder, vae, scale)
    frame_scale = _frame_scale_of(vae)
    frames, fps = row.pace({"transformer": json.loads((folder / "transformer" / "config.json").read_text("utf-8"))})
    return Medium(row.medium, side=side, scale=scale, frames=frames, frame_scale=frame_scale, fps=fps)


def _sound_of(folder: Path, vae: dict[str, Any], scale: int) -> Medium:
    """What makes sounds, or spectrograms that a vocoder makes heard.

    Args:
        scale: frames of a spectrogram that are one latent.
    """
    if (folder / "vocoder").is_dir():
        vocoder = json.loads((folder / "vocoder" / "config.json").read_text("utf-8"))
        sample = json.loads((folder / "unet" / "config.json").read_text("utf-8"))["sample_size"]
        hop = prod(vocoder["upsample_rates"]) * scale
        return Medium("sound", 1, side=sample * hop, scale=hop, rate=vocoder["sampling_rate"])
    sample = json.loads((folder / "transformer" / "config.json").read_text("utf-8"))["sample_size"]
    hop = prod(vae["downsampling_ratios"])
    return Medium("sound", vae["audio_channels"], side=sample * hop, scale=hop, rate=vae["sampling_rate"])


def _frame_scale_of(vae: dict[str, Any]) -> int:
    """What frames after the first are a multiple of, from the configuration of a video's autoencoder."""
    if ratio := vae.get("temporal_compression_ratio"):
        by_twos = vae.get("_class_name") == "AutoencoderKLCogVideoX"
        return int(ratio) * (2 if by_twos else 1)
    halved = vae.get("temperal_downsample") or vae.get("spatio_temporal_scaling") or ()
    return int(vae.get("patch_size_t") or 1) * int(2 ** sum(halved))


def caption_counter(folder: Path) -> TokenCounter:
    """Caption → its tokens, and how many the text encoder reads. The tokenizer is loaded when it is first asked; without
    torch where the base has a `tokenizer.json`."""
    row = _row_of(folder)
    reader = row if row and (folder / row.tokenizer).is_dir() else None
    where = folder / (reader.tokenizer if reader else "tokenizer")
    most = reader.max_tokens if reader else None
    if not where.is_dir():
        return lambda caption: (1, 1)  # classes, or nothing

    @cache
    def fast() -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(where / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cache
    def limit() -> int:
        return most or int(json.loads((where / "tokenizer_config.json").read_text("utf-8"))["model_max_length"])

    def count(caption: str) -> tuple[int, int]:
        return len(fast().encode(caption).ids), limit()

    return count if (where / "tokenizer.json").is_file() else _slow_counter(where, most)


def _slow_counter(where: Path, most: int | None = None) -> TokenCounter:
    """By transformers, for the older files of a tokenizer; by the pipeline's own class, where it brings one (Kolors)."""

    @cache
    def tokenizer() -> Any:
        library, name = json.loads((where.parent / "model_index.json").read_text("utf-8"))[where.name]
        with quiet_libraries():
            import transformers
            from diffusers import pipelines

            brought = getattr(getattr(pipelines, library, None), name, None)
            return (brought or transformers.AutoTokenizer).from_pretrained(where, local_files_only=True)

    def count(caption: str) -> tuple[int, int]:
        words = tokenizer()(caption, truncation=False, verbose=False).input_ids
        return len(words), most or int(tokenizer().model_max_length)

    return count


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


def _absent(folder: Path) -> list[str]:
    """Components that the base was saved without (Stable Diffusion 3 without T5)."""
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
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
            row = _row_of(where.folder)
            none = {} if row is None else dict(row.load().made(where.folder))
            none |= {name: None for name in (*LEFT_OUT, *without, *_absent(where.folder)) if name in takes}
            if "requires_safety_checker" in takes:
                none["requires_safety_checker"] = False
            texts = _readers_of_text(where.folder)
            parts = {**dict.fromkeys(texts), **_from_checkpoint(where, dtype, wide, none)}
            parts |= _encoders(where, dtype, wide, {*none, *parts})
            _require_named(where.folder, takes, {*none, *parts})
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


def _require_named(folder: Path, takes: Mapping[str, inspect.Parameter], there: Collection[str]) -> None:
    """Raises `BackboneError` for a `model_index.json` that does not name what its pipeline is made of."""
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    needed = [
        name for name, p in takes.items() if p.default is p.empty and name != "self" and p.kind is not p.VAR_KEYWORD
    ]
    if lacking := [name for name in needed if name not in index and name not in there]:
        raise BackboneError(
            "model_index.json does not name a part of its pipeline", given=f"{folder}: {', '.join(lacking)}"
        )


def _encoders(
    where: Source, dtype: torch.dtype, wide: Mapping[str, torch.dtype], without: Collection[str]
) -> dict[str, Any]:
    """Text encoders of transformers by component: what it finds no weights for, it makes up, and says so in a warning alone.

    Args:
        without: components that are not wanted, or there already.

    Raises:
        BackboneError: layers without weights.
    """
    import transformers

    found = {}
    index = json.loads((where.folder / "model_index.json").read_text("utf-8"))
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


def _readers_of_text(folder: Path) -> dict[str, Any]:
    """The tokenizers inside of processors of texts and pictures, by component: these need torchvision, and read a text as their
    tokenizer does (Flux.2 dev)."""
    from transformers import AutoTokenizer

    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    kinds = {name: str(entry[1]) for name, entry in index.items() if name.startswith("tokenizer")}
    names = [name for name, kind in kinds.items() if kind.endswith("Processor")]
    return {name: AutoTokenizer.from_pretrained(folder / name, local_files_only=True) for name in names}


def _from_checkpoint(
    where: Source, dtype: torch.dtype, wide: Mapping[str, torch.dtype], none: Mapping[str, Any]
) -> dict[str, Any]:
    """The networks that the one file has, by component; none where there is no such file.

    Raises:
        BackboneError: they do not fit the folder's configurations.
    """
    if (contents := where.contents) is None:
        return {}
    from adapt.checkpoints.network import Reader
    from adapt.checkpoints.values import values_of

    index = json.loads((where.folder / "model_index.json").read_text("utf-8"))
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
