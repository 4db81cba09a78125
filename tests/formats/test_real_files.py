"""Files that other programs wrote, by the names of their tensors: each is read, and each layer has its place in the real base.

Whole files with their shapes are as InvokeAI's tests list them; the others are layers that programs have logged because they did
not know them. `tests/facts/real_files.json` names the source of each. Names and shapes are facts about the files; the numbers in
them are ours.
"""

import functools
import itertools
import json
import re
from pathlib import Path

import diffusers
import pytest
import torch
import transformers

from adapt.errors import AdapterError
from adapt.formats.dialects import DIALECTS, dialect_of
from adapt.formats.encoder_names import in_memory
from adapt.formats.names.words import dotted, flat
from adapt.formats.placing import in_diffusers_names

FACTS = Path(__file__).parents[1] / "facts"
FILES = {file["name"]: file for file in json.loads((FACTS / "real_files.json").read_text("utf-8"))["files"]}
CONFIGS = json.loads((FACTS / "model_configs.json").read_text("utf-8"))
BASES = {"sd1": "sd15", "sdxl": "sdxl", "sd3": "sd3-medium", "sd35": "sd3.5-medium", "flux": "flux1-dev", "zimage": "z-image",
         "wan": "wan2.1-t2v-14b", "qwen": "qwen-image"}  # fmt: skip
OUT, IN, RANK = 84, 8, 4
"""Of layers whose shapes nobody logged: OUT divides into q, k and v, and into Flux's seven parts."""
LORA = ("lora", "lora_linear_layer")
DOWN = ("down.weight", "lora_down.weight", "lora_A.weight", *(f"{each}.down.weight" for each in LORA))
UP = ("up.weight", "lora_up.weight", "lora_B.weight", *(f"{each}.up.weight" for each in LORA))
SHAPES = {
    "alpha": (), "on_input": (), "weight": (OUT,), "dora_scale": (OUT, 1), "lokr_w1": (12, 4), "lokr_w2": (7, 2),
    **dict.fromkeys(DOWN, (RANK, IN)), **dict.fromkeys(UP, (OUT, RANK)),
    **dict.fromkeys(("hada_w1_a", "hada_w2_a"), (OUT, RANK)), **dict.fromkeys(("hada_w1_b", "hada_w2_b"), (RANK, IN)),
    **{f"oft_blocks.{n}": (2, 14, 14) for n in range(3)}, **dict.fromkeys(("b_norm", "w_norm", "diff", "diff_b"), (OUT,)),
}  # fmt: skip


def spelled_out(pattern):
    """`a{0-2|x}b` → a0b, a1b, a2b, axb; the product of several."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    if any("{" in part or "}" in part for part in parts):  # one in another: the inner first
        inner = re.search(r"\{([^{}]*)\}", pattern)
        found = [pattern[: inner.start()] + each + pattern[inner.end() :] for each in alternatives(inner[1])]
        return [name for each in found for name in spelled_out(each)]
    choices = [alternatives(part) if place % 2 else [part] for place, part in enumerate(parts)]
    return ["".join(each) for each in itertools.product(*choices)]


def alternatives(text):
    found = []
    for each in re.split(r"[|,]", text):
        span = re.fullmatch(r"(\d+)-(\d+)", each)
        found += [str(n) for n in range(int(span[1]), int(span[2]) + 1)] if span else [each]
    return found


def tensors_of(file):
    dice = torch.Generator().manual_seed(0)
    found = {}
    for pattern, shape in file["keys"].items():
        for name in spelled_out(pattern):
            end = next(
                end for end in (*sorted(SHAPES, key=len, reverse=True), "") if name.endswith(f".{end}") or not end
            )
            sides = tuple(SHAPES[end] if shape is None else shape)
            # one number for a whole tensor: a file of Flux's is 0.1 to 1 GB
            found[name] = (0.1 * torch.randn((), generator=dice)).expand(sides)
    return found


@functools.cache
def places(base):
    """(component, layer) of all weights of a real base, without memory → shape."""
    found = {}
    for component, model in parts_of(base).items():
        for name, parameter in model.named_parameters():
            if name.endswith(".weight"):
                found[component, in_memory(component, name.removesuffix(".weight"))] = tuple(parameter.shape)
    return found


def parts_of(base):
    config = dict(CONFIGS[BASES[base.removesuffix("-i2v")]])
    arguments = config["arguments"] | ({"added_kv_proj_dim": 5120, "image_dim": 1280} if base == "wan-i2v" else {})
    with torch.device("meta"):
        denoiser = getattr(diffusers, config["class"])(**arguments)
        component = "unet" if base.startswith(("sd1", "sdxl")) else "transformer"
        return {component: denoiser, **encoders_of(base)}


def encoders_of(base):
    large = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, projection_dim=768
    )
    huge = transformers.CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
    )
    t5 = transformers.T5Config(d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    plain, projected = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
    return {
        "sd1": lambda: {"text_encoder": plain(large)},
        "sdxl": lambda: {"text_encoder": plain(large), "text_encoder_2": projected(huge)},
        "flux": lambda: {"text_encoder": plain(large), "text_encoder_2": transformers.T5EncoderModel(t5)},
        "sd3": lambda: {
            "text_encoder": projected(large), "text_encoder_2": projected(huge), "text_encoder_3": transformers.T5EncoderModel(t5)
        },
    }.get(base, dict)()  # fmt: skip


def layers_read(file, path):
    tensors = tensors_of(file)
    dialect = dialect_of(tensors, path)
    assert dialect.name == file["dialect"]
    return {
        (c, name): layer
        for c, inside in dialect.read(path, tensors, {}).modules.items()
        for name, layer in inside.items()
    }


READ = [name for name, file in FILES.items() if "refused" not in file and file["dialect"] != "peft"]


@pytest.mark.parametrize("name", READ)
def test_every_layer_has_its_place(tmp_path, name):
    file = FILES[name]
    layers, base = layers_read(file, tmp_path / "a.safetensors"), places(file["base"])
    assert not [place for place in layers if place not in base]
    if file["whole"]:
        assert not [place for place, layer in layers.items() if not layer.fits(base[place])]


@pytest.mark.parametrize("base", ["zimage", "wan", "wan-i2v", "qwen", "flux", "sd35"])
def test_underscores_are_dots_again_in_every_layer(base):
    """As `lycoris_…` and musubi-tuner's names are read."""
    names = [name for (component, name), shape in places(base).items() if component == "transformer" and len(shape) > 1]
    assert len(names) > 100 and not [name for name in names if dotted(flat(name)) != name]
    assert {in_diffusers_names(name).component for name in names} == {"transformer"}


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if "refused" in file])
def test_what_changes_more_than_weights_is_refused_by_name(tmp_path, name):
    with pytest.raises(AdapterError, match=FILES[name]["refused"]):
        layers_read(FILES[name], tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file["dialect"] == "peft"])
def test_pefts_files(tmp_path, name):
    """They need the configuration beside them, which those who listed the names did not."""
    file = FILES[name]
    tensors = tensors_of(file)
    assert dialect_of(tensors, tmp_path).name == "peft"
    modules = {key.removeprefix("base_model.model.").rsplit(".lo", 1)[0] for key in tensors}
    assert not [module for module in modules if not any(module == place for _, place in places(file["base"]))]


def test_there_are_forty_of_eight_programs():
    assert len(FILES) >= 40 and {file["dialect"] for file in FILES.values()} >= set(DIALECTS) - {"single-model"}
