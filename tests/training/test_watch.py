"""Which weights and which step are judged, kept and drawn, and when."""

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import tiny

from adapt import files, progress
from adapt.api.assemble import assemble
from adapt.api.gather import gather
from adapt.api.judging import make_judge, spread, taught
from adapt.api.machine import make_accelerator
from adapt.api.settle import settle
from adapt.backbones import Backbone
from adapt.objectives import Plain
from adapt.training import events, validation
from adapt.training.gauge import Gauge
from adapt.training.schedule import calendar, due, log_spaced, measured, rounds


# ---------------------------------------------------------------------------------------------- when
def test_even_measuring_is_every_so_many_steps_and_the_last():
    settings = tiny(steps=10, validate_every=4)
    assert [step for step in range(11) if "measure" in due(settings, step)] == [0, 4, 8, 10]
    assert rounds(settings) == 4


def test_log_measuring_is_dense_early_and_does_not_depend_on_the_length():
    settings = tiny(steps=1000, validate_every=50, validate_at="log")
    steps = [step for step in range(1, 1001) if measured(settings, step)]
    assert steps == [6, 9, 12, 18, 25, 35, 50, 71, 100, 141, 200, 283, 400, 566, 800]
    assert [step for step in range(1, 401) if measured(settings.model_copy(update={"steps": 400}), step)] == steps[:13]
    assert {0, 1000} <= {step for step in range(1001) if "measure" in due(settings, step)}


@pytest.mark.parametrize("every", [1, 2, 3, 10, 50, 333])
def test_log_steps_are_whole_rising_and_hold_the_setting(every):
    steps = log_spaced(every, 20 * every)
    assert steps == sorted(set(steps)) and steps[0] >= 1 and every in steps
    late = [step for step in steps if step >= 8]
    assert all(1.25 < b / a < 1.6 for a, b in itertools.pairwise(late))


def test_saves_and_previews_are_due_at_their_steps_and_at_the_end():
    settings = tiny(steps=10, save_every=4, preview_every=3)
    assert [step for step in range(11) if "save" in due(settings, step)] == [4, 8, 10]
    assert [step for step in range(11) if "sample" in due(settings, step)] == [3, 6, 9, 10]


def test_a_measurement_takes_no_more_rows_at_once_than_a_step(course):
    """However a batch is cut up; and what it finds is the same."""
    found = {}
    for processes, accumulation in ((1, 1), (1, 2), (2, 2)):
        run, seen = course(batch_size=4, accumulation=accumulation, validation_times=2), []
        run.backbone.listen(lambda t, seen=seen: seen.append(len(t)))
        judge = make_judge(run, run.examples, processes)
        found[processes, accumulation] = judge.losses(judge.held_out, run.backbone)
        assert max(seen) == 4 // processes // accumulation
    first, *others = found.values()
    assert all(torch.allclose(other, first, rtol=1e-6, atol=0) for other in others)


def test_members_are_spread_over_the_training_pictures():
    assert spread(range(12), 4) == [0, 3, 6, 9] and spread([5, 7, 9, 11], 2) == [5, 9]
    assert spread(range(3), 10) == [0, 1, 2] and spread(range(5), 0) == []


def test_members_are_pictures_that_are_learned_at_the_first_resolution():
    """Not those that only keep the base's word on a class."""
    pictures = [SimpleNamespace(prior=prior) for prior in (False, True, False, False)]
    assert taught(SimpleNamespace(count=4, pictures=pictures * 2)) == [0, 2, 3]


# ---------------------------------------------------------------------------------------------- which weights
@pytest.fixture(scope="module")
def start(captioned, tiny_base):
    """`start(folder, **settings)`: a trainer after two steps, whose average lags behind its weights."""
    backbone = Backbone.load(str(tiny_base))

    def assembled(folder, **changes):
        settings = settle(tiny(validation=0.25, accumulation=1, **changes), backbone)
        pictures = gather(captioned, settings)
        accelerator = make_accelerator(settings)
        trainer = assemble(folder, backbone, pictures.train, pictures.held_out, settings, accelerator)
        backbone.denoiser.train()
        for _ in range(2):
            trainer.take_step()
        return trainer

    return assembled


@pytest.fixture
def trainer(start, tmp_path):
    """`trainer(**settings)`; its LoRA layers are taken out again."""
    made = []

    def make(**changes):
        made.append(start(tmp_path / f"{len(made)}", **changes))
        made[-1].folder.mkdir()
        return made[-1]

    yield make
    for each in made:
        each.course.injection.remove()


def far(backbone):
    """How far the weights have gone from the start."""
    return sum(float(p.detach().norm()) for name, p in backbone.denoiser.named_parameters() if ".lora_B." in name)


def judged_by(monkeypatch, rule):
    """Every loss is `rule(judge, measured, backbone)`."""

    def losses(judge, measured, backbone):
        return torch.full_like(measured.base, rule(judge, measured, backbone))

    monkeypatch.setattr(validation.Judge, "losses", losses)


def keeps(trainer, step, values):
    """Whether the snapshot of a step holds these weights, by parameter name."""
    trainer.write_snapshot(900, values)
    return trainer.snapshot_path(step).read_bytes() == trainer.snapshot_path(900).read_bytes()


@pytest.mark.parametrize("better", ["raw", "ema"])
def test_both_are_judged_and_the_better_one_is_kept_and_drawn(trainer, monkeypatch, better):
    """The average lags: where far is good the weights themselves win, where far is bad the average."""
    here = trainer()
    sign = {"raw": -1, "ema": 1}[better]
    seen = []

    def rule(judge, measured, backbone):
        seen.append((measured is judge.members, far(backbone)))
        return 1 + sign * 1e-3 * far(backbone)

    judged_by(monkeypatch, rule)
    drawn, before = [], {name: p.detach().clone() for name, p in here.course.injection.parameters.items()}
    here.watch.preview = lambda step: drawn.append(far(here.course.backbone)) or ["a prompt"]
    monkeypatch.setattr(validation, "due", lambda settings, step: {"measure", "sample"})
    here.watch.look(2)
    measured = here.measurements[-1]
    assert measured.weights == better and measured.loss == measured.judged[better] == min(measured.judged.values())
    assert len(set(measured.judged.values())) == 2
    assert keeps(here, 2, before) == (better == "raw") and keeps(here, 2, here.average.values) == (better == "ema")
    assert (drawn[0] == far(here.course.backbone)) == (better == "raw")
    assert [distance for members, distance in seen if members] == drawn  # the gap is that of the weights that are kept
    now = here.course.injection.parameters
    assert all(torch.equal(value, now[name]) for name, value in before.items())  # training goes on with these
    assert here.watch.weights_of(2) == better
    told = {e["event"]: e for e in events.read(here.folder)}
    assert told["snapshot"]["weights"] == told["validation"]["weights"] == better
    assert told["preview"]["prompts"] == ["a prompt"]


def test_the_usual_weights_of_a_tie_are_kept(trainer, monkeypatch):
    here = trainer()
    judged_by(monkeypatch, lambda *_: 0.5)
    here.watch.look(6)
    assert here.measurements[-1].weights == "ema"


@pytest.mark.parametrize(
    ("changes", "judged"),
    [({"keep": "raw"}, {"raw"}), ({"keep": "ema"}, {"ema"}), ({"ema": 0.0}, {"raw"}), ({}, {"ema", "raw"})],
    ids=["raw", "ema", "no average", "best"],
)
def test_what_may_be_kept_is_judged(trainer, monkeypatch, changes, judged):
    here = trainer(**changes)
    judged_by(monkeypatch, lambda *_: 0.5)
    here.watch.look(6)
    assert set(here.measurements[-1].judged) == judged and here.measurements[-1].weights == here.watch.weights_of(6)


def test_without_a_measurement_the_average_is_kept(trainer, monkeypatch):
    here = trainer()
    monkeypatch.setattr(validation, "due", lambda settings, step: {"save"})
    here.watch.look(2)
    assert keeps(here, 2, here.average.values) and here.watch.weights_of(2) == "ema"


# ---------------------------------------------------------------------------------------------- members, anchors
def test_the_gap_is_to_training_pictures(trainer, monkeypatch):
    """What is lost on them is half of what is lost on held-out ones, relative to the base."""
    here = trainer()
    held_out = here.judge.held_out.pictures
    assert here.judge.members.pictures.x[0].shape == held_out.x[0].shape and len(here.judge.members.pictures.x) == 2
    monkeypatch.setattr(
        validation.Judge, "losses", lambda judge, m, backbone: m.base * (0.8 if m.pictures is held_out else 0.4)
    )
    here.watch.look(6)
    assert here.measurements[-1].gap == pytest.approx(math.log(2)) and here.measurements[-1].ratio == pytest.approx(0.8)


def test_members_are_trained_on_and_held_out_pictures_are_not(trainer):
    here = trainer()
    trained = [here.course.examples.latents(i, False)[0] for i in range(len(here.course.examples))]
    for x in here.judge.members.pictures.x:
        assert any(torch.equal(x, other) for other in trained)
    for x in here.judge.held_out.pictures.x:
        assert not any(torch.equal(x, other) for other in trained)
    assert trainer(validation_members=0).judge.members is None


def test_where_the_base_is_right_its_loss_is_exactly_0(trainer):
    """Anchored above 40 % of noise: bands above have no ratio, and the loss still counts them."""
    here = trainer(anchor_above=0.4, validation_times=4)
    here.watch.look(6)
    curve = here.measurements[-1].curve
    assert len(curve) == 4 and curve[0].log_ratio is not None
    assert all(band.log_ratio is None and band.base == 0 < band.loss for band in curve[2:])
    # also where rounding would leave something: against the pictures nothing is 0
    pictures, backbone, objective = here.judge.held_out.pictures, here.course.backbone, here.judge.objective
    plain = pictures.table(backbone, objective)
    found = validation.measure_base(pictures, backbone, objective, Plain(objective), 0.4).base
    above = pictures.shares(objective) >= 0.4
    assert above.any() and not above.all() and bool((plain > 0).all())
    assert torch.equal(found, plain.where(~above, torch.zeros_like(plain)))


# ---------------------------------------------------------------------------------------------- going on
def test_measuring_changes_nothing_that_is_learned(train, tmp_path, whole):
    """Measured and drawn at every step, as against every third: the resume states hold the same weights."""
    often = train(tmp_path / "run", validate_every=1, preview_every=1, steps=6).folder
    for file in ("adapter.safetensors", "average.safetensors", "optimizer.safetensors"):
        path = Path("checkpoints", "step-000006", file)
        assert (often / path).read_bytes() == (whole.folder / path).read_bytes()


def test_checkpoints_of_an_older_version_are_gone_on_from(cut, train, whole):
    """0.1.0 stored seven numbers a measurement."""
    state = cut / "checkpoints" / "step-000004" / "state.json"
    values = json.loads(state.read_text())
    seven = ("step", "loss", "base", "ratio", "standard_error", "change", "pictures")
    values["measurements"] = [{name: m[name] for name in seven} for m in values["measurements"]]
    files.write_json(state, values)
    manifest = json.loads((state.parent / "manifest.json").read_text())
    files.write_json(state.parent / "manifest.json", {**manifest, "state.json": files.digest(state)})
    result = train(cut, existing="resume")
    assert [(m.step, m.loss) for m in result.measurements] == [(m.step, m.loss) for m in whole.measurements]
    assert result.measurements[-1] == whole.measurements[-1] and result.measurements[1].curve == ()


# ---------------------------------------------------------------------------------------------- how long it takes
@pytest.mark.parametrize("at", ["even", "log"])
@pytest.mark.parametrize("steps", [1, 7, 24, 60])
def test_the_calendar_says_for_the_whole_run_what_is_due_at_each_step(steps, at):
    settings = tiny(steps=steps, save_every=5, preview_every=7, validate_every=6, validate_at=at)
    told = calendar(settings)
    for word in ("save", "sample", "measure"):
        assert told[word] == [step for step in range(1, steps + 1) if word in due(settings, step)]


def test_the_time_left_counts_steps_as_steps_and_measurements_as_measurements():
    """One long measurement before step 1 must not be taken for a step."""
    gauge = Gauge(2, torch.device("cpu"), 100, {"measure": [50, 100], "sample": [100]})
    assert gauge.left(0) is None
    gauge.lasted["measure"] = 30.0
    for _ in range(3):
        gauge.tick(0.5)
    assert gauge.left(3) == pytest.approx(97 * 0.5 + 2 * 30)
    gauge.lasted["sample"] = 8.0
    assert gauge.left(50) == pytest.approx(50 * 0.5 + 30 + 8)
    assert gauge.left(100) == 0


def test_progress_says_the_time_left_of_what_begins_now(monkeypatch, capsys):
    now = iter(range(0, 1000, 50))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.Progress("training", 10, every=0.0) as bar:
        bar.start_at(4)
        bar(5)
        bar(6, note="loss 1", left=7300)
        bar(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training 4/10" and "training 5/10, " in lines[1] and lines[1].endswith(" left")
    assert lines[2] == "training 6/10, loss 1, 2 h 1 min left" and lines[3] == "training 10/10"
