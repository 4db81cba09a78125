"""Bases whose files hold them in few bits: read, drawn with, trained on; what they cannot do is said."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from original_layout import DENOISER, transformer_of, unet_of
from safetensors.torch import load_file
from tiny_families import built
from torch.nn.functional import linear

from adapt.adapter import Adapter
from adapt.api.tools import merge_into_base
from adapt.backbones import Backbone
from adapt.backbones.packed import packed_layers, unpacked
from adapt.checkpoints import packing
from adapt.cli.main import main
from adapt.errors import AdapterError, BackboneError
from adapt.formats import LoraWeights, Pair
from adapt.lora import Applied

pytestmark = pytest.mark.usefixtures("narrow_flux")
SETTINGS = ["steps=2", "batch_size=2", "rank=2", "validation=0.25", "validation_times=1", "previews=[a fox]",
            "sampling_steps=2", "learning_rate=0.01", "validate_every=2", "save_every=2", "buckets=false"]  # fmt: skip


def write_gguf(file, values, arch="flux"):
    """Eight bits for what has rows of whole blocks, 16 bits of bfloat16's kind for some norms, as converters do it."""
    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(file, arch)
    for name, value in values.items():
        numbers = value.float().numpy()
        large = value.ndim == 2 and value.shape[1] % 32 == 0 and ("block" in name or "_layers" in name)
        kind = kinds.Q8_0 if large else kinds.BF16 if "norm" in name or value.ndim == 4 else kinds.F32
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(numbers), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    """A folder, and beside it its transformer as GGUF: the reference that a user gives, and the folder."""
    folder = tmp_path_factory.mktemp("gguf")
    pipeline = built("flux")
    pipeline.save_pretrained(folder / "base")
    return f"{write_gguf(folder / 'tiny.gguf', transformer_of(pipeline))}:{folder / 'base'}", folder / "base"


def prediction(backbone):
    with torch.no_grad():
        x = torch.randn(1, *backbone.own_latents, generator=torch.Generator().manual_seed(0))
        return backbone.predict(x, torch.tensor([400.0]), backbone.condition(["a cat"]))


def lora_of(backbone, seed=0, scale=0.3):
    """A LoRA of rank 2 in every layer that is trained by default."""
    from adapt.lora.layout import targeted

    torch.manual_seed(seed)
    layers = targeted(backbone.denoiser, backbone.lora_targets)
    return {
        f"{backbone.denoiser_name}.{name}": Pair(
            torch.randn(2, m.in_features) * scale, torch.randn(m.out_features, 2) * scale, 2.0
        )
        for name, m in layers.items()
    }


def test_gguf_is_the_base_in_few_bits(flux):
    reference, folder = flux
    whole, packed = Backbone.load(str(folder)), Backbone.load(reference)
    assert packed.quantised == "gguf" and whole.quantised is None and packed.dtype == torch.float32
    assert packed.fingerprint() == whole.fingerprint() and packed.family == "flux"
    assert packed.content_key("transformer") != whole.content_key("transformer")
    layers = dict(packed_layers(packed.denoiser))
    assert len(layers) >= 15
    near, far = prediction(packed), prediction(whole)
    assert 0 < (near - far).abs().max() < 0.05 * far.abs().max()
    for name, layer in layers.items():  # what the packed ones stand for, in the whole network: the same prediction
        weight = whole.denoiser.get_submodule(name).weight
        assert (unpacked(layer) - weight).abs().max() <= weight.abs().max() / 127
        weight.data.copy_(unpacked(layer))
    norms = [n for n, p in packed.denoiser.named_parameters() if p.is_floating_point()]
    for name in norms:  # bfloat16 in the file
        whole.denoiser.get_parameter(name).data.copy_(packed.denoiser.get_parameter(name))
    assert (prediction(whole) - near).abs().max() <= 1e-5


def test_a_unets_gguf_has_no_prefix(tmp_path):
    pipeline = built("stable-diffusion-xl")
    pipeline.save_pretrained(tmp_path / "base")
    values = {name.removeprefix(DENOISER): value for name, value in unet_of(pipeline).items()}
    packed = Backbone.load(f"{write_gguf(tmp_path / 'a.gguf', values, 'sdxl')}:{tmp_path / 'base'}")
    whole = Backbone.load(str(tmp_path / "base"))
    near, far = prediction(packed), prediction(whole)
    assert packed.quantised == "gguf" and packed.fingerprint() == whole.fingerprint()
    assert (near - far).abs().max() < 0.05 * far.abs().max()


@pytest.mark.parametrize("name", ["chroma", "aura-flow", "flux2-klein"])
def test_gguf_of_other_families(name, tmp_path):
    pipeline = built(name)
    pipeline.save_pretrained(tmp_path / "base")
    packed = Backbone.load(f"{write_gguf(tmp_path / 'a.gguf', transformer_of(pipeline), name)}:{tmp_path / 'base'}")
    whole = Backbone.load(str(tmp_path / "base"))
    near, far = prediction(packed), prediction(whole)
    assert packed.quantised == "gguf" and packed.fingerprint() == whole.fingerprint()
    assert 0 < (near - far).abs().max() < 0.05 * far.abs().max()


def test_adapters_lie_beside_packed_layers_and_come_off_without_a_trace(flux):
    backbone = Backbone.load(flux[0])
    before, layers, others = prediction(backbone), lora_of(backbone), lora_of(backbone, 1)
    modules = backbone.modules
    one = Applied(modules, layers, 0.7)
    alone = prediction(backbone)
    assert (alone - before).abs().max() > 0.01
    name, module = next((n, m) for n, m in packed_layers(backbone.denoiser) if f"transformer.{n}" in layers)
    x = torch.randn(3, module.in_features)
    added = unpacked(module) + 0.7 * layers[f"transformer.{name}"].delta()
    assert (module(x) - linear(x, added, module.bias)).abs().max() <= 1e-5
    with one.off():
        assert torch.equal(prediction(backbone), before)
    assert torch.equal(prediction(backbone), alone)
    other = Applied(modules, others, 1.0)
    both = prediction(backbone)
    assert (both - alone).abs().max() > 0.01
    one.rescale(0.1)
    one.rescale(0.7)
    assert torch.equal(prediction(backbone), both)
    other.unload()
    assert torch.equal(prediction(backbone), alone)
    one.unload()
    assert torch.equal(prediction(backbone), before)
    assert not any(m._forward_hooks for m in backbone.denoiser.modules())


def test_weaker_versions_of_what_draws(flux):
    """The base alone, and the same adapter at half its scale, while it is on: what guidance and `adapt explain` compare with."""
    from adapt.api.weaker import _variant, bare_of

    backbone = Backbone.load(flux[0])
    layers = lora_of(backbone)
    adapter = Adapter(LoraWeights({"transformer": {n.partition(".")[2]: p for n, p in layers.items()}}))
    bare, half = (
        bare_of(backbone, [(adapter, 1.0)]),
        _variant(backbone, backbone.predict, [(adapter, 0.5)], [(adapter, 1.0)]),
    )
    x, t, condition = torch.randn(1, *backbone.own_latents), torch.tensor([400.0]), backbone.condition(["a cat"])
    with torch.no_grad():
        plain = backbone.predict(x, t, condition)
        with adapter.apply(backbone, 0.5):
            weak = backbone.predict(x, t, condition)
        with adapter.apply(backbone):
            whole = backbone.predict(x, t, condition)
            assert torch.equal(bare(x, t, condition), plain) and torch.equal(half(x, t, condition), weak)
            assert torch.equal(backbone.predict(x, t, condition), whole) and not torch.equal(weak, whole)
        assert torch.equal(half(x, t, condition), weak) and torch.equal(backbone.predict(x, t, condition), plain)
    assert not any(m._forward_hooks for m in backbone.denoiser.modules())


def test_what_packed_weights_cannot_do_is_said(flux, tmp_path, monkeypatch):
    backbone = Backbone.load(flux[0])
    layers = lora_of(backbone)
    adapter = Adapter(LoraWeights({"transformer": {n.partition(".")[2]: p for n, p in layers.items()}}))
    with pytest.raises(BackboneError, match=r"nothing can be merged .* few bits \(gguf\)"):
        adapter.merge(backbone)
    with pytest.raises(BackboneError, match="few bits"):
        merge_into_base([(adapter, 1.0)], backbone, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    from adapt.formats.dora import Dora

    name, pair = next(iter(layers.items()))
    dora = Dora(pair.down, pair.up, pair.alpha, torch.ones(len(pair.up)))
    with pytest.raises(AdapterError, match="only LoRA can be put on a base in few bits, not dora"):
        Applied(backbone.modules, {name: dora}, 1.0)
    with pytest.raises(AdapterError, match="merged into weights in few bits"):
        Applied(backbone.modules, layers, 1.0).keep()
    monkeypatch.setattr(packing, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match=r"packed by gguf, which is not there .*pip install gguf"):
        Backbone.load(flux[0])


@pytest.mark.parametrize("words", [["quantize=int8-quanto"], ["kind=dora"], ["init=pissa"], ["offload_weights=0.5"]])
def test_settings_that_need_whole_weights_are_refused_before_step_1(
    flux, pictures, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(pictures), "--base", flux[0], "--output", "runs/a", *SETTINGS, *words]) == 2
    said = capsys.readouterr().err
    assert "few bits" in said and words[0].partition("=")[0] in said
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_train_and_generate_on_gguf(flux, pictures, tmp_path, monkeypatch, capsys):
    """The adapter is a plain one, for the whole base too."""
    monkeypatch.chdir(tmp_path)
    reference, folder = flux
    assert main(["train", str(pictures), "--base", reference, "--output", "runs/a", *SETTINGS]) == 0
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["training"]["trained_on"] == "gguf" and facts["proof"]["reader"] == "diffusers"
    assert facts["proof"]["difference"] <= 1e-4 < facts["proof"]["effect"]
    values = load_file(tmp_path / "runs/a/adapter/pytorch_lora_weights.safetensors")
    assert {v.dtype for v in values.values()} == {torch.float32} and all(".lora_" in name for name in values)
    words = ["generate", "--prompt", "a fox", "--steps", "2", "--adapter", "runs/a", "--device", "cpu"]
    for base, name in ((reference, "packed.png"), (str(folder), "whole.png")):
        assert main([*words, "--base", base, "--output", name]) == 0
    capsys.readouterr()
    assert main(["bases", reference]) == 0
    assert "Q8_0" in capsys.readouterr().out


def packed_folder(way, base, folder):
    """A pipeline's folder with its transformer saved by diffusers as it packs it."""
    import diffusers

    if way == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        config = diffusers.TorchAoConfig(Int8WeightOnlyConfig())
    else:
        config = diffusers.QuantoConfig(weights_dtype="int8")
    shutil.copytree(base, folder)
    shutil.rmtree(folder / "transformer")
    found = diffusers.FluxTransformer2DModel.from_pretrained(
        base / "transformer", quantization_config=config, torch_dtype=torch.float32
    )
    found.save_pretrained(folder / "transformer")
    return folder


@pytest.mark.parametrize(
    ("way", "module", "package"), [("torchao", "torchao", "torchao"), ("quanto", "optimum", "optimum-quanto")]
)
def test_folders_that_diffusers_saved_in_few_bits(flux, pictures, way, module, package, tmp_path, monkeypatch, capsys):
    """Where the package is: the same base, drawn with and trained on. Where it is not: said, with what to install."""
    monkeypatch.chdir(tmp_path)
    if find_spec(module) is None:
        told(tmp_path / "packed", flux[1], {"quant_method": way})
        with pytest.raises(BackboneError, match=f"packed by {package}, .*pip install {package}"):
            Backbone.load(str(tmp_path / "packed"))
        return
    folder = packed_folder(way, flux[1], tmp_path / "packed")
    whole = Backbone.load(str(flux[1]))
    for dtype in (torch.float32, torch.bfloat16):
        backbone = Backbone.load(str(folder), dtype=dtype)
        assert backbone.quantised == way and backbone.dtype == dtype
        assert backbone.fingerprint() == whole.fingerprint()
        assert {p.dtype for p in backbone.denoiser.parameters() if p.is_floating_point()} == {dtype}
    near, far = prediction(Backbone.load(str(folder))), prediction(whole)
    assert 0 < (near - far).abs().max() < 0.1 * far.abs().max()
    words = ["train", str(pictures), "--base", str(folder), "--output", "runs/a", *SETTINGS]
    if way == "quanto":  # diffusers 0.42 looks for weights that quanto keeps in parts
        assert main(words) == 2 and "takes no LoRA on it" in capsys.readouterr().err
        return
    assert main(words) == 0
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["training"]["trained_on"] == way and facts["proof"]["difference"] <= 1e-4


def told(folder, base, config):
    """A copy of a folder whose transformer's configuration says that it is packed."""
    shutil.copytree(base, folder)
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": config}))


BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def test_folders_of_bitsandbytes_and_of_others_are_one_line_here(flux, tmp_path):
    told(tmp_path / "nf4", flux[1], BNB)
    told(tmp_path / "other", flux[1], {"quant_method": "awq"})
    with pytest.raises(BackboneError, match=r"No GPU|packed by bitsandbytes, which is not there"):
        Backbone.load(str(tmp_path / "nf4"))
    with pytest.raises(BackboneError, match=r"packed in a way that adapt does not read .*awq"):
        Backbone.load(str(tmp_path / "other"))
    assert packing.packing_of(tmp_path / "nf4") == {"transformer": "nf4-bnb"}


def test_gguf_files_that_are_not_whole(flux, tmp_path):
    file = tmp_path / "cut.gguf"
    file.write_bytes(Path(flux[0].partition(":")[0]).read_bytes()[:3000])
    with pytest.raises(BackboneError, match="cut off"):
        Backbone.load(f"{file}:{flux[1]}")
