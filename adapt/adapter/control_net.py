"""ControlNet: a copy of a UNet's first half looks at a control and adds to the skips (Zhang et al. 2023, arXiv 2302.05543)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from adapt.backbones.beside import Beside, Told, rows_of
from adapt.backbones.unet_sides import with_residuals
from adapt.errors import AdapterError
from adapt.fetch.network import CONTROL_NET, network_folder
from adapt.quiet import quiet_libraries
from conditioning import LearnedConditioner, Part
from conditioning.learned import copied

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone

SIDECAR, AS_IS = "control.json", "files"


class ControlNet(LearnedConditioner, Beside):
    """A ControlNet of a UNet (Stable Diffusion 1.x, 2.x, XL, `icons`) as diffusers has it: published, or taught here.

    Args:
        network: diffusers' `ControlNetModel`.
        source: what the control is: `files` is told as it is; `edges`, `colours` are taken from the picture first.
    """

    name = "control"

    def __init__(self, network: Any, source: str = AS_IS) -> None:
        super().__init__()
        self.network, self.source = network.requires_grad_(False).eval(), source
        self._null = torch.zeros(int(network.config.conditioning_channels), 1, 1)

    @staticmethod
    def new(backbone: Backbone, source: str, seed: int) -> ControlNet:
        """One that does nothing yet: a copy of the base's first half, in float32, whose outputs are zeros.

        Args:
            seed: of the layers that look at the control.
        """
        from diffusers import ControlNetModel

        unet: Any = backbone.modules["unet"]
        halvings = backbone.scale_factor.bit_length() - 1
        with torch.random.fork_rng(devices=[]), quiet_libraries():
            torch.manual_seed(seed)
            widths = (16, 32, 96, 256)[: halvings + 1] if halvings < 4 else (*(16, 32, 96), *[256] * (halvings - 2))
            network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
        return ControlNet(network.float(), source)

    @staticmethod
    def load(reference: str | Path) -> ControlNet:
        """A folder that diffusers' `save_pretrained` wrote, or a Hub id; also `conditioning/control/` of an adapter.

        Raises:
            AdapterError: no ControlNet for a UNet, or its files cannot be read.
        """
        folder = network_folder(reference, CONTROL_NET, "ControlNet")
        try:
            told = json.loads((folder / SIDECAR).read_text("utf-8")) if (folder / SIDECAR).is_file() else {}
            with quiet_libraries():
                from diffusers import ControlNetModel

                network = ControlNetModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise AdapterError(f"the ControlNet cannot be loaded: {reason}", given=reference) from error
        found = ControlNet(network, str(told.get("source", AS_IS)))
        if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
            raise AdapterError("the ControlNet holds values that are not finite", given=reference)
        return found

    # ------------------------------------------------------------------------------------------------ what it says
    def look(self, backbone: Backbone, picture: Image, pixels: Tensor) -> Tensor:
        """Pixels (3, H, W) in [0, 1], of 8 bits as files have them."""
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round() / 255

    def encode(self, raw: Sequence[Any]) -> Part:
        """One row for each control (3, H, W), or control and strength; None is null."""
        pairs = [(each, 1.0) if isinstance(each, Tensor) else each for each in raw]
        pixels, strength = rows_of(pairs, self._null)
        return {"pixels": pixels, "strength": strength}

    def null(self, rows: int) -> Part:
        """No strength; one pixel, which stands for pictures of every size."""
        return {"pixels": self._null.expand(rows, -1, -1, -1), "strength": torch.zeros(rows)}

    def passed_on(self, part: Part, arguments: tuple[Any, ...], named: dict[str, Any]) -> Told:
        """With what the ControlNet adds to the skips and the middle; nothing where it has no strength."""
        return with_residuals(self.network, part, arguments, named)

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

    # ------------------------------------------------------------------------------------------------ what it learns
    @property
    def learned(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())

    def state(self) -> dict[str, Tensor]:
        return copied(self.learned)

    def having(self, values: Mapping[str, Tensor]) -> ControlNet:
        found = deepcopy(self.network).cpu()
        found.load_state_dict({**found.state_dict(), **copied(values)})
        return ControlNet(found, self.source)

    def told(self) -> dict[str, Any]:
        return {"source": self.source, "network": CONTROL_NET}

    def save(self, folder: str | Path) -> None:
        """As diffusers reads it (`ControlNetModel.from_pretrained`), and beside it what the control is."""
        self.network.register_to_config(_name_or_path="")  # where it was read from is nobody's business
        with quiet_libraries():
            self.network.save_pretrained(folder)
        (Path(folder) / SIDECAR).write_text(json.dumps({"source": self.source}, indent=2) + "\n", "utf-8")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
