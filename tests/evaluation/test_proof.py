"""The proof passes for what was trained and fails for a file that says something else."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from adapt import files
from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.errors import AdapterError
from adapt.evaluation.proof import TOLERANCE, prove, reads
from adapt.formats import FILE_NAME, LoraWeights, Pair
from adapt.formats.diffusers_lora import HEADER
from adapt.lora import inject


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


def _adapter(backbone, strength):
    injection = inject(backbone.denoiser, rank=2, alpha=3.0, dropout=0.0, targets=("to_q", "conv1", "conv_in"), seed=0)
    generator = torch.Generator().manual_seed(0)
    values = {n: strength * torch.randn(p.shape, generator=generator) for n, p in injection.parameters.items()}
    pairs = injection.layers(values)
    injection.remove()
    return Adapter(LoraWeights({"unet": pairs}), Facts())


@pytest.fixture(scope="module")
def adapter(backbone):
    return _adapter(backbone, 0.2)


def test_what_was_trained_passes(backbone, adapter):
    before = {name: tensor.clone() for name, tensor in backbone.denoiser.state_dict().items()}
    proof = prove(adapter, backbone, "a red fox")
    assert proof.layers == len(adapter.weights) > 5
    assert proof.difference <= 1e-5 < 0.01 < proof.effect
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.denoiser.state_dict().items())
    assert prove(adapter, backbone, "a red fox") == proof


def _alpha(tensors, header):
    header["unet.lora_alpha"] *= 2


def _no_header(tensors, header):
    header.clear()


def _weights(tensors, header):
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name] = -tensors[name]


def _swapped(tensors, header):
    first, second = [n for n in tensors if "conv1.lora_B" in n and tensors[n].shape == (16, 2, 1, 1)][:2]
    tensors[first], tensors[second] = tensors[second], tensors[first]


def _lost(tensors, header):
    for half in "AB":
        del tensors[f"unet.conv_in.lora_{half}.weight"]


@pytest.mark.filterwarnings("ignore:While injecting")
@pytest.mark.parametrize("alter", [_alpha, _no_header, _weights, _swapped, _lost])
@pytest.mark.parametrize("strength", [0.2, 0.02])
def test_an_altered_file_fails(backbone, monkeypatch, alter, strength):
    """Also for an adapter of little effect: `difference` is judged against it."""
    save, adapter = Adapter.save, _adapter(backbone, strength)

    def altered(self, folder):
        saved, path = save(self, folder), Path(folder) / FILE_NAME
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = json.loads(file.metadata()[HEADER])
        alter(tensors, header)
        metadata = {HEADER: json.dumps(header)} if header else {}
        path.write_bytes(files.safetensors_bytes(tensors, metadata))
        return saved

    monkeypatch.setattr(Adapter, "save", altered)
    with pytest.raises(AdapterError, match="diffusers"):
        prove(adapter, backbone)


def test_a_wrong_strength_fails_however_small_the_effect(backbone, monkeypatch):
    from adapt.formats import diffusers_lora

    described = diffusers_lora.describe
    adapter = _adapter(backbone, 0.001)
    assert prove(adapter, backbone).effect < TOLERANCE
    monkeypatch.setattr(diffusers_lora, "describe", lambda *given: {**described(*given), "lora_alpha": 2.0})
    with pytest.raises(AdapterError, match="another strength"):
        prove(adapter, backbone)


def test_a_difference_that_is_no_number_fails(backbone, adapter, monkeypatch):
    from adapt.evaluation import proof

    monkeypatch.setattr(proof, "_largest", lambda a, b: float("nan"))
    with pytest.raises(AdapterError, match="something else"):
        prove(adapter, backbone)
    assert TOLERANCE < 0.01


@pytest.mark.parametrize(("width", "by_diffusers"), [(3072, True), (16, False)])
def test_files_of_flux_are_given_to_diffusers_itself_at_the_width_that_its_maps_have(width, by_diffusers, tmp_path):
    """At another width what adapt reads from the file is proved; at this one a file that it does not take is a fault."""
    name = "transformer_blocks.0.attn.to_q"
    weights = LoraWeights({"transformer": {name: Pair(torch.ones(1, width), torch.ones(width, 1), 1.0)}})
    path = tmp_path / "flux.safetensors"
    Adapter(weights, Facts(base={"family": "flux"})).export(path, "kohya")
    assert reads(path, Adapter.load(path)) is by_diffusers
