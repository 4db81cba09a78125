"""Starts of LoRA that look at the pictures first: EVA and LoRA-GA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones import Backbone
from adapt.lora import Injection
from adapt.lora.injection import tuned
from adapt.lora.kinds import NAME
from adapt.training.step import Course, row_losses

GAMMA = 16.0
"""LoRA-GA's γ: of the scale at which A and B start (its section 3.3; as in its code)."""
ROWS = 128
"""Inputs of a layer that are looked at in one picture, evenly spread."""


def start_from_data(course: Course) -> None:
    """Starts A and B as `init` says, from the first batches of the run. A function of the seed: every process, and a run that
    goes on, comes to the same numbers, however its batches are cut: pictures are looked at one by one.
    """
    start = {"eva": by_inputs, "lora_ga": by_gradients}.get(course.settings.init)
    if start is not None:
        with _bare(course.backbone):
            start(course)


def _losses(course: Course) -> Iterator[Tensor]:
    """The loss of each picture of the first batches, divided by their number."""
    batch, steps = course.settings.batch_size, course.settings.init_batches
    for step in range(steps):
        for position in range(batch):
            yield row_losses(course, course.plan.rows(step, [position])).sum() / (batch * steps)


# ---------------------------------------------------------------------------------------------------- EVA
@torch.no_grad()
def by_inputs(course: Course) -> None:
    """EVA (Paischer et al. 2024, arXiv 2410.07170): A as the directions in which a layer's inputs vary most, B from 0. Every
    layer keeps the rank that it was given (the paper's ρ = 1)."""
    layers = _layers(course)
    seen = {key: _Directions(len(layer.lora_A[NAME].weight)) for key, layer in layers.items()}
    hooks = [layer.get_base_layer().register_forward_pre_hook(_look(seen[key])) for key, layer in layers.items()]
    try:
        for _ in _losses(course):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    for key, layer in layers.items():
        down, found = layer.lora_A[NAME].weight, seen[key].found
        if found is not None:
            found = F.normalize(found, dim=1)
            down.flatten(1)[: len(found)] = found.to(down)


@dataclass
class _Directions:
    """The largest right singular vectors of all inputs so far, times their singular values (k, in).

    Attributes:
        wanted: how many; twice as many are carried along.
    """

    wanted: int
    rows: Tensor | None = field(default=None, repr=False)

    def add(self, x: Tensor) -> None:
        """More inputs (n, in)."""
        known = x if self.rows is None else torch.cat([self.rows, x])
        _, s, v = torch.linalg.svd(known, full_matrices=False)
        self.rows = s[: 2 * self.wanted, None] * v[: 2 * self.wanted]

    @property
    def found(self) -> Tensor | None:
        """Those wanted that are there (k, in), the largest first; None: nothing was seen."""
        if self.rows is None:
            return None
        there = self.rows.norm(dim=1) > 1e-6 * self.rows.norm()
        return self.rows[there][: self.wanted]


def _look(directions: _Directions) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        rows = inputs(layer, given[0]).float()
        directions.add(rows[:: -(-len(rows) // ROWS)])

    return hook


def inputs(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer multiplies its weight with, as rows (n, in × kernel)."""
    if not isinstance(layer, nn.Conv2d):
        return x.flatten(0, -2) if not isinstance(layer, nn.Conv1d | nn.Conv3d) else x.transpose(1, -1).flatten(0, -2)
    size: Any = layer.kernel_size
    columns = F.unfold(x, size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]  # (B, in × kernel, L)
    return columns.transpose(1, 2).flatten(0, 1)


# ---------------------------------------------------------------------------------------------------- LoRA-GA
def by_gradients(course: Course) -> None:
    """LoRA-GA (Wang et al. 2024, arXiv 2407.05000): of the gradient's singular vectors, A as the first r on the right, B as the
    next r on the left, both times out^¼ / √γ; what that adds is taken out of the weight. The first step of A and B then does
    the best that rank 2 r can do of the gradient."""
    layers = _layers(course)
    weights = {key: layer.get_base_layer().weight for key, layer in layers.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        for loss in _losses(course):
            torch.autograd.backward(loss)
        gradients = {key: weight.grad for key, weight in weights.items()}
    finally:
        for tensor in (*weights.values(), *course.injection.parameters.values()):
            tensor.grad = None
        for weight in weights.values():
            weight.requires_grad_(False)
    for component, part in course.injection.parts.items():
        assert isinstance(part, Injection), "what does not learn has no start"
        _split(part, component, gradients)


def _split(part: Injection, component: str, gradients: dict[tuple[str, str], Tensor | None]) -> None:
    def factors(name: str, layer: Any) -> tuple[Tensor, Tensor]:
        gradient = gradients.pop((component, name))  # one after another: they are as large as the weights
        weight, rank = layer.get_base_layer().weight, len(layer.lora_A[NAME].weight)
        if gradient is None or not bool(gradient.any()):
            return weight.new_zeros(0, weight[0].numel()), weight.new_zeros(len(weight), 0)
        u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
        own = min(rank, v.shape[0] // 2)
        scale = len(weight) ** 0.25 / GAMMA**0.5
        return scale * v[:own], scale * u[:, own : 2 * own]

    part.split(factors)


def _layers(course: Course) -> dict[tuple[str, str], Any]:
    """(component, name) → peft's layer, for all that is trained."""
    return {(c, name): layer for c, part in course.injection.parts.items() for name, layer in tuned(part.module)}


@contextmanager
def _bare(backbone: Backbone) -> Iterator[None]:
    """Without the wrapper of several processes: each looks at everything itself."""
    wrapped, backbone.wrapped = backbone.wrapped, None
    try:
        yield
    finally:
        backbone.wrapped = wrapped
