"""Whether a picture shows its prompt, without any other network: a conditional diffusion model is a classifier (Li et al. 2023,
arXiv 2303.16203). The prompt under which the base denoises the picture best is what it sees in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.evaluation.held_out import HeldOut

CANDIDATES, TIMES = 4, 4
"""Prompts that are compared, the picture's own among them, and at how many times, always with the same noise."""


def candidates(prompts: Sequence[str]) -> int:
    """How many prompts each picture is compared with, its own among them; chance is 1 in so many. 1: nothing can be told."""
    return min(CANDIDATES, len(prompts))


def retrieved(backbone: Backbone, latents: Tensor, own: Sequence[int], prompts: Sequence[str]) -> Tensor:
    """Which pictures the base recognises as their prompt (N,), bool.

    Args:
        backbone: without any adapter.
        latents: clean ones (N, C, *dims).
        own: number of each picture's prompt.
        prompts: different ones, at least two; a picture is compared with its own and the next ones in this order.
    """
    objective, errors = backbone.objective(), []
    for number in range(candidates(prompts)):
        texts = [prompts[(one + number) % len(prompts)] for one in own]
        condition = backbone.condition(texts)
        errors.append(HeldOut(latents, condition, times=TIMES).table(backbone, objective))
    table = torch.stack(errors)  # (candidates, N, times)
    relative = table / table.mean(0).clamp(min=1e-30)  # every time counts alike
    total = relative.mean(2)
    return total[0] < total[1:].amin(0)
