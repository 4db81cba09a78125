"""ControlNet: a copy of a UNet's first half looks at a control and adds to the skips (Zhang et al. 2023, arXiv 2302.05543)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image
from torch import Tensor

from adapt.backbones.beside import Beside, Told, rows_of, scaled
from adapt.backbones.identity import contents_of
from adapt.errors import AdapterError
from adapt.fetch.network import CONTROL_NET, network_folder
from adapt.quiet import quiet_libraries
from adapt.sampling.pixels import to_pixels
from conditioning import Part

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone


class ControlNet(Beside):
    """A published ControlNet of a UNet (Stable Diffusion 1.x, 2.x, XL), as diffusers has it.

    The control is told as it is (a map of edges, depth, a pose …): which kind it was made for is known by who made it.

    Args:
        network: diffusers' `ControlNetModel`.
    """

    name = "control"

    def __init__(self, network: Any) -> None:
        self.network = network.requires_grad_(False).eval()
        self.digest = contents_of(network, "")
        self._null = torch.zeros(int(network.config.conditioning_channels), 1, 1)

    @staticmethod
    def load(reference: str | Path) -> ControlNet:
        """A folder that diffusers' `save_pretrained` wrote, or a Hub id.

        Raises:
            AdapterError: no ControlNet for a UNet, or its files cannot be read.
        """
        folder = network_folder(reference, CONTROL_NET, "ControlNet")
        with quiet_libraries():
            from diffusers import ControlNetModel

            try:
                network = ControlNetModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
            except (OSError, ValueError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise AdapterError(f"the ControlNet cannot be loaded: {reason}", given=reference) from error
        return ControlNet(network)

    def look(self, backbone: Backbone, picture: Image, height: int, width: int) -> Tensor:
        """Pixels (3, H, W) in [0, 1]."""
        return to_pixels(picture, height, width)[0] / 2 + 0.5

    def encode(self, raw: Sequence[tuple[Tensor, float] | None]) -> Part:
        pixels, strength = rows_of(raw, self._null)
        return {"pixels": pixels, "strength": strength}

    def null(self, rows: int) -> Part:
        """No strength; one pixel, which stands for pictures of every size."""
        return {"pixels": self._null.expand(rows, -1, -1, -1), "strength": torch.zeros(rows)}

    def told(self, part: Part, arguments: tuple[Any, ...], named: dict[str, Any]) -> Told:
        """With what the ControlNet adds to the skips and the middle; nothing where it has no strength."""
        strength, (x_t, *rest) = part["strength"], arguments
        if not bool(strength.any()):
            return arguments, named
        takes = ("encoder_hidden_states", "added_cond_kwargs")
        skips, middle = self.network(
            x_t[:, : self.network.config.in_channels], *rest, controlnet_cond=part["pixels"], return_dict=False,
            **{name: named[name] for name in takes if name in named},
        )  # fmt: skip
        *skips, middle = scaled([*skips, middle], strength)
        return arguments, {
            **named,
            "down_block_additional_residuals": tuple(skips),
            "mid_block_additional_residual": middle,
        }

    def put_on(self, backbone: Backbone) -> None:
        ours, own = backbone.config, self.network.config
        alike = ("cross_attention_dim", "block_out_channels", "layers_per_block", "addition_embed_type")
        differ = next((name for name in alike if _plain(ours.get(name)) != _plain(own.get(name))), None)
        if backbone.denoiser_name != "unet" or differ:
            why = f"{differ}: {own.get(differ)}; of the base: {ours.get(differ)}" if differ else backbone.family
            raise AdapterError("the ControlNet was made for another base", given=why,
                               allowed="a UNet of the same architecture", next="--base of the family that it is for")  # fmt: skip
        with quiet_libraries():
            self.network.to(backbone.device, backbone.dtype)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
