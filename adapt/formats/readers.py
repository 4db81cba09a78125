"""Which programs can take an adapter, by its kind: decided by the settings, so that it can be said before step 1.

Read in the programs' sources, and run for adapt, diffusers and peft only. diffusers' `load_lora_weights` refuses every file
with a key that lacks "lora", so LoHa and LoKr come as peft's folder. DoRA in kohya's names is not the same in any two programs:
ComfyUI 0.3.77 and Forge divide output rows by the norm of W instead of W + ΔW, A1111 and InvokeAI take columns whatever the shape
says; so none of them is named for it.
"""

from __future__ import annotations

from collections.abc import Mapping

UI_FOLDER = "kohya"
"""Of an adapter's folder: where the file for UIs lies."""
_UNETS = ("ComfyUI", "A1111", "Forge", "InvokeAI", "stable-diffusion.cpp")
UIS: Mapping[str, tuple[str, ...]] = {
    "sd1": _UNETS,
    "sd2": _UNETS,
    "sdxl": _UNETS,
    "sd3": ("ComfyUI",),
    "flux": ("ComfyUI", "Forge", "InvokeAI", "stable-diffusion.cpp"),
    "wan": ("ComfyUI",),
}
"""Family (`names/families.py`) → programs that take the file in `kohya/`: those whose sources have its names."""
LOADER: Mapping[str, str] = {"lora": "diffusers", "dora": "diffusers", "loha": "peft", "lokr": "peft",
                              "oft": "peft", "boft": "peft", "vera": "peft", "tlora": "adapt"}  # fmt: skip
"""Which library loads the adapter's own file: diffusers by `load_lora_weights`, peft by `PeftModel.from_pretrained`, or adapt
alone."""
IN_UIS = ("lora", "loha", "lokr")
FUSED = ("sd3", "flux")
"""Families that compute q, k and v with one weight: no LoKr of three is one of that."""


def loads_in(kind: str, family: str | None, by_diffusers: bool = True) -> tuple[str, ...]:
    """Programs that can take an adapter of this kind.

    Args:
        family: which the programs that read kohya's dialect know it as; None: they have no bases of its kind.
        by_diffusers: whether diffusers' loader takes all components of it: of text encoders, it takes CLIP only.
    """
    if LOADER[kind] == "adapt":
        return ("adapt",)
    if not by_diffusers:
        return ("adapt", "peft")
    return ("adapt", LOADER[kind], *uis(kind, family))


def uis(kind: str, family: str | None) -> tuple[str, ...]:
    """Those of them that take the file in `kohya/`."""
    if family is None or kind not in IN_UIS or (kind == "lokr" and family in FUSED):
        return ()
    return UIS[family]
