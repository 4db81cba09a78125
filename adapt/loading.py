"""Where backbones are: the bundled one, local diffusers folders, the Hub. Finding imports no torch, loading does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.errors import BackboneError
from adapt.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch

    from adapt.backbones import Backbone
    from adapt.types import TokenCounter

BUNDLED = Path(__file__).parent / "bundled"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
KNOWN_PIPELINES = {"StableDiffusionPipeline"}


def bundled() -> dict[str, Path]:
    """Name → folder of the backbones that come with adapt; these names go before folders of the same name."""
    return {p.name: p for p in sorted(BUNDLED.iterdir()) if (p / "model_index.json").is_file()}


def find(reference: str) -> Path:
    """The local folder of a backbone; a Hub id is downloaded into the Hub's cache first.

    Raises:
        BackboneError: nothing usable is there.
    """
    path = bundled().get(reference, Path(reference))
    if path.suffix in PICKLES:
        raise BackboneError(
            f"{path.suffix} files can run code when opened and are never read",
            given=reference,
            allowed="a diffusers folder with safetensors weights",
            next="convert it with diffusers once",
        )
    if (path / "model_index.json").is_file():
        return path
    if path.exists():
        raise BackboneError(
            "no diffusers folder: model_index.json is missing",
            given=reference,
            next="give the folder that StableDiffusionPipeline.save_pretrained wrote",
        )
    if not HUB_ID.match(reference):
        raise BackboneError(
            "no such base",
            given=reference,
            allowed=f"{', '.join(bundled())}, a local diffusers folder, or a Hub id such as owner/name",
        )
    return _download(reference)


def _download(reference: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = ["*.json", "*.txt", "*.safetensors", "*.model", "README.md"]  # the card says the licence
    try:
        return Path(snapshot_download(reference, allow_patterns=patterns))
    except GatedRepoError as error:
        raise BackboneError(
            "this base asks you to accept its licence first",
            given=reference,
            next="accept it on its Hub page, then `hf auth login`",
        ) from error
    except RepositoryNotFoundError as error:
        raise BackboneError(
            "no such model on the Hub, or it is private",
            given=reference,
            next="check the name; for a private one: `hf auth login`",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise BackboneError(
            "the base is neither in the local cache nor reachable on the Hub",
            given=reference,
            next="connect once to download it, or give a local folder",
        ) from error


def read_index(folder: Path) -> dict[str, Any]:
    """The folder's `model_index.json`, its family known.

    Raises:
        BackboneError: not readable, or a pipeline that adapt does not know.
    """
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError("model_index.json cannot be read", given=folder) from error
    if index.get("_class_name") not in KNOWN_PIPELINES:
        raise BackboneError(
            "pipeline that adapt does not know yet",
            given=index.get("_class_name"),
            allowed=", ".join(sorted(KNOWN_PIPELINES)),
        )
    return index


def family_of(index: dict[str, Any]) -> str:
    """The family's name, from the pipeline's class and its components'."""
    return "icons" if index.get("text_encoder", [None, None])[1] == "BertModel" else "stable-diffusion"


def frame_of(folder: Path) -> tuple[int, int] | None:
    """The side in pixels of the pictures that a base makes by default, and its pixels a latent, from its configuration alone;
    None where that does not say it."""
    try:
        denoiser = next(path for name in ("unet", "transformer") if (path := folder / name / "config.json").is_file())
        sample = json.loads(denoiser.read_text("utf-8"))["sample_size"]
        blocks = json.loads((folder / "vae" / "config.json").read_text("utf-8"))["block_out_channels"]
        scale = 2 ** (len(blocks) - 1)
        return int(sample) * scale, scale
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def caption_counter(folder: Path) -> TokenCounter:
    """Caption → its tokens, and how many the text encoder reads. The tokenizer is loaded when it is first asked; without
    torch where the base has a `tokenizer.json`."""
    where = folder / "tokenizer"

    @cache
    def fast() -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(where / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cache
    def limit() -> int:
        return int(json.loads((where / "tokenizer_config.json").read_text("utf-8"))["model_max_length"])

    def count(caption: str) -> tuple[int, int]:
        return len(fast().encode(caption).ids), limit()

    return count if (where / "tokenizer.json").is_file() else _slow_counter(where)


def _slow_counter(where: Path) -> TokenCounter:
    """By transformers, for the older files of a tokenizer."""

    @cache
    def tokenizer() -> Any:
        with quiet_libraries():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(where, local_files_only=True)

    def count(caption: str) -> tuple[int, int]:
        words = tokenizer()(caption, truncation=False, verbose=False).input_ids
        return len(words), int(tokenizer().model_max_length)

    return count


def load(reference: str, *, dtype: torch.dtype, device: str | torch.device) -> Backbone:
    """See `Backbone.load`."""
    folder = find(reference)
    index = read_index(folder)
    from adapt.backbones import FAMILIES

    family = FAMILIES[family_of(index)]
    pipeline = load_pipeline(folder, index["_class_name"], dtype, family.full_precision)
    return family(pipeline.to(device), reference)


def load_pipeline(folder: Path, class_name: str, dtype: torch.dtype, full_precision: Sequence[str] = ()) -> Any:
    """The plain diffusers pipeline: safetensors only, no remote code, no network.

    Args:
        full_precision: components that are not held in less than float32.
    """
    os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "1")
    with quiet_libraries():
        import diffusers
        import torch

        wide = dict.fromkeys(full_precision, torch.promote_types(dtype, torch.float32))
        dtypes = {"default": dtype, **wide} if wide else dtype
        try:
            return getattr(diffusers, class_name).from_pretrained(
                folder, dtype=dtypes, use_safetensors=True, local_files_only=True,
                safety_checker=None, feature_extractor=None, requires_safety_checker=False,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise BackboneError(f"the base cannot be loaded: {reason}", given=folder) from error
