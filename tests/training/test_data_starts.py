"""Starts of LoRA that look at the pictures, and LoRA+: what they are by definition, and whole runs of them."""

import shutil

import pytest
import torch
from tiny_runs import RESULTS, content

from adapt.api.starts import GAMMA, inputs
from adapt.config import validate
from adapt.errors import SettingsError
from adapt.lora.injection import tuned
from adapt.lora.kinds import NAME
from adapt.training.step import row_losses

FRESH = {"moved": False, "rank": 4, "caption_dropout": 0.0}


def starting(course, init, batches=2, **settings):
    """A run about to begin, of this start."""
    more = {} if init == "default" else {"init_batches": batches}
    return course(**{**FRESH, **settings}, **more, init=init)


SHORT = {
    "steps": 4,
    "validate_every": 2,
    "save_every": 2,
    "dropout": 0.0,
    "targets": ("to_q", "conv1", "conv_in"),
    "ema": 0.0,
}


def layers(run):
    return dict(tuned(run.backbone.denoiser))


def row(run, step, position):
    return row_losses(run, run.plan.rows(step, [position])).sum()


# ---------------------------------------------------------------------------------------------- EVA
def test_eva_starts_as_what_the_inputs_vary_in_most(course):
    targets = ("attn2.to_q", "conv2")
    run, plain = (starting(course, init, targets=targets) for init in ("eva", "default"))
    for name, layer in layers(run).items():
        seen, base = [], layer.get_base_layer()
        hook = base.register_forward_pre_hook(lambda m, given, seen=seen: seen.append(inputs(m, given[0])))
        with torch.no_grad():
            [row(run, step, position) for step in range(2) for position in range(4)]
        hook.remove()
        x, down = torch.cat(seen), layer.lora_A[NAME].weight.flatten(1)
        best = torch.linalg.svdvals(x)[:4].square().sum()
        other = layers(plain)[name].lora_A[NAME].weight.flatten(1)
        held, by_chance = ((x @ torch.linalg.qr(a.T)[0]).square().sum() for a in (down, other))
        assert torch.allclose(down @ down.T, torch.eye(4), atol=1e-4), name
        assert not layer.lora_B[NAME].weight.any()
        assert held >= 0.97 * best and held > 1.2 * by_chance, name


def test_inputs_of_a_convolution_are_what_its_weight_is_multiplied_with():
    layer, x = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), torch.randn(2, 3, 8, 8)
    rows = inputs(layer, x) @ layer.weight.flatten(1).T
    assert torch.allclose(rows, layer(x).flatten(2).transpose(1, 2).flatten(0, 1), atol=1e-5)


# ---------------------------------------------------------------------------------------------- LoRA-GA
def test_lora_ga_starts_as_the_gradient_and_changes_nothing_yet(course):
    targets = ("attn2.to_q", "conv_in")
    plain, run = (starting(course, init, targets=targets) for init in ("default", "lora_ga"))
    weights = {name: layer.get_base_layer().weight for name, layer in layers(plain).items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    for step in range(2):
        for position in range(4):
            row(plain, step, position).div(8).backward()
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    for name, layer in layers(run).items():
        u, _, v = torch.linalg.svd(weights[name].grad.flatten(1), full_matrices=False)
        scale, down, up = len(before[name]) ** 0.25 / GAMMA**0.5, layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        for found, expected in ((down.flatten(1) / scale, v[:4]), (up.flatten(1).T / scale, u[:, 4:8].T)):
            assert torch.allclose((found * expected).sum(1).abs(), torch.ones(4), atol=1e-3), name
        together = layer.get_base_layer().weight + layer.scaling[NAME] * (up.flatten(1) @ down.flatten(1)).view_as(
            before[name]
        )
        assert torch.allclose(together, before[name], atol=1e-5)
        assert not torch.allclose(layer.get_base_layer().weight, before[name], atol=1e-4)
    rows = plain.plan.rows(5, range(4))
    assert torch.allclose(row_losses(run, rows), row_losses(plain, rows), rtol=1e-4)
    assert not any(p.grad is not None for p in run.injection.parameters.values())
    run.injection.remove()
    state = run.backbone.denoiser.state_dict()
    assert all(torch.equal(state[f"{name}.weight"], weight) for name, weight in before.items())


def test_the_first_step_of_lora_ga_goes_further_along_the_gradient(course):
    """cos of ∠(what a step of A and B does to W, the gradient of W): far greater than from a random A and B = 0."""
    found = {}
    for init in ("default", "lora_ga"):
        run = starting(course, init, 1, rank=2, targets=("attn2.to_q", "attn1.to_k"))
        layer = layers(run)[max(layers(run))]
        weight = layer.get_base_layer().weight
        weight.requires_grad_(True)
        sum(row(run, 0, position) for position in range(4)).backward()
        down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        step = up.grad @ down + up @ down.grad
        found[init] = float(
            torch.nn.functional.cosine_similarity(step.detach().flatten(), weight.grad.flatten(), dim=0)
        )
    assert found["lora_ga"] > 0.9 and found["lora_ga"] > found["default"] + 0.1


# ---------------------------------------------------------------------------------------------- both
@pytest.mark.parametrize("init", ["eva", "lora_ga"])
def test_a_run_is_proved_and_resumed_to_the_same_bytes(train, tmp_path, init):
    result = train(tmp_path / "a" / "run", **SHORT, init=init, anchor_above=0.7)
    assert result.proof.difference <= 1e-4 < result.proof.effect and result.proof.reader == "diffusers"
    assert {layer.rank for layer in result.adapter.layers().values()} == {2 if init == "eva" else 4}
    cut = shutil.copytree(result.folder, tmp_path / "b" / "run")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    (cut / "snapshots" / "step-000004.safetensors").unlink()
    train(cut, existing="resume")
    assert content(cut, *RESULTS) == content(result.folder, *RESULTS)


@pytest.mark.parametrize("init", ["eva", "lora_ga"])
def test_the_start_is_the_same_however_batches_are_cut(course, init):
    one, pieces = (starting(course, init, accumulation=n, train_text_encoder=True) for n in (1, 4))
    assert any(name.startswith("text_encoder:") for name in one.injection.parameters)
    assert all(torch.equal(p, pieces.injection.parameters[name]) for name, p in one.injection.parameters.items())


# ---------------------------------------------------------------------------------------------- LoRA+
def test_b_learns_as_many_times_faster_as_lora_plus_says(train, tmp_path):
    """Adam's first step is as long as its rate: B starts from 0 and becomes ± the rate."""
    settings = {**SHORT, "steps": 1, "warmup": 0, "schedule": "constant", "weight_decay": 0.0, "learning_rate": 1e-4}
    pattern = {"learning_rate_pattern": {"to_q": 1e-3}, "lora_plus_ratio": 16.0, "targets": ("to_q", "to_v")}
    result = train(tmp_path / "run", **{**settings, **pattern})
    for name, layer in result.adapter.layers().items():
        rate = 1e-3 if name.endswith("to_q") else 1e-4
        assert float(layer.up.abs().median()) == pytest.approx(16 * rate, rel=0.05), name


def test_lora_plus_leaves_a_and_the_groups_of_others_alone(course):
    run = course(lora_plus_ratio=4.0, text_encoder_learning_rate=2e-2, train_text_encoder=True, learning_rate=1e-2)
    names = {id(p): name for name, p in run.injection.parameters.items()}
    groups = [({names[id(p)] for p in found}, factor) for found, factor in run.injection.groups(run.settings)]
    assert sorted(factor for _, factor in groups) == [1.0, 2.0, 4.0, 8.0]
    assert sum(len(found) for found, _ in groups) == len(names)
    for found, factor in groups:
        assert {(".lora_B." in name, name.startswith("text_encoder:")) for name in found} == {
            (factor in (4.0, 8.0), factor in (2.0, 8.0))
        }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"init": "eva", "kind": "lokr"}, "a start of A"),
        ({"init": "lora_ga", "kind": "dora"}, "kind=lora"),
        ({"init": "lora_ga", "dropout": 0.1}, "would drop a part of the base"),
        ({"init": "lora_ga", "base_precision": "bf16"}, "base_precision=fp32"),
        ({"init": "eva", "init_from": "x"}, "two different starts"),
        ({"init": "eva", "compile": True}, "leave compile out"),
        ({"init_batches": 3}, "of init=eva"),
        ({"lora_plus_ratio": 16, "kind": "loha"}, "no B that starts from 0"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        validate(settings)
