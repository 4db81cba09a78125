"""How the denoiser is computed: checkpointing, attention, compiled blocks; and whether compiling changes what is learned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.data.plan import normal
from adapt.errors import SettingsError, did_you_mean
from adapt.lora import Network
from adapt.quiet import quiet_libraries
from adapt.training.step import at_once

FULL, HALF = 1e-3, 0.1
"""Relative distance of gradients, in full and in half precision, that two ways to compute the same may have."""


def tune(denoiser: Any, settings: TrainSettings, device: torch.device) -> None:
    """Gradient checkpointing, attention and compilation, as the settings say; changes no name and no weight.

    Raises:
        SettingsError: an attention backend that is unknown or does not go with this base or machine; no compiler.
    """
    if settings.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    attend(denoiser, settings)
    if settings.compile:
        _compile(denoiser, device)


def attend(denoiser: Any, settings: TrainSettings) -> None:
    """The attention backend alone, as in `tune`."""
    if settings.attention != "auto":
        _attend(denoiser, "native" if settings.attention == "sdpa" else settings.attention)


def _attend(denoiser: Any, name: str) -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName

    # `_hub` backends download code and run it.
    known = [backend.value for backend in AttentionBackendName if not backend.value.endswith("_hub")]
    if name not in known:
        near = did_you_mean(name, known)
        hint = f"did you mean {near}?" if near else None
        raise SettingsError("no such attention backend", given=name, allowed=f"auto, {', '.join(known)}", next=hint)
    switches = [p for m in denoiser.modules() if hasattr(p := getattr(m, "processor", None), "_attention_backend")]
    if not switches and name == "native":
        return  # the UNets' attention is torch's own anyhow
    if not switches and name != "xformers":
        raise SettingsError(
            "the attention of this base has no such switch", given=name, allowed="auto, native, xformers"
        )
    try:
        with quiet_libraries():
            denoiser.set_attention_backend(name) if switches else denoiser.enable_xformers_memory_efficient_attention()
    except (ImportError, RuntimeError, ValueError) as error:
        raise SettingsError("this attention backend cannot be used here", given=f"{name}: {error}") from error


def _compile(denoiser: Any, device: torch.device) -> None:
    """Block by block where diffusers knows the repeated ones: a fraction of the time that compiling the whole takes."""
    compilers = (os.environ.get("CXX"), "g++", "clang++")
    if device.type == "cpu" and not any(shutil.which(name) for name in compilers if name):
        raise SettingsError("compile needs a C++ compiler on the CPU", next="install g++, or leave compile out")
    if device.type == "cuda" and find_spec("triton") is None:
        raise SettingsError("compile needs triton on a GPU", next="pip install triton, or leave compile out")
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks()
    else:
        denoiser.compile()


def uncompile(denoiser: nn.Module) -> None:
    """The modules call their own code again."""
    for module in denoiser.modules():
        module._compiled_call_impl = None


@contextmanager
def _uncompiled(denoisers: Sequence[nn.Module]) -> Iterator[None]:
    """Likewise, inside the `with`."""
    compiled = {module: module._compiled_call_impl for denoiser in denoisers for module in denoiser.modules()}
    for denoiser in denoisers:
        uncompile(denoiser)
    try:
        yield
    finally:
        for module, code in compiled.items():
            module._compiled_call_impl = code


def require_same_gradients(
    backbone: Backbone, injection: Network, settings: TrainSettings, accelerator: Accelerator
) -> None:
    """A rehearsal of compiled blocks, on noise and with weights that are all at work (LoRA's B begins at zero).

    Compilers make mistakes that no loss shows: torch 2.13's, on CPUs, gave the right predictions with LoRA and gradients that
    were wrong by a half.

    Raises:
        SettingsError: compiled gradients are others than plain ones.
    """
    if not settings.compile:
        return
    assert settings.resolution is not None, "settled settings have a resolution"
    shape = (at_once(settings, accelerator.num_processes),
             *backbone.latent_shape(settings.resolution, settings.resolution))  # fmt: skip
    x_t = normal(0, "compile", 0, 0, shape).to(backbone.device, backbone.dtype)
    t = backbone.objective().times(torch.linspace(0.1, 0.9, len(x_t))).to(x_t.device)
    condition = backbone.null(1).expand(len(x_t))

    def loss() -> Tensor:
        with accelerator.autocast():
            return backbone.predict(x_t, t, condition).float().square().mean()

    shaken = {n: p + 0.05 * normal(0, f"compile-{n}", 0, 0, p.shape).to(p) for n, p in injection.parameters.items()}
    with injection.holding(shaken), _training(backbone.networks):
        compiled = _gradient(loss, injection)
        with _uncompiled(backbone.networks):
            plain = _gradient(loss, injection)
    apart = float((compiled - plain).norm() / plain.norm())
    allowed = FULL if (settings.precision, settings.base_precision) == ("no", "fp32") else HALF
    if not apart <= allowed:
        raise SettingsError(
            "compiled blocks have other gradients than plain ones: the compiler of this torch errs here",
            given=f"relative distance {apart:.2g}",
            allowed=f"{allowed:g}",
            next="leave compile out, or try another version of torch",
        )


@contextmanager
def _training(denoisers: Sequence[nn.Module]) -> Iterator[None]:
    """As in a step, inside the `with`."""
    before = [denoiser.training for denoiser in denoisers]
    for denoiser in denoisers:
        denoiser.train()
    try:
        yield
    finally:
        for denoiser, training in zip(denoisers, before, strict=True):
            denoiser.train(training)


def _gradient(loss: Callable[[], Tensor], injection: Network) -> Tensor:
    """All gradients of the adapter, end to end (numbers,)."""
    torch.autograd.backward(loss())
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in injection.parameters.values()]
    for parameter in injection.parameters.values():
        parameter.grad = None
    return torch.cat([x.flatten() for x in found]).double()
