"""New words that others' LoRA files bring with them: read, taught while the adapter is on, saved as an adapter's own."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.adapter import Adapter
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import AdapterError

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
WORD = "bundle_emb.zxc-style.string_to_param.*"  # A1111's and Forge's, after their files of one word; OneTrainer writes it too


def lora(width=16):
    dice = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, width, generator=dice), torch.randn(width, 2, generator=dice)
    return {f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up, f"{LAYER}.alpha": torch.tensor(2.0)}


def tokens(backbone):
    pipeline = backbone.pipeline
    ids = pipeline.tokenizer("a zxc-style", return_tensors="pt").input_ids
    with torch.no_grad():
        return pipeline.text_encoder(ids)[0]


def test_words_come_with_the_file_and_go_with_the_adapter(tmp_path, tiny_base, capsys):
    backbone = Backbone.load(str(tiny_base))
    width = backbone.denoiser.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight.shape[0]
    table = backbone.pipeline.text_encoder.get_input_embeddings().weight
    vectors, before = torch.ones(2, table.shape[1]), tokens(backbone)
    path = tmp_path / "a.safetensors"
    save_file({**lora(width), WORD: vectors, "bundle_emb.zxc-style.string_to_token.*": torch.tensor(265)}, path)
    adapter = Adapter.load(path)
    assert list(adapter.words) == ["zxc-style"] and adapter.words["zxc-style"]["text_encoder"].equal(vectors)
    with adapter.apply(backbone):
        assert tokens(backbone).shape != before.shape  # one word of two vectors instead of its letters
    assert tokens(backbone).equal(before)
    adapter.save(tmp_path / "own")
    assert Adapter.load(tmp_path / "own").words["zxc-style"]["text_encoder"].equal(vectors)
    assert load_file(tmp_path / "own" / "embeddings" / "zxc-style.safetensors")["zxc-style"].equal(vectors)
    assert main(["inspect", str(path)]) == 0 and "words     zxc-style" in capsys.readouterr().out
    again = tmp_path / "b.safetensors"
    assert main(["export", str(path), "--format", "diffusers", "--output", str(again), "--no-proof"]) == 0
    assert "zxc-style) are not in a LoRA file" in capsys.readouterr().err
    assert json.dumps(list(load_file(again))).count("bundle") == 0


def test_words_of_two_encoders(tmp_path):
    two = {"bundle_emb.zxc.clip_l": torch.ones(3, 8), "bundle_emb.zxc.clip_g": torch.ones(3, 12)}
    save_file({**lora(), **two}, tmp_path / "a.safetensors")
    found = Adapter.load(tmp_path / "a.safetensors").words["zxc"]
    assert {component: tuple(t.shape) for component, t in found.items()} == {
        "text_encoder": (3, 8),
        "text_encoder_2": (3, 12),
    }


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({WORD: torch.full((2, 8), torch.nan)}, "not finite"),
        ({WORD: torch.ones(2, 8, 2)}, "shape"),
        ({"bundle_emb.x.clip_l": torch.ones(2, 8), "bundle_emb.x.clip_g": torch.ones(3, 8)}, "shape"),
        ({"bundle_emb.x.something": torch.ones(2, 8)}, "no adapter's"),
    ],
    ids=range(4),
)
def test_what_is_no_word_is_refused(tmp_path, parts, message):
    save_file({**lora(), **parts}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=message):
        Adapter.load(tmp_path / "a.safetensors")


def test_words_alone_are_no_adapter(tmp_path):
    save_file({WORD: torch.ones(2, 8)}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="holds no LoRA"):
        Adapter.load(tmp_path / "a.safetensors")
