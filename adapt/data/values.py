"""Values on their way into the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from adapt.data.picture import Picture
from adapt.data.wording import printable
from adapt.errors import DataError


@contextmanager
def naming(picture: Picture) -> Iterator[None]:
    """What is wrong with a picture's pixels, said with its name."""
    try:
        yield
    except DataError as error:
        given = ": ".join(str(part) for part in (picture.name, error.given) if part is not None)
        raise DataError(f"A picture {error.message}", given=given, next=error.next) from error


def own(x: Tensor) -> Tensor:
    """A copy on the CPU: neither views of larger tensors nor the device's memory are kept alive."""
    return x.detach().cpu().clone(memory_format=torch.contiguous_format)


def finite(entry: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    if all(bool(x.isfinite().all()) for x in entry.values()):
        return entry
    raise DataError(f"{printable(what)} are not finite", next="use dtype float32, or remove it")
