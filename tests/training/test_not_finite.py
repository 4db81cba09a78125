"""Loss, gradient or weights that are no numbers: the step is left out or the run stops, and nothing of it gets into a file."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import RESULTS, content, tiny
from torch import nn

import adapt
from adapt.errors import TrainingError
from adapt.training import checkpoint, events, loop, update
from adapt.training.update import MOST_IN_A_ROW, Update

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def spoil(monkeypatch):
    """`spoil(what, steps, value)`: the loss, a gradient or a weight of these steps (from 1) is none."""
    row_losses, clip = loop.row_losses, update.optimizer.clip

    def arrange(what, steps, value=NAN):
        now = []

        def losses(course, rows):
            now.append(rows.step + 1)
            found = row_losses(course, rows)
            return found * value if what == "loss" and rows.step + 1 in steps else found

        def clipped(parameters, longest):
            if what == "gradient" and now[-1] in steps:
                parameters[1].grad[0, 0] = value
            return clip(parameters, longest)

        def applied(self, step, loss, apply=Update.apply):
            fault = apply(self, step, loss)
            if what == "weights" and step + 1 in steps:
                next(iter(self.parameters.values())).data[0, 0] = value
            return fault

        monkeypatch.setattr(loop, "row_losses", losses)
        monkeypatch.setattr(update.optimizer, "clip", clipped)
        monkeypatch.setattr(Update, "apply", applied)

    return arrange


def tensors_of(run):
    return {path: load_file(path) for path in run.rglob("*.safetensors")}


def assert_finite(run):
    for path, tensors in tensors_of(run).items():
        for name, x in tensors.items():
            assert torch.isfinite(x.float()).all(), f"{path}: {name}"
    for path in (*run.rglob("*.json"), *run.rglob("*.jsonl")):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line, parse_constant=lambda word, path=path: pytest.fail(f"{word} in {path}"))


# ---------------------------------------------------------------------------------------------- in a run
@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize(
    ("what", "value"), [("loss", NAN), ("loss", INF), ("gradient", NAN), ("gradient", -INF), ("weights", NAN)]
)
def test_no_file_ever_holds_what_is_no_number(train, spoil, tmp_path, what, value, policy):
    run = tmp_path / "run"
    spoil(what, {3, 4}, value)
    if policy == "skip" and what != "weights":
        train(run, on_nonfinite="skip", validation=None)
        assert (run / "adapter").is_dir()
    else:
        with pytest.raises(TrainingError, match="not finite") as stopped:
            train(run, on_nonfinite=policy, validation=None)
        assert stopped.value.exit_code == 2 and not (run / "adapter").exists()
        assert [path.name for path in checkpoint.states(run)] == ["step-000002"]
    assert_finite(run)


def test_a_stop_between_checkpoints_saves_no_weights_that_are_no_numbers(train, spoil, tmp_path, monkeypatch):
    spoil("weights", {3})
    monkeypatch.setattr(loop.Trainer, "_stopped", lambda self, stop: 15 * (self.step == 3))
    with pytest.raises(TrainingError, match="weights after step 3"):
        train(tmp_path / "run", validation=None)
    assert [path.name for path in checkpoint.states(tmp_path / "run")] == ["step-000002"]
    assert_finite(tmp_path / "run")


def test_a_step_that_is_left_out_counts_and_changes_nothing(train, spoil, tmp_path, monkeypatch):
    seen = []
    take_step = loop.Trainer.take_step

    def watched(trainer):
        before = frozen(trainer)
        take_step(trainer)
        seen.append(before == frozen(trainer))

    def frozen(trainer):
        values = {n: p.detach().clone() for n, p in trainer.course.injection.parameters.items()}
        state = trainer.update.state()[0]
        average = {n: x.clone() for n, x in trainer.average.values.items()}
        return {
            n: x.numpy().tobytes() for part in (values, state.tensors, average) for n, x in part.items()
        }, state.rest

    def and_return(trainer):
        watched(trainer)
        return 1.0

    monkeypatch.setattr(loop.Trainer, "take_step", and_return)
    spoil("loss", {3, 5})
    train(tmp_path / "run", on_nonfinite="skip", validation=None)
    assert seen == [False, False, True, False, True, False]


def test_events_say_what_was_left_out(train, spoil, tmp_path):
    spoil("gradient", {2})
    result = train(tmp_path / "a" / "run", on_nonfinite="skip", validation=None)
    told = events.read(tmp_path / "a" / "run")
    assert [(e["step"], e["reason"]) for e in told if e["event"] == "skipped"] == [(2, "the gradient is not finite")]
    assert [e["step"] for e in told if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert result.chosen_step == 6
    spoil("loss", {2})
    train(tmp_path / "b" / "run", on_nonfinite="skip", validation=None)
    told = events.read(tmp_path / "b" / "run")
    assert [e["step"] for e in told if e["event"] == "skipped"] == [2]
    assert [e["step"] for e in told if e["event"] == "step"] == [1, 3, 4, 5, 6]


def test_a_resumed_run_leaves_out_the_same(train, spoil, tmp_path, monkeypatch):
    spoil("loss", {2, 3, 5})
    whole = train(tmp_path / "whole" / "run", on_nonfinite="skip", validation=None).folder
    save = loop.Trainer.save

    def killed(trainer):
        save(trainer)
        if trainer.step == 2:
            raise KeyboardInterrupt

    run = tmp_path / "cut" / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Trainer, "save", killed)
        train(run, on_nonfinite="skip", validation=None)
    train(run, existing="resume")
    assert content(run, *RESULTS) == content(whole, *RESULTS)


def test_what_does_not_end_ends_the_run(train, spoil, tmp_path):
    spoil("loss", range(3, 100))
    with pytest.raises(
        TrainingError, match=rf"step {3 + MOST_IN_A_ROW} is not finite, as of {MOST_IN_A_ROW} steps before"
    ) as stopped:
        train(tmp_path / "run", on_nonfinite="skip", steps=60, save_every=7, validation=None)
    assert "pictures" in stopped.value.given
    assert checkpoint.newest(tmp_path / "run").scaler["in_a_row"] == 19  # after step 21
    with pytest.raises(TrainingError, match=rf"step {3 + MOST_IN_A_ROW} is not finite"):
        train(tmp_path / "run", existing="resume")  # the count goes on where it was
    assert_finite(tmp_path / "run")


# ---------------------------------------------------------------------------------------------- the update alone
class Trained:
    """What `Update` needs of an injection."""

    def __init__(self):
        self.parameters = {"a": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(3))}

    def groups(self, settings):
        return [([self.parameters["b"]], 1.0), ([self.parameters["a"]], 16.0)]

    def learn(self, value=1.0):
        for p in self.parameters.values():
            p.grad = torch.full_like(p, value)


def fp16():
    """Without a GPU only the update can be tried; Accelerate's autocast cannot."""
    trained = Trained()
    made = Update(tiny(precision="fp16"), trained, torch.device("cpu"))
    made.scaled(torch.ones(()))  # as before every `backward`: the scaler begins here
    return trained, made


def test_an_overflow_in_fp16_lowers_the_scale_and_is_no_fault():
    trained, made = fp16()
    scale = made.scaler.get_scale()
    assert float(made.scaled(torch.ones(()))) == scale > 1
    for number in range(1, 4):
        trained.learn(INF)
        assert made.apply(0, 1.0) == "gradient" and made.tolerates("gradient")
        assert made.scaler.get_scale() == scale / 2**number
        assert all(p.equal(torch.ones_like(p)) and p.grad is None for p in trained.parameters.values())
    trained.learn(scale)
    assert made.apply(0, 1.0) is None and made.in_a_row == 0
    assert not trained.parameters["a"].equal(torch.ones(2, 2))


def test_a_loss_in_fp16_that_is_no_number_is_a_fault():
    trained, made = fp16()
    trained.learn()
    assert made.apply(0, NAN) == "loss" and not made.tolerates("loss")
    assert trained.parameters["a"].equal(torch.ones(2, 2))
    trained.learn()
    assert made.apply(1, 1.0) is None  # the scaler takes the next one


def test_an_overflow_without_end_is_a_fault():
    trained, made = fp16()
    for _ in range(MOST_IN_A_ROW):
        trained.learn(INF)
        assert made.tolerates(made.apply(0, 1.0))
    trained.learn(INF)
    assert not made.tolerates(made.apply(0, 1.0))


def test_the_scale_goes_on_where_it_was():
    trained, made = fp16()
    trained.learn(INF)
    made.apply(0, 1.0)
    state, scaler = made.state()
    again = Update(tiny(precision="fp16"), Trained(), torch.device("cpu"))
    again.restore(state, json.loads(json.dumps(scaler)))
    assert again.scaler.state_dict() == made.scaler.state_dict() and again.in_a_row == 1


def test_every_group_has_its_factor_at_every_step():
    """As LoRA+ (Hayou et al. 2024) and rates by pattern want it: factors on the schedule, not on its top alone."""
    trained = Trained()
    made = Update(
        adapt.TrainSettings(learning_rate=1e-3, warmup=4, steps=8, schedule="cosine"), trained, torch.device("cpu")
    )
    for step in range(8):
        trained.learn()
        made.apply(step, 1.0)
        rates = [group["lr"] for group in made.optimizer.param_groups]
        assert rates == pytest.approx([made.learning_rate(step), 16 * made.learning_rate(step)], rel=1e-12)
    assert made.learning_rate(0) == pytest.approx(2.5e-4) and made.rate(0) == made.learning_rate(0)


def test_the_rate_that_prodigy_found_is_what_is_shown():
    trained = Trained()
    trained.groups = lambda settings: [(list(trained.parameters.values()), 1.0)]
    made = Update(adapt.TrainSettings(optimizer="prodigy", schedule="constant"), trained, torch.device("cpu"))
    for step in range(5):
        trained.learn(1.0)
        made.apply(step, 1.0)
    estimate = made.optimizer.param_groups[0]["d"]
    assert made.rate(4) == estimate != 1 and math.isfinite(estimate)


# ---------------------------------------------------------------------------------------------- runs of other optimizers
@pytest.mark.parametrize(
    "optimizer",
    ["prodigy", "schedulefree", *(pytest.param(n, marks=pytest.mark.slow) for n in ("adafactor", "muon", "lion"))],
)
def test_a_run_that_was_cut_gives_the_same_bytes(train, tmp_path, optimizer, monkeypatch):
    """With its measurements, snapshots and checkpoints at other steps than without the cut."""
    rate = 1.0 if optimizer == "prodigy" else 1e-2
    average = 0.0 if optimizer == "schedulefree" else 0.9
    changes = {"optimizer": optimizer, "learning_rate": rate, "ema": average, "schedule": "constant_with_warmup"}
    whole = train(tmp_path / "whole" / "run", **changes).folder
    run, save = tmp_path / "cut" / "run", loop.Trainer.save

    def killed(trainer):
        save(trainer)
        if trainer.step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Trainer, "save", killed)
        train(run, **changes)
    train(run, existing="resume")
    assert content(run, *RESULTS) == content(whole, *RESULTS)
    if optimizer != "schedulefree":
        return
    rarely = train(tmp_path / "rarely" / "run", **changes, validate_every=6, save_every=6).folder
    last = "snapshots/step-000006.safetensors"
    assert content(rarely, "snapshots")[last] == content(whole, "snapshots")[last]  # looking changes nothing


def test_what_is_kept_of_schedule_free_is_its_average(train, tmp_path):
    """Not the point at which gradients are taken, which is the resume state."""
    run = train(tmp_path / "run", optimizer="schedulefree", ema=0.0, schedule="constant", validation=None).folder
    state = checkpoint.load(run / "checkpoints" / "step-000006")
    assert any(not state.average[name].equal(state.parameters[name]) for name in state.parameters)
    kept = load_file(run / "snapshots" / "step-000006.safetensors")
    values = sorted(x.numpy().tobytes() for x in state.average.values())
    assert sorted(x.numpy().tobytes() for x in kept.values()) == values
