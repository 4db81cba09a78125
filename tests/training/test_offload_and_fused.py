"""Weights and activations elsewhere, and gradients applied in the backward pass: the same course, to the bit.

What they save is the memory of a GPU, and unproved here; that tensors go and come back is what a CPU can show.
"""

import copy
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import content, tiny
from torch import nn

import adapt
from adapt.api import assemble, fit
from adapt.api.machine import require_alone
from adapt.api.offload import Activations, movable, send_away
from adapt.backbones import Backbone
from adapt.config import validate
from adapt.errors import SettingsError, TrainingError
from adapt.training.fused import Fused
from adapt.training.update import Update

CPU = torch.device("cpu")
SHORT = {"steps": 3, "save_every": 3, "validation": 0.25, "validate_every": 3, "targets": ("to_q", "conv1")}


def network():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3, padding=1, stride=2),
        nn.SiLU(),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(24, 5),
    ]
    return nn.ModuleDict({"first": nn.Linear(2, 2), "blocks": nn.Sequential(*layers)}).requires_grad_(False)


# -------------------------------------------------------------------------------------------------------------- weights
@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_whose_weight_is_fetched_gives_the_same_bits_forwards_and_backwards(autocast):
    plain, away = network(), network()
    send_away(SimpleNamespace(networks=(away,), modules={"net": away}), 1.0, CPU)
    assert [type(m).__name__ for m in movable(away)] == ["Conv2d", "Conv2d", "Linear"]
    x, found = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), []
    for net in (plain, away):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = net["blocks"](given)
        y.float().square().sum().backward()
        found.append((y, given.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) and found[0][1].any()


def test_the_way_back_keeps_neither_a_weight_nor_its_copy():
    net = network()
    send_away(SimpleNamespace(networks=(net,), modules={"net": net}), 1.0, CPU)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        net["blocks"](torch.randn(2, 3, 8, 8, requires_grad=True))
    weights = {tuple(p.shape) for p in net["blocks"].parameters()}
    assert kept and not [x for x in kept if tuple(x.shape) in weights]


def test_a_share_is_spread_over_the_network_and_the_rest_goes_to_the_device(monkeypatch):
    net = nn.ModuleDict({"first": nn.Linear(2, 2), "blocks": nn.Sequential(*(nn.Linear(3, 3) for _ in range(8)))})
    moved = []
    monkeypatch.setattr(nn.Parameter, "to", lambda self, device: moved.append(self) or self, raising=False)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: moved.append(self) or self)
    send_away(SimpleNamespace(networks=(net,), modules={"net": net}), 0.5, CPU)
    away = ["forward" in vars(layer) for layer in net["blocks"]]
    assert away == [True, False] * 4 and "forward" not in vars(net["first"])
    there = {x.data_ptr() for x in moved}
    stayed = {p.data_ptr() for layer, gone in zip(net["blocks"], away, strict=True) if gone for p in layer.parameters()}
    assert there == {p.data_ptr() for p in net.parameters()} - stayed


# ---------------------------------------------------------------------------------------------------------- activations
def test_large_activations_go_and_come_back_and_parameters_stay():
    net, x = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)), torch.randn(32, 64)
    plain = copy.deepcopy(net)
    plain(x).square().sum().backward()
    activations = Activations(net, smallest=4096)
    with activations.waiting():
        loss = net(x).square().sum()
    loss.backward()
    assert activations.gone >= 3
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(net.parameters(), plain.parameters(), strict=True))
    weight = next(net.parameters())
    assert activations.pack(weight) is weight and activations.pack(weight.t()).data_ptr() == weight.data_ptr()
    small = torch.ones(2)
    assert activations.pack(small) is small


def test_with_checkpointing_only_the_inputs_of_blocks_go():
    from torch.utils.checkpoint import checkpoint

    net, x = (
        nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)) for _ in range(3))),
        torch.ones(32, 64),
    )
    activations = Activations(net, smallest=4096)
    with activations.waiting():
        y = x.requires_grad_()
        for block in net:
            y = checkpoint(block, y, use_reentrant=False)
    assert activations.gone == 3
    y.sum().backward()
    assert x.grad.any()


# ----------------------------------------------------------------------------------------------------------- whole runs
@pytest.fixture(scope="module")
def plain(captioned, tiny_base, tmp_path_factory):
    settings = tiny(**SHORT, accumulation=1, max_grad_norm=None)
    return adapt.train(
        captioned, output=tmp_path_factory.mktemp("plain") / "run", base=str(tiny_base), settings=settings
    )


@pytest.mark.parametrize("measure", [
    {"offload_weights": 1.0},
    {"offload_activations": True, "offload_weights": 0.5, "gradient_checkpointing": True},
    {"fused_backward": True},
], ids=["weights", "activations", "fused"])  # fmt: skip
def test_a_run_takes_the_same_course_to_the_bit(train, plain, tmp_path, monkeypatch, measure):
    monkeypatch.setattr("adapt.api.offload.SMALLEST", 1)
    run = train(tmp_path / "run", **SHORT, accumulation=1, max_grad_norm=None, **measure)
    assert content(run.folder, "snapshots", "checkpoints") == content(plain.folder, "snapshots", "checkpoints")
    assert run.proof.difference <= 1e-4 and run.measurements == plain.measurements


def test_the_settings_reach_the_layers_and_the_passes(train, tmp_path, monkeypatch):
    """So that the runs above are not equal because nothing happened."""
    from adapt.api import offload

    seen = {"linear": 0, "convolution": 0, "pack": 0, "fused": 0}

    def counting(what, call):
        return lambda *given: seen.__setitem__(what, seen[what] + 1) or call(*given)

    monkeypatch.setattr(offload._Linear, "forward", staticmethod(counting("linear", offload._Linear.forward)))
    monkeypatch.setattr(
        offload._Convolution, "forward", staticmethod(counting("convolution", offload._Convolution.forward))
    )
    monkeypatch.setattr(Activations, "pack", counting("pack", Activations.pack))
    monkeypatch.setattr(Fused, "_step", counting("fused", Fused._step))
    settings = {"offload_weights": 1.0, "offload_activations": True, "fused_backward": True, "max_grad_norm": None}
    monkeypatch.setattr(adapt.api.train, "conclude", lambda trainer: None)
    train(tmp_path / "run", **{**SHORT, "steps": 1, "validation": None}, accumulation=1, **settings)
    assert all(seen.values()) and assemble.keeping_of(tiny(), None)().__enter__() is None


# ---------------------------------------------------------------------------------------------------------------- fused
def test_a_fused_step_is_the_optimizers_own_and_holds_no_gradient():
    found = []
    for fused in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        holder = SimpleNamespace(parameters=dict(net.named_parameters()))
        settings = adapt.TrainSettings(max_grad_norm=None, fused_backward=fused, weight_decay=0.1, warmup=2)
        update = Update(settings, holder, CPU)
        for step in range(3):
            update.begin(step)
            loss = net(torch.full((2, 4), float(step))).square().sum()
            loss.backward()
            assert all((p.grad is None) == fused for p in net.parameters())
            assert update.apply(step, float(loss.detach())) is None
        found.append((net.state_dict(), update.state()[0]))
    (plain, state), (same, others) = found
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    assert str(state) == str(others)


def test_a_gradient_that_is_not_finite_ends_a_fused_run(train, tmp_path, monkeypatch):
    original = Fused._step

    def poisoned(fused, parameter):
        parameter.grad.fill_(float("nan"))
        original(fused, parameter)

    monkeypatch.setattr(Fused, "_step", poisoned)
    with pytest.raises(TrainingError, match="gradient of step 1 is not finite"):
        train(
            tmp_path / "run", **{**SHORT, "validation": None}, accumulation=1, max_grad_norm=None, fused_backward=True
        )
    assert not (tmp_path / "run" / "adapter").exists()


# -------------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fused_backward": True, "max_grad_norm": 1.0}, "max_grad_norm=null"),
        ({"fused_backward": True, "max_grad_norm": None, "accumulation": 2}, "accumulation"),
        ({"fused_backward": True, "max_grad_norm": None, "optimizer": "prodigy"}, "looks at all"),
        ({"fused_backward": True, "max_grad_norm": None, "on_nonfinite": "skip"}, "on_nonfinite=stop"),
        ({"fused_backward": True, "max_grad_norm": None, "precision": "fp16"}, "precision"),
        ({"fused_backward": True, "max_grad_norm": None, "train_text_encoder": True}, "train_text_encoder"),
        ({"offload_weights": 0.5, "kind": "dora"}, "kind=dora"),
        ({"offload_weights": 0.5, "init": "pissa"}, "init=pissa"),
        ({"offload_weights": 0.5, "compile": True}, "compile"),
        ({"offload_weights": 0.5, "quantize": "int8-bnb"}, "quantize"),
        ({"offload_activations": True, "compile": True}, "compile"),
        ({"offload_weights": 1.5}, "offload_weights"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        validate(settings)


def test_gradients_that_are_applied_at_once_are_not_shortened_together():
    assert validate({"fused_backward": True}).max_grad_norm is None and validate({}).max_grad_norm == 1.0


def test_several_processes_are_refused():
    for settings in ({"offload_weights": 0.5}, {"fused_backward": True, "max_grad_norm": None}):
        with pytest.raises(SettingsError, match="2 processes"):
            require_alone(validate(settings), 2)


# ------------------------------------------------------------------------------------------------------------------ fit
def test_fit_tries_them_on_a_gpu_only_and_last():
    gpu, cpu = (SimpleNamespace(device=torch.device(kind), num_processes=1) for kind in ("cuda", "cpu"))
    settings = tiny(memory="fit")
    assert [held.get("offload_weights") for held in fit._precisions(settings, gpu)][-2:] == [0.5, 1.0]
    assert not any("offload_weights" in held for held in fit._precisions(settings, cpu))
    assert not any("offload_weights" in held for held in fit._precisions(tiny(memory="fit", kind="loha"), gpu))
    ways = [{}, {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "offload_activations": True}]
    assert list(fit._ways(settings, torch.device("cuda"))) == ways and list(fit._ways(settings, CPU)) == ways[:2]


def test_fit_measures_a_base_whose_weights_wait(captioned, tiny_base):
    from adapt.api.gather import gather
    from adapt.api.machine import make_accelerator

    settings = tiny(memory="fit", offload_weights=1.0, offload_activations=True, batch_size=4, accumulation=1)
    found = fit.fitted(str(tiny_base), settings, gather(captioned, settings), make_accelerator(settings))
    assert found == settings.model_copy(update={"memory": "as_set", "base_precision": "fp32"})
    assert Backbone.load(str(tiny_base)).listeners == []
