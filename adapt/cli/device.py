"""`--device`: judged without torch, then found."""

from __future__ import annotations

import re

from adapt.errors import SettingsError

DEVICE = re.compile(r"^(cpu|mps|cuda(:\d+)?)$")


def judge_device(given: str | None) -> None:
    """Raises `SettingsError` for what is no device's name."""
    if given is not None and not DEVICE.match(given):
        raise SettingsError("unknown --device", given=given, allowed="cpu, mps, cuda, cuda:0, cuda:1 …")


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
