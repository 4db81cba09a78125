"""What the header of a shared weights file may say: entries that other programs read, and nothing private.

Known by name, as a list of what is kept: trainers write folders, captions, host names and whole configurations there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath, PureWindowsPath

from adapt.formats.private import peft_header, says_a_path

HEADER = "lora_adapter_metadata"
_KEPT = """format ot_branch adapt.component adapt.token sshs_model_hash sshs_legacy_hash
    ss_v2 ss_base_model_version ss_network_module ss_network_dim ss_network_alpha ss_network_args ss_output_name ss_sd_model_name
    ss_sd_model_hash ss_new_sd_model_hash ss_num_train_images ss_num_reg_images ss_num_epochs ss_num_batches_per_epoch
    ss_max_train_steps ss_steps ss_epoch ss_batch_size_per_device ss_learning_rate ss_unet_lr ss_text_encoder_lr ss_optimizer
    ss_lr_scheduler ss_seed ss_resolution ss_clip_skip ss_mixed_precision ss_noise_offset ss_min_snr_gamma ss_zero_terminal_snr
    ss_tag_frequency
    modelspec.sai_model_spec modelspec.architecture modelspec.implementation modelspec.title modelspec.resolution
    modelspec.description modelspec.author modelspec.date modelspec.hash_sha256 modelspec.implementation_version modelspec.license
    modelspec.usage_hint modelspec.thumbnail modelspec.tags modelspec.merged_from modelspec.trigger_phrase
    modelspec.prediction_type modelspec.timestep_range modelspec.encoder_layer modelspec.is_negative_embedding
    modelspec.unet_dtype modelspec.vae_dtype"""
KEPT = frozenset(_KEPT.split())
"""Entries that say what the weights are and how they were made. `ss_dataset_dirs`, `ss_datasets`, `ss_bucket_info`,
`ss_training_comment`, `ss_session_id`, dates and the like are not among them."""
CARRIED = tuple(
    f"modelspec.{name}"
    for name in ("author", "description", "license", "tags", "title", "trigger_phrase", "usage_hint")
)
OWN_TAGS = "adapt"
"""The one data set under which `ss_tag_frequency` counts the trigger; other trainers' hold folders and captions."""
PATH = re.compile(r"[\\/]")


def kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries that may be shared; of a base's path only its name, of tags only our own trigger, of peft's configuration what
    loading needs. One that says a path is not among them."""
    found = {key: value for key, value in metadata.items() if key in KEPT}
    if name := found.get("ss_sd_model_name"):
        found["ss_sd_model_name"] = _last(name)
    found = {key: value for key, value in found.items() if not says_a_path(value)}
    if "ss_tag_frequency" in found and not _is_own(found["ss_tag_frequency"]):
        del found["ss_tag_frequency"]
    if config := peft_header(metadata.get(HEADER, "")):
        found[HEADER] = config
    return found


def carried(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries that stay true when an adapter is saved again, in whatever dialect: who made it and what it is called.
    Digests, ranks and how it was made belong to the file that they stood in."""
    return {key: metadata[key] for key in CARRIED if key in metadata and not says_a_path(metadata[key])}


def _last(name: str) -> str:
    """The last part of a path of any system. A Hub id has one slash and stays."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return name
    return PureWindowsPath(PurePath(name).name).name if PATH.search(name) else name


def _is_own(text: str) -> bool:
    try:
        return set(json.loads(text)) == {OWN_TAGS}
    except (ValueError, TypeError):
        return False


def read_metadata(path: Path) -> dict[str, str]:
    """The header's entries of a checked safetensors file, without opening its tensors."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}


def hashed(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The safetensors file with this metadata and the digests of its tensor bytes that UIs look files up by.

    `sshs_model_hash` is sha256 of what follows the header (its first 12 digits are AutoV3), `modelspec.hash_sha256` the same
    behind `0x`.
    """
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    return with_metadata(content, {**metadata, "sshs_model_hash": digest, "modelspec.hash_sha256": f"0x{digest}"})


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same tensors under another header."""
    length = int.from_bytes(content[:8], "little")
    return header_bytes(content[8 : 8 + length], metadata) + content[8 + length :]


def header_bytes(header: bytes, metadata: Mapping[str, str]) -> bytes:
    """Length and header of a safetensors file with other metadata, sorted, padded to eight bytes."""
    entries = json.loads(header)
    entries["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
