"""T-LoRA: as many components as the paper says, the same in training and in drawing, and refused where nobody knows of time."""

import copy
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import PeftModel

import adapt
from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.config import validate
from adapt.errors import AdapterError, SettingsError
from adapt.formats import LoraWeights, Pair, read, write_lora, write_peft
from adapt.formats.peft_folder import WEIGHTS_NAME
from adapt.formats.tlora import TimeLora, active

TARGETS = ("attn2.to_q", "attn1.to_k", "conv1")
KIND = {"kind": "tlora", "rank": 6, "alpha": 6.0, "tlora_min_rank": 2, "targets": TARGETS}


def test_components_fall_from_all_to_the_least():
    share = torch.linspace(0, 1, 101)
    counts = active(share, 16, 4)
    assert counts[0] == 16 and counts[-1] == 4 and bool((counts.diff() <= 0).all())
    assert [int(active(torch.tensor([s]), 16, 4)) for s in (0.25, 0.5, 0.75)] == [13, 10, 7]
    assert active(torch.tensor([1.0]), 8, 8).tolist() == [8]


def test_a_starts_at_right_angles_and_nothing_changes(put, unet, plain, predict):
    injection = put(unet, **KIND)
    injection.dice.clock.share = torch.tensor([0.1, 0.9])
    assert torch.equal(predict(unet), predict(plain))
    for layer in injection.layers().values():
        a = layer.down.flatten(1)
        assert torch.allclose(a @ a.t(), torch.eye(6), atol=1e-5) and not layer.up.any()


def test_each_row_has_the_components_of_its_time_forwards_and_backwards(put, unet, teach, plain):
    """Row by row it is the LoRA cut to its components, added to the weights."""
    injection = teach(put(unet, **KIND))
    dice = torch.Generator().manual_seed(1)
    x, tokens = (torch.randn(3, *shape, generator=dice) for shape in ((4, 8, 8), (24, 16)))
    shares, t = (0.0, 0.6, 1.0), torch.tensor([0, 600, 999])
    injection.dice.clock.share = torch.tensor(shares)
    out = unet(x, t, encoder_hidden_states=tokens, return_dict=False)[0]
    for row, share in enumerate(shares):
        merged = copy.deepcopy(plain)
        for name, layer in injection.layers().items():
            weight = merged.get_submodule(name).weight
            cut = Pair(layer.down[: layer.components(share)], layer.up[:, : layer.components(share)], 1.0)
            weight.data = weight + cut.delta() * cut.rank  # alpha / r is 1 of the whole
        one = merged(x[row : row + 1], t[row : row + 1], encoder_hidden_states=tokens[row : row + 1], return_dict=False)
        assert (one[0] - out[row]).abs().max() <= 2e-5
    injection.dice.clock.share = torch.ones(3)
    unet(x, t, encoder_hidden_states=tokens, return_dict=False)[0].square().mean().backward()
    for name, parameter in injection.parameters.items():
        learned = parameter.grad.flatten(1) if "lora_A" in name else parameter.grad.flatten(1).t()
        assert learned[:2].any() and not learned[2:].any(), name


def test_a_file_gives_back_every_number_and_says_what_it_is(put, unet, teach, plain, tiny_base, tmp_path):
    weights = LoraWeights({"unet": teach(put(unet, **KIND)).layers()})
    write_peft(tmp_path, weights, {})
    write_lora(tmp_path / "snapshot.safetensors", weights, {})
    assert read(tmp_path / WEIGHTS_NAME).equals(weights) and read(tmp_path / "snapshot.safetensors").equals(weights)
    with pytest.raises(KeyError, match="TLORA"):  # nobody draws all components at every time unawares
        PeftModel.from_pretrained(copy.deepcopy(plain), str(tmp_path))
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    with pytest.raises(ValueError, match="Invalid LoRA checkpoint"):
        pipeline.load_lora_weights(tmp_path, weight_name="snapshot.safetensors")
    assert TimeLora(torch.ones(3, 4), torch.ones(5, 3), torch.tensor([4.0]), 1.0).misfit()
    assert TimeLora(torch.ones(3, 4), torch.ones(5, 3), torch.tensor([float("nan")]), 1.0).misfit()


@pytest.fixture
def adapter(put, unet, teach):
    return Adapter(LoraWeights({"unet": teach(put(unet, **KIND)).layers()}), Facts(loads_in=("adapt",)), "it")


def test_applied_it_follows_the_time_beside_others_and_leaves_no_trace(adapter, tiny_base):
    backbone = Backbone.load(str(tiny_base))
    before = {name: tensor.clone() for name, tensor in backbone.denoiser.state_dict().items()}
    condition, x = backbone.condition(["a"]), torch.randn(1, 4, 8, 8)
    name, layer = next((n, lay) for n, lay in adapter.weights.modules["unet"].items() if n.endswith("to_q"))
    other = Adapter(
        LoraWeights({"unet": {name: Pair(torch.ones(1, layer.size[1]), torch.ones(layer.size[0], 1), 0.1)}})
    )
    weight = backbone.denoiser.get_submodule(name).weight
    with other.apply(backbone), adapter.apply(backbone, 0.5) as applied:
        for t, count in ((999, 2), (500, 4), (0, 6), (500, 4)):
            backbone.predict(x, torch.tensor([t]), condition)
            ours = Pair(layer.down[:count], layer.up[:, :count], layer.alpha * count / 6).delta() / 2
            assert torch.allclose(weight, before[f"{name}.weight"] + 0.1 + ours, atol=1e-6), t
        with applied.off():  # the base is asked, at another time
            backbone.predict(x, torch.tensor([999]), condition)
            assert torch.equal(weight, before[f"{name}.weight"])
        assert torch.allclose(weight, before[f"{name}.weight"] + 0.1 + ours, atol=1e-6)
        with pytest.raises(AdapterError, match="rows are at several"):
            backbone.predict(x.expand(2, -1, -1, -1), torch.tensor([1, 900]), condition.expand(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.denoiser.state_dict().items())
    assert not backbone.listeners


def test_what_knows_no_time_refuses_it(adapter, tiny_base, tmp_path):
    backbone = Backbone.load(str(tiny_base))
    for refused in (
        lambda: adapter.merge(backbone),
        lambda: adapter.export(tmp_path / "a.safetensors", "kohya", text_width=768),
        lambda: adapter.export(tmp_path / "a.safetensors", "diffusers"),
    ):
        with pytest.raises(AdapterError):
            refused()
    assert not list(tmp_path.iterdir()) and not backbone.listeners


def test_the_nearest_lora_is_its_mean_over_the_times_and_says_what_that_leaves_out(adapter, tiny_base):
    backbone = Backbone.load(str(tiny_base))
    times = torch.linspace(0, 1, 2001)[:-1] + 0.00025
    for rank in (6, 2):
        near, left_out = adapter.nearest(backbone, rank)
        assert near.weights.kinds == {"lora"} and near.facts.loads_in == ("adapt", "diffusers")
        lost = size = 0.0
        for name, layer in adapter.weights.modules["unet"].items():
            at = [layer.at(float(share)).delta() for share in times[:: 2000 // 40]]
            ours = near.weights.modules["unet"][name].delta()
            lost += sum(float((each - ours).square().sum()) for each in at)
            size += sum(float(each.square().sum()) for each in at)
            if rank == 6:
                assert torch.allclose(ours, torch.stack(at).mean(0), atol=1e-5)
        assert left_out == pytest.approx((lost / size) ** 0.5, rel=1e-3) and left_out > 0.1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "lora", "tlora_min_rank": 2}, "kind=tlora"),
        ({"kind": "tlora", "rank": 4, "tlora_min_rank": 5}, "noise leaves fewer"),
        ({"kind": "tlora", "rank_dropout": 0.1}, "go by the time"),
        ({"kind": "tlora", "compile": True}, "compile"),
        ({"kind": "tlora", "lora_plus_ratio": 16, "init": "eva"}, "a start of A"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        validate(settings)


def test_a_run_is_proved_drawn_with_and_resumed_to_the_same_bytes(pictures, tiny_base, tmp_path):
    settings = adapt.TrainSettings(
        kind="tlora", rank=6, tlora_min_rank=1, steps=4, batch_size=2, validation=0.25, validate_every=2, save_every=2,
        learning_rate=1e-2, targets=("to_q", "conv1"), sampling_steps=2, previews=("a",), validation_times=2, guidance_scale=2.0,
        dropout=0.1, prior_prompt="a", gradient_checkpointing=True,
    )  # fmt: skip
    first = adapt.train(pictures, output=tmp_path / "a" / "run", base=str(tiny_base), settings=settings)
    assert first.proof.difference <= 1e-5 < first.proof.effect and first.adapter.facts.loads_in == ("adapt",)
    card = (first.folder / "adapter" / "README.md").read_text()
    assert "adapt.generate(base" in card and "load_lora_weights" not in card and "PeftModel" not in card
    backbone = Backbone.load(str(tiny_base))
    ours = adapt.generate(backbone, prompt="a", adapters=[first.adapter], steps=3)[0]
    assert ours.tobytes() != adapt.generate(backbone, prompt="a", steps=3)[0].tobytes()
    cut = shutil.copytree(first.folder, tmp_path / "b" / "run")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    (cut / "snapshots" / "step-000004.safetensors").unlink()
    adapt.train(pictures, output=cut, existing="resume")
    for name in ("adapter/peft/adapter_model.safetensors", "snapshots/step-000004.safetensors"):
        assert (cut / name).read_bytes() == (first.folder / name).read_bytes()
