"""What merge, resize, extract and convert-embedding write is read back and given to a fresh pipeline; what fails is set aside."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.adapter import Adapter, Facts
from adapt.cli.main import main
from adapt.errors import AdapterError
from adapt.formats import LoraWeights, Pair

NAMES = (
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
)


def make(backbone, seed, reference):
    dice = torch.Generator().manual_seed(seed)
    pairs = {}
    for name in NAMES:
        out, inside = backbone.denoiser.get_submodule(name).weight.shape
        pairs[name] = Pair(torch.randn(2, inside, generator=dice) * 0.3, torch.randn(out, 2, generator=dice) * 0.3, 3.0)
    base = {"reference": reference, "family": backbone.family, "fingerprint": backbone.fingerprint()}
    return Adapter(LoraWeights({"unet": pairs}), Facts(base=base, trigger="zxc"), "style")


@pytest.fixture
def place(tmp_path, backbone, wide, monkeypatch):
    """Two adapters that say their base, which is on this machine; and one that does not."""
    for number, reference in enumerate((str(wide), str(wide), None)):
        make(backbone, number, reference).save(tmp_path / str(number))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *words, code=0):
    capsys.readouterr()
    assert main([str(word) for word in words]) == code, capsys.readouterr().err
    return capsys.readouterr()


JOBS = {
    "merge": ("merge", "0:0.5", "1"),
    "svd": ("merge", "0", "1", "--method", "svd", "--rank", 1),
    "resize": ("resize", "0", "--rank", 1),
}


@pytest.mark.parametrize("output", ["out", "out.safetensors"])
@pytest.mark.parametrize("job", JOBS)
def test_a_fresh_pipeline_takes_what_is_written(place, capsys, job, output):
    told = run(capsys, *JOBS[job], "--output", output, "--json")
    proof = json.loads(told.out)["proof"]
    assert (proof["layers"], proof["reader"]) == (2, "diffusers") and proof["difference"] < 1e-4 < proof["effect"]
    assert "diffusers takes all 2 layers" in told.err


def test_without_the_base_it_is_said_how_to_prove_it_and_with_no_proof_nothing_is_loaded(
    place, wide, capsys, monkeypatch
):
    told = run(capsys, "resize", "2", "--rank", 1, "--output", "a", "--json")
    assert "proof" not in json.loads(told.out) and "adapt verify a --base BASE" in told.err
    told = run(capsys, "resize", "2", "--rank", 1, "--base", wide, "--output", "b", "--json")
    assert json.loads(told.out)["proof"]["layers"] == 2
    monkeypatch.setattr("adapt.backbones.Backbone.load", None)
    told = run(capsys, "resize", "0", "--rank", 1, "--no-proof", "--output", "c", "--json")
    assert "proof" not in json.loads(told.out) and "pipeline" not in told.err


def test_extract_proves_on_the_base_that_it_was_given(place, wide, capsys):
    told = json.loads(run(capsys, "merge", "0", "--into-base", "--output", "tuned", "--json").out)
    assert told["proof"]["difference"] < 1e-5 < 1e-3 < told["proof"]["effect"] and told["proof"]["layers"] == 2
    told = json.loads(run(capsys, "extract", "tuned", "--base", wide, "--output", "found", "--json").out)
    assert told["proof"]["layers"] == 2 and told["proof"]["effect"] > 1e-3


@pytest.mark.parametrize("output", ["out", "out.safetensors"])
def test_what_a_pipeline_does_not_agree_with_is_set_aside(place, capsys, monkeypatch, output):
    monkeypatch.setattr("adapt.evaluation.proof._largest", lambda a, b: 1.0)
    monkeypatch.setattr("adapt.evaluation.proof.TOLERANCE", 0.5)
    told = run(capsys, "merge", "0", "1", "--output", output, code=2)
    assert "draws something else" in told.err and f"{output}.refused" in told.err and told.out == ""
    assert not (place / output).exists() and Adapter.load(place / "0").weights
    kept = place / f"{output}.refused"
    assert kept.is_dir() if output == "out" else kept.is_file()


def test_a_folder_that_reads_differently_is_set_aside(place, capsys, monkeypatch):
    load = Adapter.load

    def lying(path):
        adapter = load(path)
        return adapter if "out" not in str(path) else replace(adapter, facts=replace(adapter.facts, trigger="other"))

    monkeypatch.setattr(Adapter, "load", staticmethod(lying))
    told = run(capsys, "merge", "0", "1", "--output", "out", code=2)
    assert "adapter.json reads differently" in told.err and (place / "out.refused" / "adapter.json").is_file()
    monkeypatch.setattr(Adapter, "load", staticmethod(lambda path: load("0" if "more" in str(path) else path)))
    told = run(capsys, "merge", "0", "1", "--output", "more", code=2)
    assert "reads differently in 2 layers" in told.err and "to_q: values" in told.err and not (place / "more").exists()


def test_a_merged_base_that_predicts_something_else_is_set_aside(place, wide, capsys, monkeypatch):
    """A base that loses what was put into it on its way to the disk."""
    from diffusers import StableDiffusionPipeline

    save = StableDiffusionPipeline.save_pretrained

    def forgetful(pipeline, folder, **words):
        with torch.no_grad():
            pipeline.unet.get_submodule(NAMES[0]).weight.add_(1.0)
            save(pipeline, folder, **words)
            pipeline.unet.get_submodule(NAMES[0]).weight.sub_(1.0)

    monkeypatch.setattr(StableDiffusionPipeline, "save_pretrained", forgetful)
    told = run(capsys, "merge", "0", "--into-base", "--output", "tuned", code=2)
    assert (
        "other numbers in 1 tensors" in told.err and f"unet.{NAMES[0]}" in told.err and not (place / "tuned").exists()
    )
    assert (place / "tuned.refused" / "model_index.json").is_file()


# ---------------------------------------------------------------------------------------------------------------- verify
def test_verify_finds_the_base_itself_and_says_where_it_proved_nothing(place, wide, capsys):
    told = json.loads(run(capsys, "verify", "0", "--json").out)
    assert told["proof"]["layers"] == 2 and told["unproved"] is None
    assert "diffusers takes all 2 layers" in run(capsys, "verify", "0").out
    told = run(capsys, "verify", "2").out
    assert "the file was only read: the adapter does not say its base" in told and "--base BASE" in told
    told = json.loads(run(capsys, "verify", "2", "--json").out)
    assert told["fine"] and told["proof"] is None and "does not say its base" in told["unproved"]
    told = run(capsys, "verify", "0", "--no-proof").out
    assert "only read" in told and "takes all" not in told


# ------------------------------------------------------------------------------------------------------------- embeddings
@pytest.mark.parametrize("format", ["a1111", "diffusers"])
def test_diffusers_takes_a_converted_embedding(place, wide, capsys, format):
    vectors = torch.randn(3, 768, generator=torch.Generator().manual_seed(0)) * 0.2
    save_file({"emb_params": vectors}, "zxq.safetensors")
    words = ("convert-embedding", "zxq.safetensors", "--format", format, "--word", "<zxq>", "--base", wide)
    told = run(capsys, *words, "--output", "out.safetensors", "--json")
    proof = json.loads(told.out)["proof"]
    assert proof["layers"] == 3 and proof["difference"] < 1e-4 < proof["effect"] and "all 3 vectors" in told.err


def test_an_embedding_of_another_encoder_or_with_other_numbers_does_not_pass(place, wide, tiny_base, backbone, capsys):
    from adapt.api.tools import prove_embedding

    vectors = torch.ones(2, 768)
    save_file({"emb_params": vectors}, "zxq.safetensors")
    words = ("convert-embedding", "zxq.safetensors", "--output", "out.safetensors", "--format", "diffusers")
    assert "another text encoder" in run(capsys, *words, "--base", tiny_base, code=2).err
    assert not (place / "out.safetensors").exists()
    run(capsys, *words)
    save_file({name: tensor + 1e-3 for name, tensor in load_file("out.safetensors").items()}, "out.safetensors")
    with pytest.raises(AdapterError, match=r"other numbers for zxq.*out\.safetensors\.refused"):
        prove_embedding(place / "out.safetensors", "zxq", {"text_encoder": vectors}, backbone)
    assert not (place / "out.safetensors").exists()
