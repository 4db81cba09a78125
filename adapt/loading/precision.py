"""What a base is held in where the user says nothing. Imports no torch."""

from __future__ import annotations

from collections import Counter

from adapt.checkpoints import header
from adapt.checkpoints.contents import DENOISERS
from adapt.checkpoints.packing import packing_of
from adapt.source import Source, source

OWN = {"F32": "fp32", "F64": "fp32", "F16": "fp16", "BF16": "bf16"}
"""What most of a denoiser's numbers are, as files call it → `precision`; everything else is packed."""


def own_precision(where: Source) -> str:
    """What most of the denoiser's numbers are in its files: `fp32`, `fp16`, `bf16`; else as the files call it (`F8_E4M3`), or
    how it is held in few bits (`gguf`)."""
    packed = packing_of(where.folder, where.contents)
    if few := next((packed[name] for name in DENOISERS if name in packed), None):
        return few
    contents = where.contents
    files = [file for name in DENOISERS for file in where.weights(name)]
    entries = contents.denoiser.values() if contents else [e for file in files for e in header(file).values()]
    numbers: Counter[str] = Counter()
    for entry in entries:
        numbers[entry.dtype] += entry.numbers
    most = numbers.most_common(1)[0][0] if numbers else "F32"
    return OWN.get(most, most)


def held_in(where: Source, device: str) -> str:
    """What a base is held in when nothing is said: as its denoiser's weights are, `fp32`, `fp16` or `bf16`.

    CPUs compute poorly in float16: there it is float32. Weights in few bits are unpacked in every pass, to float32 on a CPU and
    bfloat16 elsewhere; those in 8-bit floats are widened to bfloat16.

    Args:
        device: `cpu`, `cuda:0` …
    """
    own, on_cpu = own_precision(where), device.partition(":")[0] == "cpu"
    if own in OWN.values():
        return "fp32" if own == "fp16" and on_cpu else own
    return "bf16" if own.startswith("F8") or not on_cpu else "fp32"


def told_of(own: str, held: str) -> str | None:
    """What is worth saying of `own_precision` and what a base is held in; None: nothing."""
    if own == held:
        return None
    known = own in OWN.values() or own.startswith("F8")
    return (
        f"weights in {own}, held in {held}" if known else f"weights packed as {own}, unpacked to {held} in every pass"
    )


def in_few_bits(reference: str) -> bool:
    """Whether the denoiser's files hold it in few bits."""
    where = source(reference)
    return not set(DENOISERS).isdisjoint(packing_of(where.folder, where.contents))
