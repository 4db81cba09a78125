"""A network of diffusers made of a file's weights, by diffusers' own maps of the names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapt.checkpoints.contents import VAE, Contents
from adapt.errors import BackboneError
from adapt.quiet import quiet_libraries

MARKER = 2
"""Numbers up to which a tensor that has no place is a remark of the program that wrote the file."""


class Reader:
    """One file, from which networks are made.

    Args:
        contents: what is in it.
        values: its tensors (`values_of`).
        folder: a diffusers folder with the configurations.
    """

    def __init__(self, contents: Contents, values: Mapping[str, Tensor], folder: Path) -> None:
        self.contents, self.values, self.folder = contents, values, folder

    def network(self, component: str, kind: str, dtype: torch.dtype) -> nn.Module:
        """A denoiser or an autoencoder.

        Args:
            component: its name in the folder.
            kind: its class in diffusers.
            dtype: it is held in; layers that the class keeps in float32 stay so.

        Raises:
            BackboneError: the weights do not fit its configuration, or diffusers has no map for these names.
        """
        import diffusers

        found = getattr(diffusers, kind)
        own = self._of(component)
        try:
            with quiet_libraries():
                if self.contents.file.suffix == ".gguf":
                    return self._packed(found, component, own, dtype)
                empty, config = self._empty(found, component)
                return filled(empty, self._converted(found, own, set(empty.state_dict()), config), dtype)
        except BackboneError as error:
            raise self._unfit(error.message) from error
        except (KeyError, ValueError, IndexError, RuntimeError, TypeError, AttributeError) as error:
            raise self._unfit(_said(error)) from error

    def encoder(self, component: str, library: str, kind: str, dtype: torch.dtype) -> nn.Module:
        """A text encoder.

        Raises:
            BackboneError: as `network`.
        """
        from diffusers import pipelines
        from diffusers.loaders.single_file import load_single_file_sub_model

        try:
            with quiet_libraries():
                found: nn.Module = load_single_file_sub_model(
                    library, kind, component, dict(self.values), pipelines, False, str(self.folder),
                    local_files_only=True, torch_dtype=dtype,
                )  # fmt: skip
                return found
        except Exception as error:  # diffusers' own for a missing component is a plain Exception
            raise self._unfit(_said(error)) from error

    def _of(self, component: str) -> dict[str, Tensor]:
        """The tensors of one network; a denoiser's without a prefix."""
        if component == "vae":
            return {name: value for name, value in self.values.items() if name.startswith(VAE)}
        names, prefix = self.contents.denoiser, self.contents.prefix
        return {n.removeprefix(prefix): v for n, v in self.values.items() if n.removeprefix(prefix) in names}

    def _empty(self, kind: Any, component: str) -> tuple[nn.Module, Any]:
        from accelerate import init_empty_weights

        config = kind.load_config(str(self.folder), subfolder=component, local_files_only=True)
        with init_empty_weights():
            return kind.from_config(config), config

    def _converted(self, kind: Any, own: dict[str, Tensor], wanted: set[str], config: Any) -> dict[str, Tensor]:
        """In diffusers' names."""
        if wanted <= own.keys():
            return own
        if (convert := _map_of(kind)) is None:
            raise BackboneError(f"diffusers reads the published names of no {kind.__name__}: only its own")
        if kind.__name__.startswith("UNet"):
            own = {f"model.diffusion_model.{name}": value for name, value in own.items()}
        converted = convert(checkpoint=own, config=config)
        return {name: value for name, value in converted.items() if value is not None}  # None: not there

    def _packed(self, kind: Any, component: str, own: dict[str, Tensor], dtype: torch.dtype) -> nn.Module:
        """Of GGUF: linear layers stay packed and are unpacked in every pass."""
        from diffusers import GGUFQuantizationConfig

        if _map_of(kind) is None:
            raise BackboneError(f"diffusers reads no GGUF of a {kind.__name__}")
        if kind.__name__.startswith("UNet"):
            own = {f"model.diffusion_model.{name}": value for name, value in own.items()}
        made: nn.Module = kind.from_single_file(
            own, config=str(self.folder), subfolder=component, local_files_only=True, dtype=dtype,
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        )  # fmt: skip
        _unpack_others(made, dtype)
        if missing := [name for name, value in made.named_parameters() if value.is_meta]:
            raise BackboneError(f"{len(missing)} tensors are missing, {missing[0]} first")
        return made

    def _unfit(self, reason: str) -> BackboneError:
        return BackboneError(
            f"the checkpoint does not fit the folder: {reason}", given=f"{self.contents.file}, {self.folder}"
        )


def filled(network: nn.Module, values: Mapping[str, Tensor], dtype: torch.dtype) -> nn.Module:
    """A network on the meta device with these values in it, every one of them.

    Raises:
        BackboneError: not the same names, or other shapes.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in values]
    more = [name for name, value in values.items() if name not in wanted and value.numel() > MARKER]
    for names, what in ((missing, "are missing"), (more, "have no place in its configuration")):
        if names:
            raise BackboneError(f"{len(names)} tensors {what}, {names[0]} first")
    other = next((name for name, value in wanted.items() if value.shape != values[name].shape), None)
    if other:
        given, allowed = tuple(values[other].shape), tuple(wanted[other].shape)
        raise BackboneError(f"{other} has the shape {given}, its configuration says {allowed}")
    wide = tuple(getattr(network, "_keep_in_fp32_modules", None) or ())
    held = {name: _held(name, values[name], dtype, wide) for name in wanted}
    network.load_state_dict(held, strict=True, assign=True)
    return network.eval()


def _held(name: str, value: Tensor, dtype: torch.dtype, wide: tuple[str, ...]) -> Tensor:
    """As diffusers holds it: some layers in float32 whatever the rest is in."""
    if not value.is_floating_point():
        return value
    kept = any(part in name.split(".") for part in wide)
    return value.to(torch.float32 if kept else dtype).contiguous()


def _unpack_others(network: nn.Module, dtype: torch.dtype) -> None:
    """GGUF's packed tensors outside linear layers, which nothing would unpack: convolutions, norms, tables."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor

    for module in network.modules():
        own = [] if isinstance(module, GGUFLinear) else list(module.named_parameters(recurse=False))
        for name, value in own:
            if isinstance(value, GGUFParameter):
                plain = dequantize_gguf_tensor(value).to(dtype)
                setattr(module, name, nn.Parameter(plain, requires_grad=False))
    for module in network.modules():
        if isinstance(module, GGUFLinear) and isinstance(module.bias, GGUFParameter):
            module.bias = nn.Parameter(dequantize_gguf_tensor(module.bias).to(dtype), requires_grad=False)


def _map_of(kind: Any) -> Any:
    """diffusers' map of a class's published names to its own; None: it has none."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    return SINGLE_FILE_LOADABLE_CLASSES.get(kind.__name__, {}).get("checkpoint_mapping_fn")


def _said(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"no tensor {error}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
