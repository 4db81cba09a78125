"""T-LoRA in a model: rows of a batch with as many components as their times have, and weights that follow the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapt.errors import AdapterError
from adapt.formats import Layer
from adapt.formats.tlora import TimeLora, active

if TYPE_CHECKING:
    from adapt.lora.applied import Applied


@dataclass
class Clock:
    """Where on the way to pure noise the rows are that are predicted.

    Attributes:
        share_of: times (B,) in the objective's unit → shares of that way (B,).
        share: of the rows of the last call; None before the first.
    """

    share_of: Callable[[Tensor], Tensor] | None = None
    share: Tensor | None = field(default=None, repr=False)

    def __call__(self, t: Tensor) -> None:
        """To be told before each prediction."""
        assert self.share_of is not None, "a clock that nobody has set"
        self.share = self.share_of(t)


class ActiveComponents(nn.Module):
    """Behind A: components beyond those of a row's time are 0, so that they have no gradient either.

    Args:
        least: r_min.
        axis: where components stand: -1 behind linear layers, 1 behind convolutions.
    """

    def __init__(self, clock: Clock, least: int, axis: int) -> None:
        super().__init__()
        self.clock, self.least, self.axis = clock, least, axis

    def forward(self, inner: Tensor) -> Tensor:
        """(n, …) with components on `axis`; n is a multiple of the batch: rows of one picture stand together."""
        share = self.clock.share
        if share is None:
            raise ValueError("nobody has said at which time this is")
        rank = inner.shape[self.axis]
        count = active(share.to(inner.device), rank, self.least)
        count = count.repeat_interleave(len(inner) // len(count))  # frames of a clip, say
        on = torch.arange(rank, device=inner.device) < count[:, None]
        sides = [len(inner), *[1] * (inner.ndim - 1)]
        sides[self.axis] = rank
        return inner * on.view(sides).to(inner)


def orthonormal(layer: Any, name: str) -> None:
    """A starts with rows at right angles, of length 1 (columns, where there are fewer inputs than components), so that no
    component says what another does (section 3.2; the paper also trains a diagonal between A and B, which is B's here)."""
    weight = layer.lora_A[name].weight
    flat = weight.data.flatten(1).double().cpu()
    wide = flat.shape[0] <= flat.shape[1]
    q, r = torch.linalg.qr(flat.t() if wide else flat)
    q = q * r.diagonal().sign()  # one answer, whatever the library's habit
    weight.data = (q.t() if wide else q).reshape(weight.shape).to(weight)


class Following:
    """An applied adapter whose weights are those of the time that is predicted: put on again where it has other components.

    Args:
        applied: it, with the layers of one time on it.
        layers: by `<component>.<layer>`.
        share_of: as `Clock`'s.
    """

    def __init__(
        self, applied: Applied, layers: Mapping[str, Layer], share_of: Callable[[Tensor], Tensor], share: float
    ) -> None:
        self.applied, self.share_of = applied, share_of
        self.timed = {name: layer for name, layer in layers.items() if isinstance(layer, TimeLora)}
        self.now = {name: layer.components(share) for name, layer in self.timed.items()}

    def __call__(self, t: Tensor) -> None:
        """To be told before each prediction.

        Raises:
            AdapterError: rows at several times, of which weights can be at one only.
        """
        if self.applied.resting:
            return
        shares = torch.unique(self.share_of(t))
        if len(shares) != 1:
            raise AdapterError("a T-LoRA in the weights is at one time, and rows are at several", given=shares.tolist())
        share = float(shares)
        counts = {name: layer.components(share) for name, layer in self.timed.items()}
        self.applied.become({n: self.timed[n].at(share) for n, count in counts.items() if count != self.now[n]})
        self.now = counts


def at_share(layers: Mapping[str, Layer], share: float) -> dict[str, Layer]:
    """Layers as they are at this share of the way to pure noise."""
    return {name: layer.at(share) if isinstance(layer, TimeLora) else layer for name, layer in layers.items()}


def listening(module: nn.Module, layers: Mapping[str, Layer], clock: Clock) -> None:
    """Leaves components out behind A in LoRA layers that a library has put into a module, as in training."""
    for name, layer in layers.items():
        if isinstance(layer, TimeLora):
            for down in module.get_submodule(name).lora_A.values():  # type: ignore[operator]
                axis = 1 if down.weight.ndim > 2 else -1
                leave_out(down, ActiveComponents(clock, int(layer.least), axis))


def leave_out(down: nn.Module, components: ActiveComponents) -> None:
    """Puts it behind A."""
    down.active = components.train(down.training)
    down.register_forward_hook(lambda module, given, out: module.active(out))
