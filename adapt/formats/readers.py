"""Which programs can take an adapter, by its kind: decided by the settings, so that it can be said before step 1.

Read in the programs' sources, and run for adapt, diffusers and peft only. diffusers' `load_lora_weights` refuses every file
with a key that lacks "lora", so LoHa and LoKr come as peft's folder. DoRA in kohya's names is not the same in any two programs:
ComfyUI 0.3.77 and Forge divide output rows by the norm of W instead of W + ΔW, A1111 and InvokeAI take columns whatever the shape
says; so none of them is named for it.
"""

from __future__ import annotations

from collections.abc import Mapping

UIS = ("ComfyUI", "A1111", "Forge", "InvokeAI", "stable-diffusion.cpp")
"""Programs that take the file in `kohya/`."""
LOADER: Mapping[str, str] = {"lora": "diffusers", "dora": "diffusers", "loha": "peft", "lokr": "peft",
                              "oft": "peft", "boft": "peft", "vera": "peft", "tlora": "adapt"}  # fmt: skip
"""Which library loads the adapter's own file: diffusers by `load_lora_weights`, peft by `PeftModel.from_pretrained`, or adapt
alone."""
IN_UIS = ("lora", "loha", "lokr")


def loads_in(kind: str, speaks_kohya: bool, by_diffusers: bool = True) -> tuple[str, ...]:
    """Programs that can take an adapter of this kind.

    Args:
        speaks_kohya: whether the programs that read kohya's dialect have bases of this family.
        by_diffusers: whether diffusers' loader takes all components of it: of text encoders, it takes CLIP only.
    """
    if not by_diffusers and LOADER[kind] != "adapt":
        return ("adapt", "peft")
    if LOADER[kind] == "adapt":
        return ("adapt",)
    return ("adapt", LOADER[kind], *(UIS if speaks_kohya and kind in IN_UIS else ()))
