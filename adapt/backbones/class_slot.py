"""Where classes that are learned go in a family: tokens beside the text's, or an embedding added to the time's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
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
    places, width = backbone.embedders
    if places:
        return Slot("embedding", torch.zeros(width), _spread(backbone, places[0]))
    text = backbone.condition([""]).parts.get(backbone.caption_part, {})
    if "tokens" not in text:
        raise SettingsError("the base has no place for classes of one's own", given=backbone.reference,
                            next="leave classes out")  # fmt: skip
    said = text["tokens"][0].float().cpu()
    counted = said[text["mask"][0].bool().cpu()] if "mask" in text else said
    counted = counted if len(counted) else said
    return Slot("tokens", counted.mean(0).expand(tokens, -1).clone(), float(counted.std()) or 1.0)


def _spread(backbone: Backbone, place: nn.Module) -> float:
    """Standard deviation of a time's embedding, in the middle of all times."""
    found: list[Tensor] = []
    hook = place.register_forward_hook(lambda _, given, out: found.append(out))
    x = torch.zeros(1, *backbone.own_latents, device=backbone.device, dtype=backbone.dtype)
    try:
        backbone.predict(x, backbone.objective().times(torch.tensor([0.5])).to(backbone.device), backbone.null(1))
    finally:
        hook.remove()
    return float(found[0].float().std()) or 1.0


@contextmanager
def added(places: Sequence[nn.Module], condition: Condition) -> Iterator[None]:
    """A learned class's embedding on the time's, inside the `with`; nothing where none is told."""
    embedding = condition.parts.get("class", {}).get("embedding")
    with ExitStack() as stack:
        if embedding is not None:
            hook = partial(_plus, embedding)
            for place in places:
                stack.callback(place.register_forward_hook(hook).remove)
        yield


def _plus(embedding: Tensor, place: nn.Module, given: object, found: Tensor) -> Tensor:
    return found + embedding.to(found)
