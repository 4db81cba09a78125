"""The Open Model Initiative's names, which OneTrainer writes (Nerogar/OneTrainer `modules/util/convert/lora`) and InvokeAI reads.

The models' own, but q, k and v stand apart as `qkv.0`, `qkv.1`, `qkv.2`; before them `transformer.` or `unet.`, and `clip_l.`,
`clip_g.`, `t5.` before text encoders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.encoder_names import in_memory
from adapt.formats.kohya import tensors_of
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family
from adapt.formats.names.native import Names, native
from adapt.formats.names.transformers import FLUX, SD3
from adapt.formats.names.unet import SDXL_UNET
from adapt.formats.placing import Place, at, is_flux, native_layers

if TYPE_CHECKING:
    from torch import Tensor

KEY = re.compile(
    r"^((transformer|unet)\.((double|single|joint|input|output)_blocks|middle_block|(img|txt|time|vector|guidance)_in|final_layer"
    r"|time_embed|label_emb|out|x_embedder|context_embedder|t_embedder|y_embedder)\.|clip_l\.|clip_g\.|t5\.)"
)
_RENAMED = {"img_in": "img_in.proj"}


def _apart(names: Names) -> Names:
    rows = []
    for row in names.table:
        own = _RENAMED.get(row.name, row.name)
        if len(row.modules) == 1:
            rows.append(native(own, *row.modules, halves=row.halves))
        else:
            rows += [native(f"{own}.{place}", module) for place, module in enumerate(row.modules)]
    return Names(tuple(rows))


NAMES: Mapping[str, Names] = {"flux": _apart(FLUX), "sd3": _apart(SD3), "sdxl": SDXL_UNET}


def placer(names: Iterable[str]) -> Callable[[str], Place | None]:
    """Where a layer of a name belongs."""
    t5 = "text_encoder_2" if is_flux(names) else "text_encoder_3"
    encoders = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5": t5}

    def place(name: str) -> Place | None:
        start, _, rest = name.partition(".")
        if component := encoders.get(start):
            return at(component, in_memory(component, rest))
        found = (NAMES["sdxl"],) if start == "unet" else (NAMES["flux"], NAMES["sd3"])
        row = next((row for each in found if (row := each.of_native(rest))), None)
        return Place(start, row) if row else None

    return place


def said(weights: LoraWeights, family: Family) -> dict[str, Tensor]:
    """An adapter in these names.

    Raises:
        AdapterError: a family that the standard has no names for.
    """
    if family.name not in NAMES:
        raise AdapterError("OMI's format has no names for this family", given=family.title, next="--format kohya")
    encoders = {component: "t5" if name == "t5xxl" else name for component, name in family.comfy_text.items()}
    layers = native_layers(weights, replace(family, names=NAMES[family.name]))
    return tensors_of({f"{encoders.get(c, c)}.{name}": layer for c, name, layer in layers})
