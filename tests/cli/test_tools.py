"""The commands on adapter files, from the door: what they write, say and refuse."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.adapter import Adapter, Facts
from adapt.api.tools import merge, merge_into_base
from adapt.cli.main import main
from adapt.errors import AdapterError
from adapt.formats import Dora, LoHa, LoraWeights, Pair, read

NAMES = (
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "conv_in",
)


def make(backbone, seed, **facts):
    pairs, dice = {}, torch.Generator().manual_seed(seed)
    for name in NAMES:
        out, *inside = backbone.denoiser.get_submodule(name).weight.shape
        ones = [1] * (len(inside) - 1)
        pairs[name] = Pair(
            torch.randn(2, *inside, generator=dice) * 0.2, torch.randn(out, 2, *ones, generator=dice) * 0.2, 3.0
        )
    base = {"reference": None, "family": backbone.family, "fingerprint": backbone.fingerprint()}
    return Adapter(LoraWeights({"unet": pairs}), Facts(base=base, **facts), "style")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, backbone):
    folder = tmp_path_factory.mktemp("adapters")
    for seed, word in enumerate(("zxc", "qwe", None)):
        make(backbone, seed, trigger=word).save(folder / f"{seed}")
    return folder


@pytest.fixture
def place(tmp_path, adapters, monkeypatch):
    shutil.copytree(adapters, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *words, code=0):
    capsys.readouterr()
    assert main([str(word) for word in words]) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    if code == 2:
        assert out == "" and err.count("\n") == 1 and err.startswith("error: "), err
        return err
    return json.loads(out) if "--json" in words else out


def delta(path, name):
    return Adapter.load(path).weights.modules["unet"][name].delta()


# ------------------------------------------------------------------------------------------------------------------ merge
def test_merge_writes_an_adapter_that_does_what_they_do_together(place, backbone, capsys):
    told = run(capsys, "merge", "0:0.5", "1:-0.3", "2", "--output", "all", "--json")
    assert told == {"path": "all", "method": "linear", "layers": 3, "ranks": [6, 6], "left_out": 0.0}
    for name in NAMES:
        wanted = 0.5 * delta("0", name) - 0.3 * delta("1", name) + delta("2", name)
        assert torch.allclose(delta("all", name), wanted, atol=1e-5)
    facts = Adapter.read_facts("all")
    assert facts.triggers == ("zxc", "qwe") and facts.base["fingerprint"] == backbone.fingerprint()


@pytest.mark.parametrize("method", ["svd", "ties", "dare", "magnitude-prune"])
def test_merge_by_other_methods_has_the_rank_that_is_asked_for(place, capsys, method):
    told = run(capsys, "merge", "0", "1", "--method", method, "--rank", 2, "--output", "two.safetensors", "--json")
    assert 0 < told["left_out"] < 1
    assert {layer.rank for layer in read(place / "two.safetensors").modules["unet"].values()} == {2}


def test_merge_into_the_base_is_a_pipeline_of_diffusers(place, wide, backbone, capsys):
    from diffusers import StableDiffusionPipeline

    run(capsys, "merge", "0:0.8", "1", "--into-base", "--base", wide, "--output", "model")
    pipeline = StableDiffusionPipeline.from_pretrained(place / "model", use_safetensors=True)
    assert not list((place / "model").rglob("*.bin"))
    before = {n: t.clone() for n, t in backbone.denoiser.state_dict().items()}
    with Adapter.load("0").apply(backbone, 0.8), Adapter.load("1").apply(backbone):
        now = backbone.denoiser.state_dict()
        assert all(torch.equal(tensor, now[name]) for name, tensor in pipeline.unet.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.denoiser.state_dict().items())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["0", "1", "--output", "0"], "something is there"),
        (["0", "nowhere", "--output", "m"], "no such adapter"),
        (["0", "1:much", "--output", "m"], "much"),
        (["0", "1", "--output", "m", "--method", "slerp"], "ties"),
        (["0", "1", "--output", "m", "--rank", "2"], "--method svd"),
        (["0", "1", "--output", "m", "--method", "ties", "--density", "2"], "density"),
        (["0", "1", "--output", "m", "--into-base"], "give --base"),
    ],
)
def test_merge_refuses(place, capsys, words, expected):
    assert expected in run(capsys, "merge", *words, code=2)
    assert not (place / "m").exists()


def other_kind(backbone, kind, folder):
    name, dice = NAMES[0], torch.Generator().manual_seed(8)
    out, inside = backbone.denoiser.get_submodule(name).weight.shape
    drawn = [0.2 * torch.randn(*shape, generator=dice) for shape in [(out, 2), (2, inside)] * 2]
    lengths = torch.ones(out, 1)
    layer = LoHa(*drawn, 3.0) if kind == "loha" else Dora(drawn[1], drawn[0], 3.0, lengths)
    base = {"reference": None, "family": backbone.family, "fingerprint": backbone.fingerprint()}
    Adapter(LoraWeights({"unet": {name: layer}}), Facts(base=base), kind).save(folder)


def test_other_kinds_are_merged_and_made_smaller_with_their_base(place, wide, backbone, tiny_base, capsys):
    for kind in ("loha", "dora"):
        other_kind(backbone, kind, place / kind)
    assert "--base" in run(capsys, "merge", "0", "loha", "--output", "m", code=2)
    assert "another base" in run(capsys, "merge", "0", "loha", "--base", tiny_base, "--output", "m", code=2)
    told = run(capsys, "merge", "0", "loha:0.5", "--base", wide, "--output", "m", "--json")
    assert told["ranks"] == [2, 6] and told["left_out"] == 0
    wanted = delta("0", NAMES[0]) + 0.5 * delta("loha", NAMES[0])
    assert torch.allclose(delta("m", NAMES[0]), wanted, atol=1e-5)
    assert run(capsys, "verify", "m", "--base", wide, "--json")["proof"]["reader"] == "diffusers"
    assert "--method svd" in run(capsys, "merge", "0", "dora", "--base", wide, "--output", "n", code=2)
    words = ("--method", "svd", "--rank", 4, "--base", wide)
    assert 0 < run(capsys, "merge", "0", "dora", *words, "--output", "n", "--json")["left_out"] < 1
    assert run(capsys, "resize", "loha", "--rank", 1, "--base", wide, "--output", "s", "--json")["ranks"] == [1, 1]
    run(capsys, "resize", "dora", "--rank", 1, "--output", "t.safetensors")
    assert read(place / "t.safetensors").kinds == {"dora"}


def test_what_was_learned_beside_the_weights_is_not_lost_in_silence(backbone, tmp_path):
    from dataclasses import replace

    taught, plain = replace(make(backbone, 0), conditioners={"class": object()}), make(backbone, 1)
    with pytest.raises(AdapterError, match="cannot be merged yet"):
        merge([(plain, 1.0), (taught, 1.0)])
    worded = replace(plain, words={"<me>": {"text_encoder": torch.ones(1, 16)}})
    for adapter in (taught, worded):
        with pytest.raises(AdapterError, match="beside the weights"):
            merge_into_base([(adapter, 1.0)], backbone, tmp_path / "model")
        assert not (tmp_path / "model").exists()


# ----------------------------------------------------------------------------------------------- resize, extract, diff
def test_resize_says_what_it_leaves_out(place, capsys):
    told = run(capsys, "resize", "0", "--rank", 1, "--output", "small", "--json")
    assert told["ranks"] == [1, 1]
    lost = whole = 0.0
    for name in NAMES:
        s = torch.linalg.svdvals(delta("0", name).flatten(1))
        lost, whole = lost + float(s[1:].square().sum()), whole + float(s.square().sum())
    assert told["left_out"] == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    assert Adapter.load("small").trigger == "zxc"
    assert "--energy" in run(capsys, "resize", "0", "--output", "other", code=2)
    assert "energy" in run(capsys, "resize", "0", "--energy", 2, "--output", "other", code=2)


def test_extract_finds_what_was_merged_into_a_base(place, wide, capsys):
    run(capsys, "merge", "0", "--into-base", "--base", wide, "--output", "tuned")
    told = run(capsys, "extract", "tuned", "--base", wide, "--energy", 1, "--output", "found", "--json")
    assert told["layers"] == 3 and told["elsewhere"] == [] and told["left_out"] < 1e-5
    assert run(capsys, "diff", "0", "found", "--tolerance", 1e-3, "--json")["same"]
    assert "same weights" in run(capsys, "extract", wide, "--base", wide, "--output", "nothing", code=2)


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_extract_as_another_kind_is_taken_by_its_library(place, wide, capsys, kind):
    run(capsys, "merge", "0", "--into-base", "--base", wide, "--output", "tuned")
    told = run(capsys, "extract", "tuned", "--base", wide, "--kind", kind, "--output", "found", "--json")
    assert Adapter.load("found").weights.kinds == {kind} and 0 < told["left_out"] < 1
    reader = {"dora": "diffusers", "lokr": "peft"}[kind]
    assert run(capsys, "verify", "found", "--base", wide, "--json")["proof"]["reader"] == reader
    assert "cannot hold" in run(
        capsys, "extract", "tuned", "--base", wide, "--kind", "lokr", "--output", "f.safetensors", code=2
    )
    assert "closed form" in run(capsys, "extract", "tuned", "--base", wide, "--kind", "loha", "--output", "f", code=2)


def test_diff_compares_effects_across_dialects(place, capsys):
    run(capsys, "export", "0", "--format", "kohya", "--output", "0.safetensors")
    assert run(capsys, "diff", "0", "0.safetensors", "--json") == {"same": True, "differences": []}
    told = run(capsys, "diff", "0", "1", "--json", code=1)
    assert [each["layer"] for each in told["differences"]] == sorted(f"unet.{name}" for name in NAMES)
    assert all(each["what"] == "values" and each["relative"] > 0.1 for each in told["differences"])
    assert "by" in run(capsys, "diff", "0", "1", code=1)
    run(capsys, "diff", "0", "nowhere", code=2)


# ------------------------------------------------------------------------------------------------------- inspect, verify
def test_inspect_says_what_an_adapter_is(place, capsys):
    told = run(capsys, "inspect", "0", "--json")
    assert (told["dialect"], told["family"], told["triggers"]) == ("diffusers", "Stable Diffusion 1.x", ["zxc"])
    assert told["components"] == {"unet": 3} and told["problems"] == []
    layer = next(each for each in told["layers"] if each["name"] == "unet.conv_in")
    assert (layer["kind"], layer["rank"], layer["alpha"], layer["scale"]) == ("lora", 2, 3.0, 1.5)
    assert layer["norm"] == pytest.approx(float(delta("0", "conv_in").norm()), rel=1e-4)
    text = run(capsys, "inspect", "0", "--layers")
    assert "zxc" in text and "unet.conv_in: lora, rank 2, alpha 3" in text


def test_inspect_names_the_dialect_and_what_is_odd(place, capsys):
    run(capsys, "export", "0", "--format", "comfyui", "--output", "c.safetensors")
    assert run(capsys, "inspect", "c.safetensors", "--json")["dialect"] == "ComfyUI"
    tensors = load_file("c.safetensors")
    silent = next(name for name in tensors if name.endswith("lora_up.weight"))
    save_file({**tensors, silent: torch.zeros_like(tensors[silent])}, "c.safetensors")
    assert "1 of 3 layers do nothing" in run(capsys, "inspect", "c.safetensors", "--json")["problems"][0]
    assert "cut off" in run(capsys, "inspect", cut(place / "c.safetensors"), code=2)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])
    return path


@pytest.mark.parametrize("format", ["diffusers", "kohya", "comfyui", "omi", "simpletuner"])
def test_verify_gives_the_file_to_diffusers_itself(place, wide, capsys, format):
    if format == "omi":
        assert "no names for this family" in run(
            capsys, "export", "0", "--format", format, "--output", "a.safetensors", code=2
        )
        return
    run(capsys, "export", "0", "--format", format, "--output", "a.safetensors")
    told = run(capsys, "verify", "a.safetensors", "--base", wide, "--json")
    assert (
        told["fine"] and told["proof"]["layers"] == 3 and told["proof"]["difference"] < 1e-4 < told["proof"]["effect"]
    )


def test_verify_of_a_folder_and_what_it_finds(place, wide, tiny_base, capsys):
    assert "diffusers takes all 3 layers" in run(capsys, "verify", "0", "--base", wide)
    told = run(capsys, "verify", "0", "--base", tiny_base, "--json", code=1)
    assert "another base" in told["checks"]["base"] and told["proof"] is None
    cut(place / "1" / "pytorch_lora_weights.safetensors")
    assert "cut off" in run(capsys, "verify", "1", "--json", code=1)["checks"]["read"]


# ------------------------------------------------------------------------------------------------------------- embeddings
@pytest.mark.parametrize("encoders", [1, 2])
def test_embeddings_go_there_and_back_bit_for_bit(place, capsys, encoders):
    """A1111: `emb_params`, or `clip_l` and `clip_g`; diffusers: the word is the name."""
    vectors = [torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    names = ["emb_params"] if encoders == 1 else ["clip_l", "clip_g"]
    save_file(dict(zip(names, vectors, strict=False)), "zxc.safetensors")
    told = run(
        capsys, "convert-embedding", "zxc.safetensors", "--format", "diffusers", "--output", "d.safetensors", "--json"
    )
    assert told["word"] == "zxc"
    assert set(load_file("d.safetensors")) == ({"zxc"} if encoders == 1 else {"clip_l", "clip_g"})
    run(capsys, "convert-embedding", "d.safetensors", "--output", "back.safetensors")
    back = load_file("back.safetensors")
    assert list(back) == sorted(names) and all(back[n].equal(v) for n, v in zip(names, vectors, strict=False))


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"emb_params": torch.full((2, 8), torch.nan)}, "not finite"),
        ({"emb_params": torch.ones(2, 8, 2)}, "shape"),
        ({"clip_l": torch.ones(2, 8), "clip_g": torch.ones(3, 8)}, "shape"),
        ({"a": torch.ones(2, 8), "b": torch.ones(2, 8)}, "no embedding"),
    ],
)
def test_what_is_no_embedding_is_refused(place, capsys, tensors, expected):
    save_file(tensors, "e.safetensors")
    assert expected in run(capsys, "convert-embedding", "e.safetensors", "--output", "o.safetensors", code=2)
    assert ".pt files are never read" in run(capsys, "convert-embedding", "e.pt", "--output", "o.safetensors", code=2)
    assert "already" not in run(capsys, "convert-embedding", "e.safetensors", "--output", "o.bin", code=2)
