"""Which networks a file of weights holds, by its names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapt.checkpoints.header import Entry, header
from adapt.checkpoints.marks import Mark, mark_of, marked
from adapt.errors import BackboneError

DENOISERS = ("unet", "transformer")
PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""Of a denoiser's names, where a file has more than that or comes from ComfyUI."""
VAE = ("first_stage_model.", "vae.")
CLIP = (
    "cond_stage_model.",
    "conditioner.embedders.",
    "text_encoders.clip_l.",
    "text_encoders.clip_g.",
)
T5 = ("text_encoders.t5xxl.",)
OTHERS = (*VAE, *CLIP, *T5, "model_ema.", "text_encoders.", "control_model.")
ADAPTERS = (".lora_", ".lora.", "lora_unet_", "lora_transformer_", ".hada_", ".lokr_", ".oft_")


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        file: which.
        prefix: of the denoiser's names in the file.
        denoiser: its names, without the prefix.
        mark: the family that they are of; None: unknown.
        published: whether they are the names that it was published with, not diffusers'.
        vae, clip, t5: whether the file has these too.
    """

    file: Path
    prefix: str
    denoiser: Mapping[str, Entry]
    mark: Mark | None
    published: bool
    vae: bool
    clip: bool
    t5: bool

    @property
    def alone(self) -> bool:
        """Whether it holds a denoiser and nothing else: what people download of Flux or Wan."""
        return not (self.vae or self.clip or self.t5)

    def has(self, component: str, kind: str | None = None) -> bool:
        """Whether a component of a pipeline is read from this file.

        Args:
            component: diffusers' name of it.
            kind: its class.
        """
        if component in DENOISERS:
            return True
        if component == "vae":
            return self.vae
        return (self.clip and str(kind).startswith("CLIPText")) or (self.t5 and kind == "T5EncoderModel")

    def require_family(self, family: str, title: str) -> None:
        """Raises `BackboneError` where the names are another family's than the folder's."""
        if self.mark and mark_of(family) and family not in self.mark.families:
            raise BackboneError(
                f"the checkpoint does not fit the folder: its layers are {self.mark.title}'s, the folder's pipeline is {title}'s",
                given=self.file,
                next=f"--base {self.file.name}:FOLDER with a folder of {self.mark.title}",
            )


def contents_of(file: Path) -> Contents:
    """What a `.safetensors` or `.gguf` file holds.

    Raises:
        BackboneError: it cannot be read, is an adapter, or holds no denoiser.
    """
    names = header(file)
    if any(mark in name for name in names for mark in ADAPTERS):
        raise BackboneError(
            "an adapter's file, not a base's checkpoint", given=file, next=f"--adapter {file} with the base it is for"
        )
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in names)), "")
    own = [name for name in names if (name.startswith(prefix) if prefix else not name.startswith(OTHERS))]
    denoiser = {name.removeprefix(prefix): names[name] for name in own}
    found = marked(denoiser)
    if not denoiser or (found is None and _is_vae(denoiser)):
        raise BackboneError("the file holds no denoiser", given=file, allowed="a checkpoint, or a UNet or transformer")
    mark, published = found or (None, False)
    return Contents(
        file, prefix, denoiser, mark, published, vae=_any(names, VAE), clip=_any(names, CLIP), t5=_any(names, T5)
    )


def _any(names: Mapping[str, Entry], starts: tuple[str, ...]) -> bool:
    return any(name.startswith(starts) for name in names)


def _is_vae(names: Mapping[str, Entry]) -> bool:
    """An autoencoder's or a text encoder's file, which people have beside the denoiser's."""
    return all(
        name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "text_model.")) for name in names
    )
