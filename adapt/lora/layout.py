"""Which layers get an adapter, and of what rank, strength and learning rate: decided before anything is put in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from adapt.config.network import ONE_SIZE, NetworkSettings
from adapt.errors import SettingsError, did_you_mean

Value = TypeVar("Value")
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Place:
    """What one layer gets.

    Attributes:
        rank: r.
        alpha: as set; what stands before B A is alpha / r, or alpha / √r with rsLoRA.
        learning_rate: its own, or None.
    """

    rank: int
    alpha: float
    learning_rate: float | None = None


def layout(module: nn.Module, settings: NetworkSettings, targets: Sequence[str]) -> dict[str, Place]:
    """Layer name → what it gets, for every layer whose name ends with one of `targets` and whose rank is not 0.

    Raises:
        SettingsError: no layer has one of these names; a pattern fits none of them; all ranks are 0.
    """
    layers = targeted(module, targets)
    require_matches(settings, layers)
    if settings.kind in ONE_SIZE:
        layers = _linear(layers, settings.kind)
    if settings.kind in ("oft", "boft"):
        _require_whole_blocks(layers, settings)
    places = {name: _place(name, layer, settings) for name, layer in layers.items()}
    if settings.conv_rank and not any(map(is_convolution, layers.values())):
        raise SettingsError("conv_rank: none of the targets is a convolution", given=", ".join(targets))
    if not (left := {name: place for name, place in places.items() if place.rank}):
        raise SettingsError("rank_pattern leaves no layer to train", given=settings.rank_pattern)
    return left


def targeted(module: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """The layers whose names end with one of `targets`, in the model's order.

    Raises:
        SettingsError: there are none.
    """
    found = {n: m for n, m in called(module, targets).items() if not isinstance(m, CONTAINERS)}
    if not found:
        raise no_layers(module, targets)
    return found


def called(module: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Everything whose name ends with one of `targets`: containers of layers too (`to_out` is a layer in Flux.2's single blocks,
    and a list of layers in its double ones)."""
    return {n: m for n, m in module.named_modules() if any(f".{n}".endswith(f".{target}") for target in targets)}


def _linear(layers: Mapping[str, nn.Module], kind: str) -> dict[str, nn.Module]:
    """The linear ones. peft's OFT of convolutions is no rotation, and does not start as nothing; its BOFT of them holds matrices
    as wide as in × kernel squared; its VeRA takes none.

    Raises:
        SettingsError: there are none.
    """
    linear = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    if not linear:
        raise SettingsError(f"kind={kind} is for linear layers, and none of the targets is one")
    return dict(linear)


def _require_whole_blocks(layers: Mapping[str, nn.Module], settings: NetworkSettings) -> None:
    """Raises `SettingsError` when the inputs of a layer are no whole blocks, or with several factors no whole runs of them."""
    widths, reach = sorted({int(layer.in_features) for layer in layers.values()}), 2 ** (settings.boft_factors - 1)  # type: ignore[arg-type]
    shared = math.gcd(*widths) // reach if math.gcd(*widths) % reach == 0 else 0
    fitting = [n for n in range(2, shared + 1) if shared % n == 0 and (reach == 1 or n % 2 == 0)]
    if settings.rank not in fitting:
        several = f" (times {reach}, with boft_factors={settings.boft_factors})" if reach > 1 else ""
        raise SettingsError(
            f"rank: with kind={settings.kind} it is the number of inputs that are rotated together, and every layer has whole "
            f"blocks{several}",
            given=f"{settings.rank}, widths {', '.join(map(str, widths))}",
            allowed=", ".join(map(str, fitting)) or "none",
        )


def no_layers(module: nn.Module, targets: Sequence[str]) -> SettingsError:
    """What to say when `targets` do not fit this model."""
    ends = sorted({n.rpartition(".")[2] for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)})
    return SettingsError(
        "targets match no layer of the base, or one that takes no LoRA",
        given=", ".join(targets),
        allowed=f"ends of layer names such as {', '.join(ends)}",
    )


def convolution_ends(module: nn.Module) -> tuple[str, ...]:
    """Ends of the names of the convolutions that kohya's `conv_dim` means: larger than 1 × 1, inside the blocks."""
    names = (name for name, layer in module.named_modules() if "." in name and is_convolution(layer))
    return tuple(sorted({name.rpartition(".")[2] for name in names}))


def is_convolution(layer: nn.Module) -> bool:
    """Whether it is a convolution larger than 1 × 1."""
    return isinstance(layer, CONVOLUTIONS) and max(layer.kernel_size) > 1


def _place(name: str, layer: nn.Module, settings: NetworkSettings) -> Place:
    large = is_convolution(layer)
    rank = settings.conv_rank if large and settings.conv_rank else settings.rank
    rank = chosen(settings.rank_pattern, name, rank)
    alpha = settings.conv_alpha if large and settings.conv_alpha else settings.alpha
    return Place(
        rank,
        chosen(settings.alpha_pattern, name, float(rank) if alpha is None else alpha),
        chosen(settings.learning_rate_pattern, name, None),
    )


# ------------------------------------------------------------------------------------------------------------- patterns
def chosen(patterns: Mapping[str, Value], name: str, default: Value) -> Value:
    """The value of the first pattern that fits the name."""
    return next((value for pattern, value in patterns.items() if fits(pattern, name)), default)


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern fits a layer's name: it is one or more whole parts of it (`to_q`, `attn2.to_k`, `down_blocks.0`),
    or a regular expression for them (`to_[qk]`, `down_blocks\\.[01]`, `^up_blocks`)."""
    return re.match(rf"(.*\.)?({pattern})(\..*)?$", name) is not None


def require_matches(settings: NetworkSettings, names: Iterable[str]) -> None:
    """Raises `SettingsError` when a pattern fits none of these layers."""
    names = list(names)
    for setting in ("rank_pattern", "alpha_pattern", "learning_rate_pattern"):
        for pattern in getattr(settings, setting):
            if not any(fits(pattern, name) for name in names):
                parts = sorted({part for name in names for part in _parts(name)})
                near = did_you_mean(pattern, parts)
                raise SettingsError(
                    f"{setting}: {pattern!r} fits no layer that is trained"
                    + (f" (did you mean {near}?)" if near else ""),
                    allowed=f"parts of layer names, such as {', '.join(dict.fromkeys(n.rpartition('.')[2] for n in names))}",
                )


def _parts(name: str) -> set[str]:
    """`a.b.c` → a, b, c, a.b, b.c, a.b.c."""
    words = name.split(".")
    return {".".join(words[i:k]) for i in range(len(words)) for k in range(i + 1, len(words) + 1)}
