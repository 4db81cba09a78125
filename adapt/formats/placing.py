"""Between a dialect's layers, which may hold several of diffusers' in one, and diffusers' own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.encoder_names import in_files
from adapt.formats.keys import SEVERAL, grouped, layer_from
from adapt.formats.layer import Layer
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family
from adapt.formats.names.native import Names, Native
from adapt.formats.names.transformers import FLUX, SD3
from adapt.formats.names.unet import SDXL_UNET
from adapt.formats.names.wan import WAN
from adapt.formats.names.words import dotted
from adapt.formats.rows import cut, halves_swapped, joined

if TYPE_CHECKING:
    from torch import Tensor


TRANSFORMER_PARTS = (
    "transformer_blocks",
    "single_transformer_blocks",
    "x_embedder",
    "context_embedder",
    "norm_out",
    "proj_out",
    "pos_embed",
    "time_text_embed",
    "blocks",
    "condition_embedder",
    "layers",
    "noise_refiner",
    "context_refiner",
    "double_stream_blocks",
    "single_stream_blocks",
)
UNET_PARTS = ("down_blocks", "mid_block", "up_blocks", "conv_in", "conv_out", "time_embedding", "add_embedding")
OTHER_PARTS = (
    "all_final_layer",
    "all_x_embedder",
    "cap_embedder",
    "img_in",
    "patch_embedding",
    "t_embedder",
    "txt_in",
)
"""Of transformers, where a prefix says that it is a denoiser's layer: without one they could be other models' own."""


@dataclass(frozen=True)
class Place:
    """Where a layer of a file belongs: a component of diffusers' pipeline, and what of it the layer holds."""

    component: str
    native: Native


def at(component: str, module: str) -> Place:
    """The place of a layer that is one of diffusers'."""
    return Place(component, Native(module, (module,), (1,)))


def denoiser(name: str, *, underscored: bool = False) -> Place:
    """The place of a denoiser's layer, in its model's own names or in diffusers'."""
    for component, names in (("unet", SDXL_UNET), *(("transformer", names) for names in (FLUX, SD3, WAN))):
        if found := names.of_native(name, underscored=underscored):
            return Place(component, found)
    return in_diffusers_names(dotted(name) if underscored else name)


def in_diffusers_names(module: str) -> Place:
    """The place of a denoiser's layer by diffusers' name: transformers are told by their blocks."""
    return at("transformer" if module.startswith((*TRANSFORMER_PARTS, *OTHER_PARTS)) else "unet", module)


def is_flux(names: Iterable[str]) -> bool:
    """Whether tensors of these names are of Flux: then the second text encoder is T5."""
    return any(
        re.search(r"(?:^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]", name) for name in names
    )


def read_placed(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], place: Callable[[str], Place | None]
) -> LoraWeights:
    """An adapter from its tensors.

    Args:
        place: where a layer of this name belongs; None: nowhere.

    Raises:
        AdapterError: names of no model's layer, one layer twice, and what `grouped`, `layer_from` and `cut` refuse.
    """
    modules: dict[str, dict[str, Layer]] = {}
    for name, parts in sorted(grouped(path, tensors).items()):
        where = place(name)
        if where is None:
            raise AdapterError(
                "the adapter holds a layer that is in no model that adapt knows", given=f"{name} in {path}"
            )
        layers = modules.setdefault(where.component, {})
        for module, layer in _layers(path, name, parts, where.native):
            if module in layers:
                raise AdapterError("the adapter holds a layer twice, in two dialects", given=f"{module} in {path}")
            layers[module] = layer
    if not any(modules.values()):
        raise AdapterError("the adapter holds no LoRA", given=path)
    return LoraWeights({c: dict(sorted(layers.items())) for c, layers in sorted(modules.items())}, dict(metadata))


def _layers(path: Path, name: str, parts: Mapping[str, Tensor], native: Native) -> Iterator[tuple[str, Layer]]:
    """diffusers' layers from the tensors of one."""
    several = [parts[each] for each in SEVERAL if each in parts]
    if not several:
        yield from apart(layer_from(path, name, parts), native)
        return
    if len(several) != len(native.modules):
        raise AdapterError(f"{name} has not as many rotations as it has layers", given=f"{len(several)} in {path}")
    alone = {end: tensor for end, tensor in parts.items() if end not in SEVERAL}
    for module, blocks in zip(native.modules, several, strict=True):
        layer = layer_from(path, name, {**alone, "oft_blocks": blocks})
        yield module, _turned_over(layer, native)


def apart(layer: Layer, native: Native) -> Iterator[tuple[str, Layer]]:
    """A native layer as diffusers' layers."""
    whole = _turned_over(layer, native)
    if len(native.modules) == 1:
        yield native.modules[0], whole
        return
    for module, part in zip(native.modules, cut(whole, native.shares), strict=True):
        if part is not None:
            yield module, part


def together(layers: Mapping[str, Layer], names: Names) -> dict[str, Layer]:
    """The reverse of `apart` for all layers of a denoiser, by native name.

    Raises:
        AdapterError: a layer without a native name, or layers that cannot be joined.
    """
    groups: dict[Native, dict[int, Layer]] = {}
    for module, layer in layers.items():
        found = names.of_module(module)
        if found is None:
            raise AdapterError("the format has no name for a layer of this adapter", given=module)
        groups.setdefault(found[0], {})[found[1]] = layer
    return {native.name: _whole(native, parts) for native, parts in groups.items()}


def _whole(native: Native, parts: Mapping[int, Layer]) -> Layer:
    if len(native.modules) == 1:
        return _turned_over(parts[0], native)
    try:
        return joined([parts.get(number) for number in range(len(native.modules))], native.shares)
    except AdapterError as error:
        raise AdapterError(error.message, given=native.name, next=error.next) from error


def _turned_over(layer: Layer, native: Native) -> Layer:
    """Shift and scale, which stand the other way round in diffusers."""
    if native.halves and not layer.size[1]:
        raise AdapterError(
            f"a {layer.kind} over shift and scale cannot be reordered",
            given=native.name,
            next="--nearest RANK --base BASE",
        )
    return halves_swapped(layer) if native.halves and layer.size[0] == 2 * layer.size[1] else layer


def native_layers(weights: LoraWeights, family: Family) -> Iterator[tuple[str, str, Layer]]:
    """(component, native name, layer) of all of an adapter: of the denoiser in the model's own names, of text encoders in
    transformers'.

    Raises:
        AdapterError: a component that this family has no name for, and what `together` refuses.
    """
    known = {family.component, *family.text}
    if missing := set(weights.modules) - known:
        raise AdapterError(
            f"the format has no name for a component of this adapter in {family.title}",
            given=", ".join(sorted(missing)),
            allowed=", ".join(sorted(known)),
        )
    for component, layers in weights.modules.items():
        if component == family.component:
            yield from ((component, name, layer) for name, layer in together(layers, family.names).items())
        else:
            yield from ((component, in_files(component, name), layer) for name, layer in layers.items())


def said_inside(layer: Layer) -> Layer:
    """The same ΔW as dialects can say it that know no strength of two whole Kronecker factors."""
    return layer.with_scale_inside() if isinstance(layer, LoKr) else layer
