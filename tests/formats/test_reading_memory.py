"""What reading a file costs: at most twice its size, and a small file that asks for much is refused before it gets it."""

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adapt.errors import AdapterError
from adapt.formats import read

STATUS = Path("/proc/self/status")


def bytes_of(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", STATUS.read_text())[1])


def lora(dtype=torch.float32):
    for n in range(6):
        yield f"double_blocks_{n}_img_attn_qkv", {
            "lora_down.weight": torch.randn(64, 2048).to(dtype), "lora_up.weight": torch.randn(6144, 64).to(dtype)
        }  # fmt: skip


def loha():
    for n in range(4):
        sides = {"w1_a": (6144, 32), "w1_b": (32, 2048), "w2_a": (6144, 32), "w2_b": (32, 2048)}
        yield f"double_blocks_{n}_img_attn_qkv", {f"hada_{end}": torch.randn(shape) for end, shape in sides.items()}


def oft():
    for n in range(3):
        yield f"double_blocks_{n}_img_mlp_2", {"oft_blocks": torch.randn(4, 512, 512)}


def wide():
    yield (
        "double_blocks_0_img_mlp_0",
        {"lora_down.weight": torch.randn(512, 4096), "lora_up.weight": torch.randn(4096, 512)},
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel says how much memory was held at most")
@pytest.mark.parametrize(
    "make", [lora, lambda: lora(torch.float16), loha, oft, wide], ids=["lora", "half", "loha", "oft", "wide"]
)
def test_reading_takes_at_most_twice_the_file(tmp_path, make):
    path = tmp_path / "a.safetensors"
    save_file({f"lora_unet_{layer}.{end}": t for layer, parts in make() for end, t in parts.items()}, path)
    read(path)  # what is taken once, by libraries
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is as it is now
    before = bytes_of("VmRSS")
    weights = read(path)
    assert len(weights) and bytes_of("VmHWM") - before <= 2 * path.stat().st_size


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_down.weight": torch.ones(1, 60_000), "lora_up.weight": torch.ones(60_000, 1)},
        {f"hada_w{k}_{x}": torch.ones(*s) for k in (1, 2) for x, s in (("a", (60_000, 1)), ("b", (1, 60_000)))},
        {"lokr_w1": torch.ones(300, 300), "lokr_w2": torch.ones(300, 300)},
        {
            "lora_down.weight": torch.ones(1, 60_000, 1, 1),
            "lora_mid.weight": torch.ones(1, 1, 200, 200),
            "lora_up.weight": torch.ones(4, 1, 1, 1),
        },
    ],
    ids=["lora", "loha", "lokr", "core"],
)  # fmt: skip
def test_a_small_file_that_asks_for_much_is_refused(tmp_path, parts):
    path = tmp_path / "a.safetensors"
    save_file({f"lora_unet_mid_block_attentions_0_proj_in.{end}": tensor for end, tensor in parts.items()}, path)
    assert path.stat().st_size < 2**20
    with pytest.raises(AdapterError, match=r"no weight has|no convolution's size"):
        read(path)
