"""Absolute paths of any root are seen in what is shared; addresses, names of modules and the like are not taken for them."""

import base64
import json
import os
from pathlib import Path

import pytest

from adapt.formats.private import is_a_path, names_a_path, peft_header, says_a_path
from adapt.hub.leaks import leaks

PATHS = [
    "see /data/ann/pictures",
    "/mnt/nas/x.png",
    "base: '/nvme0n1/ann/v1-5.safetensors'",
    "(/workspace/out)",
    "path=/srv/share/x",
    r"D:\pictures\ann\1.png",
    "D:/pictures/ann",
    "file:///mnt/ann/x",
    "![](/home/ann/x.png)",
    "`/teamspace/studios/this_studio/x`",
    "--output=/vol1/ann/out.safetensors",
]
NO_PATHS = [
    "https://huggingface.co/alice/tiny/blob/main/LICENSE",
    "http://127.0.0.1:7860/sdapi/v1/txt2img",
    "[the other](/alice/their/blob/main/x)",
    '<img src="/alice/x/resolve/main/01.png">',
    "POST /sdapi/v1/txt2img",
    "and/or 1/2 24/7 w/o",
    "up_blocks.1.attentions.0/to_q",
    "red / blue / green",
    "</div></a>",
    "#!/usr/bin/env python3",
    "> /dev/null",
    "adapter/pytorch_lora_weights.safetensors",
    "~/pictures/x",
    r"f:\mathbb{R}^n \to \mathbb{R}",
    "scale: 0.8, steps: 20",
    "/imagine a cat",
    "alice/tiny@main",
]


@pytest.mark.parametrize("text", PATHS)
def test_absolute_paths_are_seen(text):
    assert is_a_path(text) and list(leaks(text.encode(), [], []))
    told = {"source": ["x\n", text], "nested": json.dumps({"unet.where": text})}
    assert says_a_path({"a": [told]}) and list(leaks(json.dumps(told).encode(), [], []))


@pytest.mark.parametrize("text", NO_PATHS)
def test_what_is_no_path_is_left_alone(text):
    assert not is_a_path(text) and not list(leaks(text.encode(), [], []))
    assert not list(leaks(json.dumps({"source": [text, f"{text}\n"]}).encode(), [], []))


@pytest.mark.parametrize("value", ["/vault/x", "/a b/c d.png", r"E:\x.png", r"\\host\share\x", "/data/"])
def test_a_value_that_is_a_path_as_a_whole_needs_no_known_root(value):
    assert is_a_path(value) and list(leaks(json.dumps({"where": value}).encode(), [], []))


def test_folders_of_this_machine_are_known():
    root = next(
        path.name for path in sorted(Path("/").iterdir()) if path.name in ("opt", "srv", "home", "mnt", "var", "tmp")
    )
    assert names_a_path(f"it lay in /{root}/x")


def test_a_picture_in_a_header_is_no_path():
    picture = base64.b64encode(bytes.fromhex("ffd8ffe0") + os.urandom(3000)).decode()
    assert not says_a_path({"modelspec.thumbnail": f"data:image/jpeg;base64,{picture}"})


def test_of_peft_s_configuration_what_loading_needs_is_shared():
    needed = {"unet.r": 4, "unet.lora_alpha": 8.0, "unet.target_modules": ["to_q"], "unet.rank_pattern": {"^a\\.b": 2}}
    assert peft_header(json.dumps(needed)) == json.dumps(needed)
    more = {"unet.base_model_name_or_path": "/data/PLANTED/x", "unet.revision": "PLANTED", "unet.note": "PLANTED",
            "unet.auto_mapping": {"parent_library": "PLANTED"}, "unet.corda_config": {"cache_file": "/x/PLANTED"},
            "unet.exclude_modules": ["/data/PLANTED/x"], "unet.init_lora_weights": "corda"}  # fmt: skip
    assert json.loads(peft_header(json.dumps({**needed, **more}))) == needed
    assert peft_header("no json") is None and peft_header("[]") is None
