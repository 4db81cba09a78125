"""PEFT's folder: other people's too, told by its keys, and refused with a reason where it cannot be read."""

import json

import pytest
import torch
from peft import LoHaConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from adapt.adapter import Adapter, Facts
from adapt.errors import AdapterError
from adapt.formats import LoHa, LoraWeights, Pair, read, write_peft
from adapt.formats.peft_folder import COMPONENT, CONFIG_NAME, WEIGHTS_NAME


class Blocks(nn.Module):
    """Names as a UNet has them."""

    def __init__(self, top="down_blocks"):
        super().__init__()
        self.config = {"model_type": "custom"}
        setattr(self, top, nn.ModuleDict({"to_q": nn.Linear(6, 5, bias=False), "to_k": nn.Linear(6, 5, bias=False)}))

    def forward(self, x):
        return x


@pytest.mark.parametrize("config", [
    LoraConfig(r=2, lora_alpha=5, target_modules=["to_q", "to_k"], rank_pattern={"to_q": 3}, init_lora_weights=False),
    LoraConfig(r=2, lora_alpha=5, target_modules=["to_q"], use_rslora=True, use_dora=True, init_lora_weights=False),
    LoHaConfig(r=2, alpha=5, target_modules=["to_q", "to_k"], alpha_pattern={"to_k": 0.5}, init_weights=False),
], ids=["lora", "dora", "loha"])  # fmt: skip
@pytest.mark.parametrize("top", ["down_blocks", "transformer_blocks"])
def test_what_peft_saves_is_read_as_peft_computes_it(tmp_path, config, top):
    model = get_peft_model(Blocks(top), config)
    model.save_pretrained(tmp_path)
    weights = Adapter.load(tmp_path).weights
    ((component, layers),) = weights.modules.items()
    assert component == ("unet" if top == "down_blocks" else "transformer")
    for name, layer in layers.items():
        theirs = model.base_model.model.get_submodule(name)
        assert torch.allclose(layer.delta(), theirs.get_delta_weight("default"), atol=1e-5)
        merged = layer.merged(theirs.base_layer.weight, 1.0)
        theirs.merge()
        assert torch.allclose(merged, theirs.base_layer.weight, atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    dice = torch.Generator().manual_seed(0)
    halves = (torch.randn(*shape, generator=dice) for shape in ((5, 2), (2, 6), (5, 2), (2, 6)))
    weights = LoraWeights({"transformer": {"blocks.0.to_q": LoHa(*halves, 3.0)}})
    write_peft(tmp_path / "peft", weights, {})
    return tmp_path / "peft"


def test_the_component_is_said_and_nothing_private_is(folder):
    assert set(read(folder / WEIGHTS_NAME).modules) == {"transformer"}
    config = json.loads((folder / CONFIG_NAME).read_text())
    assert config["peft_type"] == "LOHA" and config["base_model_name_or_path"] is None
    assert config["target_modules"] == ["blocks.0.to_q"] and (config["r"], config["alpha"]) == (2, 3.0)


@pytest.mark.parametrize(
    "content", [None, "", "[]", "3", "{", "[" * 100_000, '{"peft_type": "IA3"}', '{"peft_type": ["LOHA"]}', "{}"]
)
def test_a_folder_without_a_configuration_that_is_known_is_refused(folder, content):
    if content is None:
        (folder / CONFIG_NAME).unlink()
    else:
        (folder / CONFIG_NAME).write_text(content)
    for look in (Adapter.locate, Adapter.load):
        with pytest.raises(AdapterError, match=r"peft adapter"):
            look(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model.model.blocks.0.to_q.oft_r": torch.ones(2)}, "not known"),
        ({"nowhere.0.to_q.hada_w1_a": torch.ones(2)}, "no adapter's"),
        ({"base_model.model.blocks.0.to_q.hada_w1_a": torch.ones(2, 2)}, "no LoHa"),
        ({"base_model.model.blocks.0.to_k.hada_w1_a": torch.ones(2, 2)}, "holds only"),
    ],
)
def test_keys_and_shapes_are_judged(folder, change, message):
    path = folder / WEIGHTS_NAME
    save_file({**load_file(path), **change}, path, {COMPONENT: "transformer"})
    with pytest.raises(AdapterError, match=message):
        read(path)


def test_a_component_that_is_none_is_refused(folder):
    path = folder / WEIGHTS_NAME
    save_file(load_file(path), path, {COMPONENT: "vae"})
    with pytest.raises(AdapterError, match="component"):
        read(path)


@pytest.mark.parametrize(
    "given", [{"r": "big"}, {"alpha": None}, {"alpha_pattern": 3}, {"alpha_pattern": {"(": 1}}, {"alpha": 1e999}]
)
def test_a_configuration_that_gives_no_alpha_is_refused(folder, given):
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps({**config, **given}))
    with pytest.raises(AdapterError):
        read(folder / WEIGHTS_NAME)


def test_two_networks_are_two_folders(tmp_path):
    pair = Pair(torch.ones(1, 3), torch.ones(2, 1), 1.0)
    weights = LoraWeights({"unet": {"a": pair}, "text_encoder": {"encoder.layer.0.query": pair}})
    Adapter(weights, Facts(trigger="zxc"), "style").save(tmp_path / "run" / "adapter")
    for inside in ("run", "run/adapter", "run/adapter/peft/unet", "run/adapter/peft/text_encoder"):
        loaded = Adapter.load(tmp_path / inside)
        assert loaded.weights.equals(weights) and loaded.trigger == "zxc" and loaded.name == "run"
    assert not (tmp_path / "run" / "adapter" / "peft" / WEIGHTS_NAME).exists()


def test_an_adapter_of_pefts_kind_is_a_folder_with_its_facts_and_name(tmp_path, folder):
    weights = read(folder / WEIGHTS_NAME)
    facts = Facts(trigger="zxc")
    Adapter(weights, facts, "style").save(tmp_path / "run" / "adapter")
    assert not (tmp_path / "run" / "adapter" / "pytorch_lora_weights.safetensors").exists()
    for path in (tmp_path / "run", tmp_path / "run" / "adapter"):
        loaded = Adapter.load(path)
        assert loaded.name == "run" and loaded.trigger == "zxc" and loaded.weights.equals(weights)
    bare = Adapter.load(tmp_path / "run" / "adapter" / "peft")
    assert bare.weights.equals(weights) and bare.trigger == "zxc"
    assert Adapter.load(folder).facts == Facts()
