"""Where classes that are learned go in a family: tokens beside the text's, or an embedding added to the time's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from adapt.errors import SettingsError
from conditioning import Condition

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone


class Slot(NamedTuple):
    """What a class becomes before anything is learned.

    Attributes:
        kind: `tokens` or `embedding`, as `ClassConditioner` has it.
        empty: the null that it starts from: (n, D), or (D,).
        spread: standard deviation of what stands in that place otherwise.
    """

    kind: str
    empty: Tensor
    spread: float


@torch.no_grad()
def slot_of(backbone: Backbone, tokens: int) -> Slot:
    """Tokens start as the mean of the empty caption's, whose spread they have; an embedding starts as nothing.

    Raises:
        SettingsError: the family has no place for one.
    """
    if backbone.embedder is not None:
        embedded = _of_a_time(backbone, backbone.embedder)
        return Slot("embedding", torch.zeros(embedded.shape[-1]), float(embedded.std()) or 1.0)
    text = backbone.condition([""]).parts.get(backbone.caption_part, {})
    if "tokens" not in text:
        raise SettingsError("the base has no place for classes of one's own", given=backbone.reference,
                            next="leave classes out")  # fmt: skip
    said = text["tokens"][0].float().cpu()
    counted = said[text["mask"][0].bool().cpu()] if "mask" in text else said
    counted = counted if len(counted) else said
    return Slot("tokens", counted.mean(0).expand(tokens, -1).clone(), float(counted.std()) or 1.0)


def _of_a_time(backbone: Backbone, embedder: nn.Module) -> Tensor:
    """The embedding of a time in the middle of all (1, D), fp32."""
    found: list[Tensor] = []
    hook = embedder.register_forward_hook(lambda _, given, out: found.append(out))
    x = torch.zeros(1, *backbone.own_latents, device=backbone.device, dtype=backbone.dtype)
    try:
        backbone.predict(x, backbone.objective().times(torch.tensor([0.5])).to(backbone.device), backbone.null(1))
    finally:
        hook.remove()
    return found[0].float()


@contextmanager
def added(embedder: nn.Module, condition: Condition) -> Iterator[None]:
    """A learned class's embedding on the time's, inside the `with`; nothing where none is told. For embedders outside of the
    blocks, which are computed again in the backward pass when this is over."""
    embedding = condition.parts.get("class", {}).get("embedding")
    if embedding is None:
        yield
        return
    hook = embedder.register_forward_hook(lambda _, given, found: found + embedding.to(found))
    try:
        yield
    finally:
        hook.remove()
