"""Optimizers by name: what the settings mean to each, what is refused, and that each can be saved and gone on with exactly."""

import json
import math
import sys

import pytest
import torch
from torch import nn

from adapt import files
from adapt.config import TrainSettings, validate
from adapt.config.learning import OPTIMIZERS
from adapt.errors import SettingsError
from adapt.training.average import Average, evaluated
from adapt.training.optimizer import make, rehearse
from adapt.training.optimizer.families import FAMILIES
from adapt.training.optimizer.state import OptimizerState, optimizer_state, restore_optimizer

CPU = torch.device("cpu")
HERE = ("adamw", "adafactor", "prodigy", "schedulefree", "lion", "muon", "torch.optim.SGD", "torch.optim.RMSprop")


def weights():
    """Two matrices as LoRA begins: A is something, B is zero."""
    return {"a": nn.Parameter(torch.linspace(-0.5, 0.5, 12).reshape(3, 4)), "b": nn.Parameter(torch.zeros(4, 3))}


def steps(optimizer, named, first, count):
    """Fits b @ a to a matrix."""
    goal = torch.arange(16.0).reshape(4, 4).sin()
    if hasattr(optimizer, "train"):
        optimizer.train()
    for step in range(first, first + count):
        loss = ((named["b"] @ named["a"] - goal) ** 2).sum() * (1 + step % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def made(named, **settings):
    settings = TrainSettings(**settings)
    return make(settings, [(list(named.values()), 1.0)])


# ---------------------------------------------------------------------------------------------- what the settings mean
def test_adamw_is_torchs_with_the_settings_numbers():
    ours, theirs = weights(), weights()
    settings = {"learning_rate": 3e-3, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6, "weight_decay": 0.1}
    steps(made(ours, **settings), ours, 0, 5)
    plain = torch.optim.AdamW(theirs.values(), lr=3e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    steps(plain, theirs, 0, 5)
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_every_name_has_a_class_and_every_class_a_name():
    assert set(FAMILIES) == set(OPTIMIZERS)


def test_adafactor_moves_zeros_by_the_learning_rate():
    """torch's own would multiply it by the size of the weight, at least 1e-3: LoRA's B would stand still."""
    named, torchs = weights(), weights()
    steps(made(named, optimizer="adafactor", learning_rate=1e-2), named, 0, 1)
    steps(made(torchs, optimizer="torch.optim.Adafactor", learning_rate=1e-2), torchs, 0, 1)
    size = float(named["b"].detach().square().mean().sqrt())
    assert size == pytest.approx(1e-2, rel=0.2)
    assert float(torchs["b"].detach().abs().max()) < 1e-3 * size * 10


def test_prodigy_is_safeguarded_while_it_warms_up_and_only_then():
    for settings, expected in (({}, True), ({"warmup": 0}, False), ({"schedule": "constant"}, False)):
        optimizer = made(weights(), optimizer="prodigy", **settings)
        assert optimizer.param_groups[0]["safeguard_warmup"] is expected
    given = made(weights(), optimizer="prodigy", warmup=0, optimizer_args={"safeguard_warmup": True, "d_coef": 0.5})
    assert given.param_groups[0]["safeguard_warmup"] is True and given.param_groups[0]["d_coef"] == 0.5


def test_nothing_is_printed(capfd):
    """Prodigy prints when it is made; standard output is for results."""
    made(weights(), optimizer="prodigy", weight_decay=0.1)
    assert capfd.readouterr() == ("", "")


def test_muon_has_adamws_learning_rate():
    optimizer = made(weights(), optimizer="muon")
    assert optimizer.param_groups[0]["adjust_lr_fn"] == "match_rms_adamw"
    changed = made(weights(), optimizer="muon", optimizer_args={"adjust_lr_fn": "original"})
    assert changed.param_groups[0]["adjust_lr_fn"] == "original"


def test_weight_decay_reaches_a_class_by_its_name_where_it_has_one():
    assert made(weights(), optimizer="torch.optim.SGD", weight_decay=0.5).param_groups[0]["weight_decay"] == 0.5
    assert "weight_decay" not in made(weights(), optimizer="torch.optim.Rprop").param_groups[0]
    with pytest.raises(SettingsError, match="Rprop has no weight_decay"):
        made(weights(), optimizer="torch.optim.Rprop", weight_decay=0.5)


def test_groups_have_parameters_of_their_own():
    named = weights()
    optimizer = make(TrainSettings(), [([named["a"]], 1.0), ([named["b"]], 16.0)])
    assert [group["params"] for group in optimizer.param_groups] == [[named["a"]], [named["b"]]]


# ---------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("optimizer", "arguments", "message"),
    [
        ("adamw", {"amsgrd": True}, r"AdamW takes no argument amsgrd \(did you mean amsgrad\?\).*allowed: amsgrad"),
        ("prodigy", {"d_cof": 2}, r"did you mean d_coef\?"),
        ("torch.optim.SGD", {"momentum": -1.0}, "cannot be made.*Invalid momentum"),
        ("torch.optim.AdamWW", {}, r"did you mean torch\.optim\.AdamW\?"),
        ("torch.optm.AdamW", {}, r"torch\.optm, which is not there"),
        ("torch.nn.Linear", {}, "no optimizer class"),
        ("os.system", {}, "no optimizer class"),
        ("torch.optim.Optimizer", {}, "cannot be"),
        ("torch.optim.LBFGS", {}, "cannot be used here.*closure"),
        ("torch.optim.SparseAdam", {}, "dense gradients"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(optimizer, arguments, message):
    with pytest.raises(SettingsError, match=message):
        rehearse(TrainSettings(optimizer=optimizer, optimizer_args=arguments), CPU)


@pytest.mark.parametrize(("optimizer", "package", "extra"), [
    ("prodigy", "prodigyopt", "optim"), ("schedulefree", "schedulefree", "optim"), ("lion", "lion_pytorch", "optim"),
    ("adamw8bit", "bitsandbytes", "quant"), ("lion8bit", "bitsandbytes", "quant"),
])  # fmt: skip
def test_a_missing_package_names_the_extra(optimizer, package, extra, monkeypatch):
    for module in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError, match=rf"needs {package}.*adapt-diffusion\[{extra}\]"):
        make(TrainSettings(optimizer=optimizer), [([nn.Parameter(torch.zeros(2, 2))], 1.0)])


def test_muon_takes_no_convolution():
    with pytest.raises(SettingsError, match="matrices only"):
        make(TrainSettings(optimizer="muon"), [([nn.Parameter(torch.zeros(2, 2, 3, 3))], 1.0)])


def test_prodigy_has_one_learning_rate_for_all():
    a, b = (nn.Parameter(torch.ones(2, 2)) for _ in "ab")
    with pytest.raises(SettingsError, match="factors 1, 16"):
        make(TrainSettings(optimizer="prodigy"), [([a], 1.0), ([b], 16.0)])
    make(TrainSettings(optimizer="prodigy"), [([a], 2.0), ([b], 2.0)])


class Forgetful(torch.optim.SGD):
    """Keeps its place where nobody looks for it."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad, alpha=-0.01 * self.count)


class Odd(torch.optim.SGD):
    """Keeps a thing that is neither number nor tensor."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            self.state[p]["odd"] = object()


class TwoFaced(torch.optim.SGD):
    """Averages itself, by another name than schedule-free's."""

    def train(self):
        pass

    def eval(self):
        pass


@pytest.mark.parametrize(
    ("name", "message"), [("Forgetful", "state that it does not tell"), ("Odd", "neither tensor nor JSON")]
)
def test_an_optimizer_that_could_not_be_resumed_is_refused(name, message):
    with pytest.raises(SettingsError, match=message):
        rehearse(TrainSettings(optimizer=f"{__name__}.{name}"), CPU)


def test_two_averages_are_one_too_many():
    with pytest.raises(SettingsError, match="averages the weights itself"):
        made(weights(), optimizer=f"{__name__}.TwoFaced")
    made(weights(), optimizer=f"{__name__}.TwoFaced", ema=0.0)


# ---------------------------------------------------------------------------------------------- saved and gone on with
@pytest.mark.parametrize("optimizer", HERE)
def test_going_on_is_never_having_stopped(optimizer, tmp_path):
    """State through a checkpoint's files, to the last bit, for every optimizer; twice, since one step may hide much."""
    from adapt.training import checkpoint

    named = weights()
    first = made(named, optimizer=optimizer)
    steps(first, named, 0, 3)
    state = checkpoint.State(3, {n: p.detach() for n, p in named.items()}, {}, optimizer_state(first, named))
    checkpoint.save(tmp_path, state)
    read = checkpoint.newest(tmp_path)
    twins = {name: nn.Parameter(read.parameters[name].clone()) for name in named}
    again = made(twins, optimizer=optimizer)
    restore_optimizer(again, twins, read.optimizer)
    assert_same_state(first, named, again, twins)
    for begin in (3, 6):
        steps(first, named, begin, 3)
        steps(again, twins, begin, 3)
        assert all(named[name].equal(twins[name]) for name in named)
        assert_same_state(first, named, again, twins)


@pytest.mark.parametrize("optimizer", ["adamw8bit", "lion8bit"])
def test_eight_bits_are_eight_bits_and_go_on_as_such(optimizer):
    """Where the package is installed; blocks of 4096 numbers and more."""
    pytest.importorskip("bitsandbytes")
    rehearse(TrainSettings(optimizer=optimizer), CPU)
    weight = nn.Parameter(torch.linspace(-1, 1, 64 * 96).reshape(64, 96))
    first = make(TrainSettings(optimizer=optimizer), [([weight], 1.0)])
    weight.grad = weight.detach().cos()
    first.step()
    again = make(TrainSettings(optimizer=optimizer), [([weight], 1.0)])
    restore_optimizer(again, {"w": weight}, optimizer_state(first, {"w": weight}))
    assert again.state[weight]["state1"].dtype == torch.uint8


def assert_same_state(a, of_a, b, of_b):
    """Not only equal: of the same kind, so that nothing is added up in another precision."""
    for name in of_a:
        one, other = a.state[of_a[name]], b.state[of_b[name]]
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert type(value) is type(other[key]), key
            if isinstance(value, torch.Tensor):
                assert value.dtype == other[key].dtype and value.equal(other[key]), key
            else:
                assert value == other[key], key
    for one, other in zip(a.param_groups, b.param_groups, strict=True):
        assert {k: v for k, v in one.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}


def test_state_of_any_shape_comes_back_as_it_was():
    named = weights()
    optimizer = torch.optim.SGD(named.values(), lr=0.1)
    state = {
        "step": 7, "flag": True, "nothing": None, "ratio": 0.1, "endless": math.inf, "word": "x",
        "whole": torch.tensor([1, 2**40]), "bytes": torch.tensor([3], dtype=torch.uint8), "half": torch.ones(2).half(),
        "factors": [torch.eye(2), (torch.zeros(1), 3)], "named": {"q": torch.ones(3), 4: 5.0},
    }  # fmt: skip
    optimizer.state[named["b"]] = state
    optimizer.param_groups[0].update({"d": 1e-6, "k": 3, "mean": torch.ones(2), "lr": 123.0})
    saved = optimizer_state(optimizer, named)
    saved = OptimizerState(saved.tensors, json.loads(files.dump_json(saved.rest)))  # as `state.json` keeps it
    assert all(name.startswith(("b/", "group 0/")) for name in saved.tensors)
    again = torch.optim.SGD(weights().values(), lr=0.1)
    twins = dict(zip(named, again.param_groups[0]["params"], strict=True))
    restore_optimizer(again, twins, saved)
    found = again.state[twins["b"]]
    assert repr(found) == repr({key: found[key] for key in found}) and found.keys() == state.keys()
    assert repr({key: found[key] for key in state}) == repr(state)
    assert all(found[key].dtype == state[key].dtype for key in ("whole", "bytes", "half"))
    group = again.param_groups[0]
    assert (group["d"], group["k"]) == (1e-6, 3) and group["mean"].equal(torch.ones(2))
    assert group["lr"] == 0.1  # the schedule's, not the optimizer's


def test_restored_tensors_are_copies():
    """What is read from a checkpoint is not what the optimizer then changes."""
    named = weights()
    optimizer = made(named)
    steps(optimizer, named, 0, 1)
    state = optimizer_state(optimizer, named)
    kept = {name: value.clone() for name, value in state.tensors.items()}
    steps(optimizer, named, 1, 1)
    twins = weights()
    again = made(twins)
    restore_optimizer(again, twins, state)
    steps(again, twins, 1, 1)
    assert all(state.tensors[name].equal(kept[name]) for name in kept)


def test_settings_stay_with_the_settings():
    """A change that `--resume --allow weight_decay` accepts is not undone by what was saved."""
    named = weights()
    optimizer = made(named, weight_decay=0.3)
    steps(optimizer, named, 0, 1)
    again = made(named, weight_decay=0.1)
    restore_optimizer(again, named, optimizer_state(optimizer, named))
    assert again.param_groups[0]["weight_decay"] == 0.1


def test_a_state_of_an_older_version_has_tensors_only():
    named = weights()
    optimizer = made(named)
    steps(optimizer, named, 0, 2)
    again = made(named)
    restore_optimizer(again, named, OptimizerState(optimizer_state(optimizer, named).tensors, {}))
    assert_same_state(optimizer, named, again, named)


# ---------------------------------------------------------------------------------------------- schedule-free
def test_what_schedule_free_has_learned_is_its_average():
    """x of Defazio et al. 2024, equation 4: written out here for plain averages, c = 1 / t."""
    named = weights()
    optimizer = made(named, optimizer="schedulefree", learning_rate=1e-2, schedule="constant")
    average = Average(named, 0.0, optimizer)
    optimizer.train()
    assert all(average.values[name].equal(named[name]) for name in named)
    mean = {name: torch.zeros_like(p) for name, p in named.items()}
    for step in range(1, 7):
        steps(optimizer, named, step, 1)
        average.update(step)
        for name, p in named.items():
            mean[name] += (optimizer.state[p]["z"] - mean[name]) / step
            torch.testing.assert_close(average.values[name], mean[name], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(average.values["b"], named["b"])


def test_looking_changes_no_bit():
    """Its own eval() and train() would, by rounding a number in a hundred: the course must not depend on when it is measured."""
    seen, unseen = ({"a": nn.Parameter(torch.linspace(-1, 1, 4096).reshape(64, 64).sin())} for _ in range(2))
    watched, alone = (made(each, optimizer="schedulefree", learning_rate=1e-2) for each in (seen, unseen))
    for step in range(8):
        for optimizer, weight in ((watched, seen["a"]), (alone, unseen["a"])):
            optimizer.train()
            weight.grad = torch.cos(weight.detach() * (step + 1))
            optimizer.step()
        evaluated(watched, seen)
    assert seen["a"].equal(unseen["a"]) and watched.param_groups[0]["train_mode"] is True
    watched.eval(), watched.train()
    assert not seen["a"].equal(unseen["a"])


def test_an_average_is_the_same_while_the_parameters_hold_it():
    named = weights()
    optimizer = made(named, optimizer="schedulefree", learning_rate=1e-2)
    average = Average(named, 0.0, optimizer)
    steps(optimizer, named, 0, 3)
    average.update(3)
    found = {name: x.clone() for name, x in average.values.items()}
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(average.values[name])
    assert all(average.values[name].equal(found[name]) for name in named)


# ---------------------------------------------------------------------------------------------- clashes in the settings
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "prodgy"}, "did you mean prodigy"),
        ({"optimizer": "a..B"}, "package.module.Class"),
        ({"optimizer": "prodigy", "learning_rate": 1e-4}, "give 1"),
        ({"optimizer": "prodigy", "optimizer_args": {"safeguard_warmup": False}}, "warms up"),
        ({"optimizer": "prodigy", "optimizer_args": {"fsdp_in_use": True}}, "fsdp_in_use"),
        ({"optimizer": "schedulefree", "schedule": "cosine"}, "in place of a schedule"),
        ({"optimizer": "schedulefree", "ema": 0.9}, "averages the weights itself"),
        ({"optimizer": "schedulefree", "optimizer_args": {"warmup_steps": 5}}, "said by warmup"),
        ({"optimizer": "schedulefree", "max_norm": 1.0}, "schedulefree's own average"),
        ({"optimizer": "adafactor", "optimizer_args": {"relative_step": True}}, "ignore learning_rate"),
        ({"optimizer": "adafactor", "adam_beta2": 0.99}, "adam_beta2 is of adamw"),
        ({"optimizer": "lion", "adam_epsilon": 1e-6}, "adam_epsilon is of adamw"),
        ({"optimizer_args": {"lr": 1}}, "said by learning_rate"),
        ({"optimizer_args": {"betas": [0.9, 0.9]}}, "said by adam_beta1 and adam_beta2"),
        ({"optimizer_args": {"weight_decay": 0}}, "said by weight_decay"),
        ({"optimizer_args": ["d_coef"]}, "name=value"),
        ({"schedule_cycles": 2}, "cosine_with_restarts"),
        ({"schedule_power": 2.0}, "polynomial"),
        ({"compile": True, "dropout": 0.1}, "LoRA dropout"),
        ({"base_precision": "fp16"}, "precision=fp16"),
        ({"base_precision": "fp16", "precision": "bf16"}, "precision=fp16"),
        ({"base_precision": "bf16", "precision": "fp16"}, "precision=bf16"),
        ({"steps": 10, "epochs": 2}, "give one of them"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(SettingsError, match=message):
        validate(settings)


@pytest.mark.parametrize("settings", [
    {"optimizer": "prodigy", "learning_rate": 0.5}, {"optimizer": "lion", "optimizer_args": {"betas": [0.95, 0.98]}},
    {"optimizer": "prodigy", "warmup": 0, "optimizer_args": {"safeguard_warmup": False}},
    {"optimizer": "torch.optim.RAdam", "optimizer_args": {"eps": 1e-6}},
    {"base_precision": "bf16"}, {"base_precision": "fp16", "precision": "fp16"}, {"base_precision": "bf16", "precision": "bf16"},
    {"precision": "fp16"}, {"schedule": "cosine_with_restarts", "schedule_cycles": 3}, {"epochs": 1.5},
])  # fmt: skip
def test_settings_that_do(settings):
    validate(settings)


def test_other_trainers_words_for_an_optimizer():
    kohya = validate({"optimizer": "AdamWScheduleFree"})
    assert kohya.optimizer == "schedulefree" and kohya.ema == 0
    assert validate({"optimizer": "AdamW8bit"}).optimizer == "adamw8bit"
    pairs = validate(
        {"optimizer": "Prodigy", "optimizer_args": ["d_coef=2.0", "use_bias_correction=True", "beta3 = None"]}
    )
    assert pairs.optimizer_args == {"d_coef": 2.0, "use_bias_correction": True, "beta3": None}
    assert validate({"optimizer": "lion", "optimizer_args": ["betas=0.9,0.99"]}).optimizer_args["betas"] == (0.9, 0.99)


def test_an_optimizers_own_defaults_give_way():
    assert validate({"optimizer": "prodigy"}).learning_rate == 1
    assert validate({"optimizer": "prodigy", "learning_rate": 0.5}).learning_rate == 0.5
    assert validate({"optimizer": "lion"}).learning_rate == 2e-5
    assert validate({}).learning_rate == 1e-4 and validate({}).ema == 0.98
