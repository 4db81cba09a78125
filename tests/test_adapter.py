"""The adapter: what is saved is what plain diffusers draws with; what is taken off leaves no trace."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from adapt import files
from adapt.adapter import FACTS_NAME, Adapter, Facts
from adapt.backbones import Backbone
from adapt.errors import AdapterError
from adapt.formats import FILE_NAME, LoraWeights, Pair
from adapt.formats.diffusers_lora import portable
from adapt.lora import inject

TARGETS = ("to_q", "to_out.0", "conv1", "conv_in")
X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([10, 800])


@pytest.fixture(scope="module")
def pristine(tiny_base):
    """A backbone and the bits of its denoiser; every test must leave them."""
    backbone = Backbone.load(str(tiny_base))
    return backbone, {name: tensor.clone() for name, tensor in backbone.denoiser.state_dict().items()}


@pytest.fixture
def backbone(pristine):
    backbone, bits = pristine
    yield backbone
    assert all(torch.equal(tensor, bits[name]) for name, tensor in backbone.denoiser.state_dict().items())


@pytest.fixture
def bits(pristine):
    """Whether the denoiser is as it was."""
    backbone, kept = pristine
    return lambda: all(torch.equal(tensor, kept[name]) for name, tensor in backbone.denoiser.state_dict().items())


def _make(backbone, rank=2, alpha=5.0, seed=0, **facts):
    """An adapter with effect, as a run would leave it."""
    injection = inject(backbone.denoiser, rank=rank, alpha=alpha, dropout=0.0, targets=TARGETS, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    values = {n: 0.15 * torch.randn(p.shape, generator=generator) for n, p in injection.parameters.items()}
    pairs = injection.layers(values)
    injection.remove()
    known = {
        "base": {"reference": None, "family": backbone.family, "fingerprint": backbone.fingerprint()},
        "lora": {backbone.denoiser_name: portable(injection.config.to_dict())},
    }
    return Adapter(LoraWeights({backbone.denoiser_name: pairs}), Facts(**{**known, **facts}), "style")


@pytest.fixture(scope="module")
def adapter(pristine):
    return _make(pristine[0])


def _around(pipeline, backbone):
    """The backbone of a pipeline that diffusers has adapted."""
    return type(backbone)(pipeline, backbone.reference)


@torch.no_grad()
def _predict(backbone):
    return backbone.predict(X, T, backbone.condition(["a red fox", "a tulip"]))


# ----------------------------------------------------------------------------------------------------- apply and unload
def test_apply_moves_the_prediction_and_unload_restores_it(backbone, adapter, bits):
    plain = _predict(backbone)
    with adapter.apply(backbone):
        assert (_predict(backbone) - plain).abs().max() > 0.05
    assert bits() and torch.equal(_predict(backbone), plain)


def test_apply_also_comes_off_after_an_exception_and_nested(backbone, adapter, bits):
    with pytest.raises(KeyError), adapter.apply(backbone), adapter.apply(backbone, 0.5):
        raise KeyError
    assert bits()
    handle = adapter.apply(backbone)
    handle.unload()
    handle.unload()
    assert bits()


def test_scale_zero_is_the_base_and_scales_add_up(backbone, adapter):
    plain = _predict(backbone)
    with adapter.apply(backbone, 0.0):
        assert torch.equal(_predict(backbone), plain)
    with adapter.apply(backbone, 1.0):
        once = _predict(backbone)
    with adapter.apply(backbone, 0.4), adapter.apply(backbone, 0.6):
        assert torch.allclose(_predict(backbone), once, atol=1e-5)
    assert (once - plain).abs().max() > 0.05


def test_a_merge_stays(make_tiny, adapter):
    from adapt.backbones import StableDiffusion

    other = StableDiffusion(make_tiny(), "other")
    with adapter.apply(other, 0.8):
        applied = _predict(other)
    adapter.merge(other, 0.8)
    assert torch.equal(_predict(other), applied)
    merged = other.denoiser.conv_in.weight.clone()
    with adapter.apply(other):
        assert not torch.equal(other.denoiser.conv_in.weight, merged)
    assert torch.equal(other.denoiser.conv_in.weight, merged)


def test_another_base_is_refused_by_its_fingerprint_and_by_its_shapes(make_tiny, adapter):
    from adapt.backbones import StableDiffusion

    wide = StableDiffusion(make_tiny(width=24), "wide")
    before = {name: tensor.clone() for name, tensor in wide.denoiser.state_dict().items()}
    bare = Adapter(adapter.weights)
    component = Adapter(LoraWeights({"transformer": adapter.weights.modules["unet"]}))
    for wrong, message in ((adapter, adapter.facts.base["fingerprint"]), (bare, "has shape"), (component, "component")):
        with pytest.raises(AdapterError, match=message):
            wrong.apply(wide)
        assert all(torch.equal(tensor, before[name]) for name, tensor in wide.denoiser.state_dict().items())


def test_the_fingerprint_is_of_shapes_and_configuration_not_of_values(make_tiny, pristine):
    from adapt.backbones import StableDiffusion

    backbone = pristine[0]
    assert StableDiffusion(make_tiny(seed=3), "other").fingerprint() == backbone.fingerprint()
    assert StableDiffusion(make_tiny(width=24), "other").fingerprint() != backbone.fingerprint()
    injection = inject(backbone.denoiser, rank=1, alpha=1, dropout=0, targets=TARGETS, seed=0)
    injected = backbone.fingerprint()
    injection.remove()
    assert injected == backbone.fingerprint()


# ------------------------------------------------------------------------------------------------------------ on the disk
def _same(a, b):
    assert a.weights.modules.keys() == b.weights.modules.keys()
    for component, pairs in a.weights.modules.items():
        assert pairs.keys() == b.weights.modules[component].keys()
        for name, pair in pairs.items():
            other = b.weights.modules[component][name]
            assert torch.equal(pair.down, other.down) and torch.equal(pair.up, other.up) and pair.alpha == other.alpha


def test_saved_and_loaded_is_the_same_and_draws_the_same(tmp_path, backbone, adapter):
    saved = adapter.save(tmp_path / "style")
    loaded = Adapter.load(tmp_path / "style")
    _same(loaded, adapter)
    assert loaded.facts == adapter.facts
    assert loaded.name == "style"
    assert loaded.digest == saved.digest == files.digest(tmp_path / "style" / FILE_NAME)[:10]
    with adapter.apply(backbone):
        before = _predict(backbone)
    with loaded.apply(backbone):
        assert torch.equal(_predict(backbone), before)


def test_equal_adapters_are_equal_bytes(tmp_path, adapter):
    for folder in ("a", "b"):
        adapter.save(tmp_path / folder)
    Adapter.load(tmp_path / "a").save(tmp_path / "c")
    for name in (FILE_NAME, FACTS_NAME):
        assert len({(tmp_path / folder / name).read_bytes() for folder in "abc"}) == 1


def test_a_bare_file_keeps_its_strength_when_it_is_saved_again(tmp_path, backbone, adapter):
    """No `adapter.json` says alpha: only the file's header does."""
    adapter.save(tmp_path / "style")
    (tmp_path / "style" / FILE_NAME).rename(tmp_path / "bare.safetensors")
    bare = Adapter.load(tmp_path / "bare.safetensors")
    assert bare.name == "bare" and bare.facts == Facts()
    bare.save(tmp_path / "again")
    _same(Adapter.load(tmp_path / "again"), adapter)
    with bare.apply(backbone):
        assert (_predict(backbone) - _predict(_around(bare.to_diffusers(backbone), backbone))).abs().max() < 1e-4


def test_a_file_beside_another_adapters_facts_does_not_borrow_them(tmp_path, adapter):
    adapter.save(tmp_path)
    (tmp_path / "other.safetensors").write_bytes((tmp_path / FILE_NAME).read_bytes())
    assert Adapter.read_facts(tmp_path / "other.safetensors") == Facts()
    assert Adapter.read_facts(tmp_path / FILE_NAME) == adapter.facts


def test_a_runs_folder_is_an_adapter_too(tmp_path, adapter, monkeypatch):
    adapter.save(tmp_path / "run" / "adapter")
    for path in (tmp_path / "run", tmp_path / "run" / "adapter", str(tmp_path / "run")):
        assert Adapter.load(path).name == "run"
        assert Adapter.read_facts(path) == adapter.facts
    monkeypatch.chdir(tmp_path / "run")
    assert Adapter.load("adapter").name == Adapter.load(".").name == "run"


def test_a_folder_without_an_adapter_is_said_to_be_one(tmp_path):
    with pytest.raises(AdapterError, match="holds no adapter"):
        Adapter.load(tmp_path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ('{"schema": 2}', "another schema"),
        ('{"schema": "1"}', "another schema"),
        ("{}", "cannot be read"),
        ("[]", "cannot be read"),
        ("[1]", "cannot be read"),
        ("3", "cannot be read"),
        ('{"schema": 1', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"schema": 1, "base": null}', "base"),
        ('{"schema": 1, "loads_in": null}', "loads_in"),
        ('{"schema": 1, "recommended": [1]}', "recommended"),
        ('{"schema": 1, "trigger": 3}', "trigger"),
    ],
)
def test_facts_of_another_kind_are_refused(tmp_path, adapter, facts, message):
    adapter.save(tmp_path)
    (tmp_path / FACTS_NAME).write_text(facts)
    with pytest.raises(AdapterError, match=message):
        Adapter.load(tmp_path)


def test_facts_that_are_not_known_yet_are_ignored(tmp_path, adapter):
    adapter.save(tmp_path)
    values = json.loads((tmp_path / FACTS_NAME).read_text())
    (tmp_path / FACTS_NAME).write_text(json.dumps({**values, "mood": "bright"}))
    assert Adapter.load(tmp_path).facts == adapter.facts


@pytest.mark.skipif(os.name == "nt", reason="umask is POSIX's")
def test_modes_follow_the_umask(tmp_path, adapter):
    old = os.umask(0o027)
    try:
        adapter.save(tmp_path / "style")
    finally:
        os.umask(old)
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "style").iterdir()} == {0o640}


def test_no_path_of_this_machine_is_written(tmp_path, backbone, adapter):
    adapter.save(tmp_path / "style")
    for path in (tmp_path / "style").iterdir():
        content = path.read_bytes()
        for private in (str(tmp_path), backbone.reference, str(Path.home()) + "/"):
            assert private.encode() not in content, (path.name, private)


# ------------------------------------------------------------------------------------------------------- plain diffusers
@pytest.mark.parametrize("alpha", [2.0, 5.0, 0.5])
def test_plain_diffusers_takes_every_layer_and_predicts_the_same(tmp_path, backbone, tiny_base, alpha):
    from diffusers import StableDiffusionPipeline
    from peft.tuners.lora import LoraLayer

    adapter = _make(backbone, rank=2, alpha=alpha)
    adapter.save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline.load_lora_weights(tmp_path)
    layers = [name for name, module in pipeline.unet.named_modules() if isinstance(module, LoraLayer)]
    assert sorted(layers) == sorted(adapter.weights.modules["unet"])
    assert len(layers) == len(adapter.weights) > 10
    plain = _predict(backbone)
    with adapter.apply(backbone):
        ours = _predict(backbone)
    theirs = _predict(_around(pipeline, backbone))
    assert (ours - plain).abs().max() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5


def test_different_ranks_and_alphas_in_one_file_reach_diffusers(backbone, adapter):
    pairs = {
        name: Pair(pair.down[: 1 + k % 2], pair.up[:, : 1 + k % 2], 0.5 + k % 3)
        for k, (name, pair) in enumerate(adapter.weights.modules["unet"].items())
    }
    mixed = Adapter(LoraWeights({"unet": pairs}))
    theirs = _predict(_around(mixed.to_diffusers(backbone), backbone))
    with mixed.apply(backbone):
        assert (_predict(backbone) - theirs).abs().max() <= 1e-5


def test_the_pipeline_is_fresh_whatever_is_applied(backbone, adapter):
    with adapter.apply(backbone):
        ours = _predict(backbone)
        theirs = _predict(_around(adapter.to_diffusers(backbone), backbone))
    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.filterwarnings("ignore:While injecting")
def test_a_layer_that_diffusers_leaves_out_is_an_error(backbone, adapter, monkeypatch):
    save = Adapter.save

    def forgetful(self, folder):
        saved, path = save(self, folder), Path(folder) / FILE_NAME
        with safe_open(path, "pt") as file:
            tensors, metadata = {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("unet.conv_in.")}
        path.write_bytes(files.safetensors_bytes(kept, metadata))
        return saved

    monkeypatch.setattr(Adapter, "save", forgetful)
    with pytest.raises(AdapterError, match="diffusers took"):
        adapter.to_diffusers(backbone)
