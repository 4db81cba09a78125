"""The kinds of adapter that files can hold, in one table, and how a layer is told by its tensors' names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.boft import Boft
from adapt.formats.diag_oft import DiagBoft, DiagOft
from adapt.formats.dora import Dora
from adapt.formats.glora import GLora
from adapt.formats.ia3 import Ia3
from adapt.formats.layer import PEFT, Layer
from adapt.formats.loha import LoHa
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import Pair
from adapt.formats.oft import Oft
from adapt.formats.tlora import TimeLora
from adapt.formats.vera import Vera

if TYPE_CHECKING:
    from torch import Tensor

KINDS: Mapping[str, type[Layer]] = {
    kind.kind: kind for kind in (Pair, Dora, LoHa, LoKr, Oft, Boft, Vera, TimeLora, DiagOft, DiagBoft, GLora, Ia3)
}

LARGEST = 2**31
"""Numbers in a weight: more than in any model's, and a small file can ask for any product of two sides."""


def tensor_names(dialect: int) -> tuple[str, ...]:
    """Every name that a tensor of a layer can have in this dialect."""
    kinds = [kind for kind in KINDS.values() if kind.in_peft or dialect != PEFT]
    return tuple(dict.fromkeys(pair[dialect] for kind in kinds for pair in kind.names.values()))


def layer_of(
    parts: Mapping[str, Tensor],
    alpha: Callable[[int], float | None],
    *,
    dialect: int,
    rank: int = 0,
    label: str,
    path: Path,
) -> Layer:
    """A layer from its tensors by the dialect's names, judged.

    Args:
        alpha: rank → alpha; None where the file says nothing.
        rank: what the file says of it, where no shape does.
        label, path: for messages.

    Raises:
        AdapterError: a part of a layer only; a mixture; shapes that do not fit; values that are not finite.
    """
    kind, tensors = _kind_of(parts, dialect)
    if kind is None:
        listed = ", ".join(sorted(name.removesuffix(".weight") for name in parts))
        raise AdapterError(f"the adapter holds only {listed} of {label}", given=path)
    draft = kind.of(tensors, 1.0, dialect=dialect, rank=rank)
    fault = draft.misfit()
    if fault is None and math.prod(draft.size) > LARGEST:
        fault = f"a difference of {draft.size[0]} × {draft.size[1]}, which no weight has"
    if fault is None:
        draft = kind.of(tensors, alpha(draft.rank), dialect=dialect, rank=rank)
        fault = draft.fault()
    if fault:
        raise AdapterError(f"the adapter's {label} holds {fault}", given=path)
    return draft


def built(kind: str, parts: Mapping[str, Tensor], alpha: float, *, dialect: int, rank: int) -> Layer:
    """A layer of a known kind from its tensors by the dialect's names, unjudged."""
    layer = KINDS[kind]
    fields = {pair[dialect]: field for field, pair in layer.names.items()}
    return layer.of({fields[name]: tensor for name, tensor in parts.items()}, alpha, dialect=dialect, rank=rank)


def _kind_of(parts: Mapping[str, Tensor], dialect: int) -> tuple[type[Layer] | None, dict[str, Tensor]]:
    """The kind whose tensors these are, all and no others, and the tensors by field."""
    for kind in KINDS.values():
        fields = {pair[dialect]: field for field, pair in kind.names.items()}
        found = {fields[name]: tensor for name, tensor in parts.items() if name in fields}
        if len(found) == len(parts) and frozenset(found) in kind.forms and kind.is_kind(found):
            return kind, found
    return None, {}
