"""A frozen base in few bits: the linear layers of the denoiser's blocks, by bitsandbytes, torchao or quanto. LoRA stays fp32."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.errors import SettingsError

BLOCK = 64
"""Numbers that share a scale in NF4. Sides of weights are whole blocks, so that no scale is shared by two rows."""
FEWEST = 4096
"""Numbers of a weight below which nothing is gained."""


@dataclass(frozen=True)
class Way:
    """Attributes:
    package: that does it.
    install: its name in the package index.
    apply: (denoiser, names of the layers).
    block: sides of weights are multiples of it.
    on_cpu: whether it is used there. bitsandbytes 0.50 packs NF4 anew for drawing on CPUs, and cannot be trained through then.
    """

    package: str
    install: str
    apply: Callable[[nn.Module, list[str]], None]
    block: int = 1
    on_cpu: bool = True


def quantise(backbone: Backbone, name: str) -> None:
    """Puts the denoiser's large linear layers into few bits, where they are. Its digests are those of what was loaded.

    Raises:
        SettingsError: the package is not installed, or cannot do it here; a base without such layers.
    """
    way = WAYS[name]
    require(name)
    if not way.on_cpu and backbone.device.type == "cpu":
        raise SettingsError(f"quantize={name} needs a GPU", next="int8-quanto or int8-torchao, or leave it out")
    backbone.remember()
    for denoiser in backbone.denoisers.values():
        _quantise(denoiser, name, way)
    backbone.quantised = name


def _quantise(denoiser: nn.Module, name: str, way: Way) -> None:
    if not (layers := list(chosen(denoiser, way.block))):
        raise SettingsError("quantize: this base has no large linear layers in blocks", given=name, next="leave it out")
    try:
        way.apply(denoiser, layers)
    except (RuntimeError, ImportError, NotImplementedError, AttributeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingsError(
            f"quantize={name} does not work here: {reason}", next="another way, or leave it out"
        ) from error
    denoiser.requires_grad_(False)


def require_fitting(settings: TrainSettings, backbone: Backbone) -> None:
    """Raises `SettingsError` for what cannot be done with a base that is in few bits already."""
    if backbone.quantised is None:
        return
    if backbone.quantised == "quanto":
        raise SettingsError(
            "a folder saved by quanto can be drawn with and not be trained: diffusers takes no LoRA on it, to prove with",
            given=backbone.reference,
            next="the same base in float32 or bfloat16, with quantize=int8-quanto",
        )
    alone = ("none", "lora", "default", "eva", None, False, 0.0)
    names = ("quantize", "kind", "init", "compile", "offload_weights", "shard", "distill_adapter")
    for name in names:
        if (given := getattr(settings, name)) not in alone:
            reason = "is in few bits already" if name == "quantize" else "is in few bits, which this does not go with"
            raise SettingsError(
                f"the base {reason} ({backbone.quantised})", given=f"{name}={given}", next=f"leave {name} out"
            )


def require(name: str) -> None:
    """Raises `SettingsError` when the package of a way is not installed."""
    way = WAYS[name]
    if find_spec(way.package.partition(".")[0]) is None:
        raise SettingsError(
            f"quantize={name} needs {way.install}, which is not there",
            next=f"pip install {way.install} (or 'adapt-diffusion[quant]'), or leave it out",
        )


def chosen(denoiser: nn.Module, block: int = 1) -> Iterator[str]:
    """Linear layers inside the repeated blocks: what stands before and behind them is small, and errors there are seen."""
    for name, layer in denoiser.named_modules():
        large = type(layer) is nn.Linear and layer.weight.numel() >= FEWEST
        if large and "blocks." in name and not any(side % block for side in layer.weight.shape):
            yield name


def _replace(denoiser: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(denoiser.get_submodule(parent), child, layer)


def _by_bnb(denoiser: nn.Module, names: list[str], four: bool) -> None:
    """bitsandbytes: NF4 in blocks of 64 with nested scales (Dettmers et al. 2023, arXiv 2305.14314), or LLM.int8."""
    nn_of: Any = import_module("bitsandbytes.nn")
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    for name in names:
        layer: Any = denoiser.get_submodule(name)
        weight, bias = layer.weight, layer.bias is not None
        if four:
            new = nn_of.Linear4bit(
                layer.in_features, layer.out_features, bias, compute_dtype=weight.dtype, quant_type="nf4"
            )
            new.weight = nn_of.Params4bit(
                weight.detach().cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
            )
        else:
            new = nn_of.Linear8bitLt(layer.in_features, layer.out_features, bias, has_fp16_weights=False)
            new.weight = nn_of.Int8Params(weight.detach().cpu(), requires_grad=False, has_fp16_weights=False)
        new.bias = layer.bias
        _replace(denoiser, name, new.to(weight.device))


def _by_torchao(denoiser: nn.Module, names: list[str]) -> None:
    ao: Any = import_module("torchao.quantization")
    wanted = set(names)
    ao.quantize_(denoiser, ao.Int8WeightOnlyConfig(), filter_fn=lambda layer, name: name in wanted)


def _by_quanto(denoiser: nn.Module, names: list[str]) -> None:
    quanto: Any = import_module("optimum.quanto")
    quanto.quantize(denoiser, weights=quanto.qint8, include=names)
    quanto.freeze(denoiser)


WAYS: Mapping[str, Way] = {
    "nf4-bnb": Way(
        "bitsandbytes", "bitsandbytes", lambda denoiser, names: _by_bnb(denoiser, names, four=True), BLOCK, False
    ),
    "int8-bnb": Way("bitsandbytes", "bitsandbytes", lambda denoiser, names: _by_bnb(denoiser, names, four=False)),
    "int8-torchao": Way("torchao", "torchao", _by_torchao),
    "int8-quanto": Way("optimum.quanto", "optimum-quanto", _by_quanto),
}
"""By the setting `quantize`."""
