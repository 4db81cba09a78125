"""What a base makes and takes, from its configuration alone. Imports no torch."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from adapt.backbones.registry import SOURCED, Family, family_of, known_pipelines
from adapt.medium import Medium

AUTOENCODERS = ("vae", "movq")


def frame_of(folder: Path) -> tuple[int, int] | None:
    """The side in pixels of the pictures that a base makes by default, and what sides are multiples of, from its configuration
    alone; None where that does not say it."""
    try:
        family = row_of(folder)
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
    row = row_of(folder)
    return row is not None and row.edits_too


def row_of(folder: Path) -> Family | None:
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
    (side, scale), row = frame_of(folder) or (0, 8), row_of(folder)
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
