"""Published IP-Adapters: cross-attention of its own to a reference picture (Ye et al. 2023, arXiv 2308.06721)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image
from torch import Tensor

from adapt.backbones.beside import Beside, Told, rows_of
from adapt.backbones.unet_sides import with_states
from adapt.errors import AdapterError
from adapt.fetch.network import ip_adapter_file
from adapt.formats.opening import check_file
from adapt.quiet import quiet_libraries
from conditioning import Part

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone

ENCODERS = ("image_encoder", "../models/image_encoder", "../image_encoder")
"""Where the picture's encoder lies, from the folder of the weights: the first that fits is taken."""
HALVES = ("image_proj", "ip_adapter")
Weights = Mapping[str, Mapping[str, Tensor]]
"""`image_proj` and `ip_adapter`, each name → tensor."""


class IPAdapter(Beside):
    """A published IP-Adapter of Stable Diffusion 1.x or XL, in the layout that diffusers reads: plain, plus, or full face.

    Args:
        weights: both halves.
        encoder: CLIP's vision model that it was made for.
        scale: how strongly the picture is attended to; 1 as trained.
    """

    name = "image"

    def __init__(self, weights: Weights, encoder: Any, scale: float = 1.0) -> None:
        self.weights, self.encoder, self.scale = weights, encoder.requires_grad_(False).eval(), scale
        self._kept: dict[str, Any] = {}
        self._null: Tensor | None = None

    @staticmethod
    def load(file: str | Path, *, scale: float = 1.0, image_encoder: str | Path | None = None) -> IPAdapter:
        """`ip-adapter_….safetensors` here, or `owner/name/folder/file.safetensors` on the Hub.

        Args:
            scale: ≥ 0.
            image_encoder: folder of its CLIP vision model; None: as repositories of IP-Adapters have it, `image_encoder/`
                beside the weights or below `models/`.

        Raises:
            AdapterError: no IP-Adapter, one that needs more than a picture, or without an encoder that fits.
        """
        path = ip_adapter_file(file)
        check_file(path)
        weights = _read(path)
        width = _width(weights["image_proj"], path)
        places = [Path(image_encoder)] if image_encoder else [path.parent / name for name in ENCODERS]
        return IPAdapter(weights, _encoder(places, width, path), scale)

    @property
    def looks_at_all(self) -> bool:
        """Whether every place of the picture is told (plus), not its summary alone."""
        return "proj.weight" not in self.weights["image_proj"]

    def look(self, backbone: Backbone, picture: Image, pixels: Tensor) -> Tensor:
        """CLIP's summary (D,), or its states before the last layer (L, D)."""
        told, _ = backbone.pipeline.encode_image(picture, backbone.device, 1, self.looks_at_all)
        found: Tensor = told[0]
        return found

    def encode(self, raw: Sequence[tuple[Tensor, float] | None]) -> Part:
        assert self._null is not None, "it is on a base"
        states, _ = rows_of(raw, self._null)
        return {"states": states[:, None]}  # (B, 1 picture, …)

    def null(self, rows: int) -> Part:
        """Of a summary zeros; of states those of a grey picture, as diffusers has it."""
        assert self._null is not None, "it is on a base"
        return {"states": self._null[None, None].expand(rows, 1, *self._null.shape)}

    def passed_on(self, part: Part, arguments: tuple[Any, ...], named: dict[str, Any]) -> Told:
        return with_states(part, arguments, named)

    @torch.no_grad()
    def put_on(self, backbone: Backbone) -> None:
        pipeline = backbone.pipeline
        if backbone.denoiser_name != "unet" or not hasattr(pipeline, "load_ip_adapter"):
            raise AdapterError("IP-Adapters are put on UNets of Stable Diffusion", given=backbone.reference)
        backbone.remember()
        unet: Any = backbone.modules["unet"]
        self._kept = {"processors": dict(unet.attn_processors), "projection": unet.encoder_hid_proj,
                      "kind": unet.config.encoder_hid_dim_type, "extractor": pipeline.feature_extractor}  # fmt: skip
        try:
            with quiet_libraries():
                pipeline.register_modules(image_encoder=self.encoder.to(backbone.device, backbone.dtype))
                pipeline.load_ip_adapter(dict(self.weights), subfolder="", weight_name="", image_encoder_folder=None)
                pipeline.set_ip_adapter_scale(self.scale)
        except (KeyError, RuntimeError, ValueError) as error:
            self.take_off(backbone)
            reason = str(error).strip().splitlines()[0]
            raise AdapterError(f"the IP-Adapter was made for another base: {reason}", given=backbone.reference,
                               next="--base of the family that it is for") from error  # fmt: skip
        unet.requires_grad_(False).eval()
        side = self.encoder.config.image_size
        grey = torch.zeros(1, 3, side, side, device=backbone.device, dtype=backbone.dtype)
        self._null = pipeline.encode_image(grey, backbone.device, 1, self.looks_at_all)[1][0]

    def take_off(self, backbone: Backbone) -> None:
        """The base as it was: the very same attention and no trace in its configuration."""
        unet, pipeline = backbone.modules["unet"], backbone.pipeline
        unet.encoder_hid_proj = self._kept[
            "projection"
        ]  # first: a resampler has attention too, which is no longer counted
        unet.set_attn_processor(self._kept["processors"])  # type: ignore[operator]
        unet.config.encoder_hid_dim_type = self._kept["kind"]  # type: ignore[union-attr]
        pipeline.register_modules(image_encoder=None, feature_extractor=self._kept["extractor"])
        self._kept = {}


def _read(path: Path) -> dict[str, dict[str, Tensor]]:
    from safetensors.torch import load_file

    halves: dict[str, dict[str, Tensor]] = {half: {} for half in HALVES}
    for key, tensor in load_file(path).items():
        half, _, name = key.partition(".")
        if half not in halves:
            raise AdapterError("this is no IP-Adapter", given=f"{path}: {key}", allowed="image_proj.… and ip_adapter.…")
        halves[half][name] = tensor
    if not all(halves.values()):
        raise AdapterError("this is no IP-Adapter", given=path, allowed="image_proj.… and ip_adapter.…")
    return halves


READ_BY = {"proj.weight": "proj.weight", "proj.3.weight": "proj.0.weight", "proj_in.weight": "proj_in.weight"}
"""What tells a kind of projector (plain, full face, plus) → its weight that takes the states."""


def _width(projection: Mapping[str, Tensor], path: Path) -> int:
    """Numbers a state that the projector takes.

    Raises:
        AdapterError: another kind, as those of faces' identities, whose states come from a face recogniser.
    """
    told = next((first for mark, first in READ_BY.items() if mark in projection), None)
    if told is None:
        raise AdapterError("the IP-Adapter's projector is of a kind that adapt does not know", given=path,
                           allowed="plain, plus, full face; FaceID needs a face recogniser, which adapt has not")  # fmt: skip
    return int(projection[told].shape[1])


def _encoder(places: Sequence[Path], width: int, file: Path) -> Any:
    """The first CLIP vision model that makes states of this width."""
    from transformers import CLIPVisionModelWithProjection

    seen = []
    for place in places:
        try:
            told = json.loads((place / "config.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        seen.append(f"{place.name}: {told.get('projection_dim')} and {told.get('hidden_size')}")
        if width in (told.get("projection_dim"), told.get("hidden_size")):
            with quiet_libraries():
                return CLIPVisionModelWithProjection.from_pretrained(place, use_safetensors=True, local_files_only=True)
    raise AdapterError(
        f"there is no picture encoder of width {width} for the IP-Adapter", given=", ".join(seen) or file,
        allowed="a folder of transformers' CLIPVisionModelWithProjection", next="name it: image_encoder",
    )  # fmt: skip
