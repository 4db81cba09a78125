"""`--device` and `--precision`: judged without torch, then found; the base that is drawn with, held so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.backbones import Backbone

PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
DEVICE = re.compile(r"^(cpu|mps|cuda(:\d+)?)$")


def judge_device(given: str | None) -> None:
    """Raises `SettingsError` for what is no device's name."""
    if given is not None and not DEVICE.match(given):
        raise SettingsError("unknown --device", given=given, allowed="cpu, mps, cuda, cuda:0, cuda:1 …")


def judge_precision(given: str | None) -> None:
    """Raises `SettingsError` for what is no precision."""
    if given is not None and given not in PRECISIONS:
        raise SettingsError("unknown --precision", given=given, allowed=", ".join(PRECISIONS))


def base_of(reference: str, device: str | None, precision: str | None) -> Backbone:
    """The base that is drawn with.

    Args:
        device: None: the best there is.
        precision: None: as its weights are; float16 is float32 on a CPU, which is said of bases that did not come with adapt.

    Raises:
        SettingsError: the device is not here.
        BackboneError: the base is not there, or not usable.
    """
    import torch

    from adapt.backbones import Backbone
    from adapt.loading import held_in, own_precision, told_of
    from adapt.progress import say
    from adapt.source import bundled, source

    there, where = device_of(device), source(reference)
    held = precision or held_in(where, there)
    if precision is None and reference not in bundled() and (told := told_of(own_precision(where), held)):
        say(f"{told}; --precision says otherwise")
    return Backbone.load(reference, dtype=getattr(torch, PRECISIONS[held]), device=there)


def device_of(given: str | None) -> str:
    """The given device, else the best there is.

    Raises:
        SettingsError: it is not here.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    best = next(name for name, found in there.items() if found)
    if given and not there[given.partition(":")[0]]:
        raise SettingsError(
            "this device is not here", given=given, allowed=", ".join(n for n, found in there.items() if found)
        )
    return given or best
