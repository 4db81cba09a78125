"""`memory=fit`: memory is counted right, measures lower it, and the fastest set that fits is taken and said."""

import numpy as np
import pytest
import torch
from PIL import Image

import adapt
from adapt.api import fit
from adapt.api.fit import Trial, fitted
from adapt.api.gather import gather
from adapt.api.machine import make_accelerator
from adapt.api.memory import GIB, Counted, peak_of
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.config import TrainSettings, validate
from adapt.errors import SettingsError
from adapt.training import folder

MIB = 2**20
SMALL = {
    "batch_size": 8,
    "rank": 2,
    "steps": 2,
    "sampling_steps": 1,
    "previews": ("a",),
    "targets": ("to_q",),
    "seed": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trials(data, tiny_base):
    """What each measure takes on the tiny base: nothing fits into nothing, so all are tried."""
    settings = TrainSettings(**SMALL, memory="fit", memory_limit=1e-9)
    told = []
    original = fit._trials
    fit._trials = lambda *given: told.append(original(*given)) or told[-1]
    try:
        with pytest.raises(SettingsError, match="no set of measures makes this run fit"):
            fitted(str(tiny_base), settings, gather(data, settings), make_accelerator(settings))
    finally:
        fit._trials = original
    return [trial for found in told for trial in found]


# ---------------------------------------------------------------------------------------------- counting
def test_the_most_that_is_held_at_once_is_counted_to_the_byte():
    def work():
        a = torch.zeros(MIB // 4)  # 1 MiB
        b = a + 1  # 2
        del a  # 1
        c = torch.cat([b, b])  # 3
        del b, c
        torch.zeros(MIB // 2)  # 2

    assert peak_of(work, [], torch.device("cpu")) * GIB == 3 * MIB
    layer = torch.nn.Linear(512, 512, bias=False)  # 1 MiB, there before
    assert peak_of(lambda: torch.zeros(4), [layer], torch.device("cpu")) * GIB == MIB + 16


def test_what_is_kept_for_the_way_back_counts_and_views_do_not():
    x = torch.zeros(MIB // 4, requires_grad=True)
    with Counted() as counted:
        y = x
        for _ in range(3):
            y = y.sin()  # each keeps its input
        assert counted.now == 3 * MIB  # x was there before, and is not known
        y.view(2, -1)[0].sum().backward()
    assert counted.peak > 4 * MIB


def test_measures_take_less_memory_each(trials):
    by = {tuple(sorted(trial.changes.items())): trial.gib for trial in trials}
    assert by[()] > by[(("accumulation", 2),)] > by[(("accumulation", 8),)]
    assert by[()] > by[(("gradient_checkpointing", True),)]
    assert by[()] > by[(("base_precision", "bf16"),)]
    assert [trial.changes.get("accumulation", 1) for trial in trials[:4]] == [1, 2, 4, 8]
    assert len(trials) == 16 and all(trial.seconds > 0 for trial in trials)


def needed(data, tiny_base, **changes):
    """GiB of the tries as it is set and computed again, which fit into nothing."""
    settings = TrainSettings(**{**SMALL, "batch_size": 1, **changes}, memory="fit", memory_limit=1e-9)
    found, accelerator = gather(data, settings), make_accelerator(settings)
    plain, again = fit._trials(str(tiny_base), settings, {}, found, accelerator, 1e-9)
    return plain.gib, again.gib


def test_a_control_net_is_counted_with_its_gradients_and_moments(data, tiny_base):
    layer, plain = needed(data, tiny_base, control="edges")
    whole, again = needed(data, tiny_base, control="edges", control_as="controlnet")
    net = adapt.ControlNet.new(Backbone.load(str(tiny_base)), "edges", 0)
    own = 4 * sum(p.numel() for p in net.learned.values()) / GIB
    assert whole - layer > 3.8 * own, "weights, gradients, and two moments of each; what layers keep is gone by then"
    assert again < whole and plain < layer


# ---------------------------------------------------------------------------------------------- choosing
def limit_for(trials, name, value):
    """GiB into which what is set does not fit, and this measure does."""
    one = next(t.gib for t in trials if t.changes == {name: value})
    return (one + trials[0].gib) / 2


def test_nothing_is_changed_where_it_fits(data, tiny_base, trials, capsys):
    settings = TrainSettings(**SMALL, memory="fit", memory_limit=2 * trials[0].gib)
    found = fitted(str(tiny_base), settings, gather(data, settings), make_accelerator(settings))
    assert found == settings.model_copy(update={"memory": "as_set", "base_precision": "fp32"})
    assert "with no measure" in capsys.readouterr().err


def test_the_fastest_of_what_fits_is_taken(monkeypatch, data, tiny_base, capsys):
    slow = [
        Trial({}, 9.0, 1.0),
        Trial({"accumulation": 2}, 5.0, 3.0),
        Trial({"gradient_checkpointing": True}, 4.0, 2.0),
    ]
    monkeypatch.setattr(fit, "_trials", lambda *given: slow)
    settings = TrainSettings(**SMALL, memory="fit", memory_limit=5.5)
    found = fitted(str(tiny_base), settings, gather(data, settings), make_accelerator(settings))
    assert (found.gradient_checkpointing, found.accumulation, found.memory) == (True, 1, "as_set")
    assert "4 of 5.5 GiB with gradient_checkpointing=true; as set it would take 9" in capsys.readouterr().err


def test_a_run_takes_what_fits_and_goes_on_with_it(data, tiny_base, trials, tmp_path, capsys):
    limit = limit_for(trials, "accumulation", 2)
    settings = TrainSettings(**SMALL, memory="fit", memory_limit=limit)
    result = adapt.train(data, output=tmp_path / "run", base=str(tiny_base), settings=settings)
    stored = folder.read(tmp_path / "run")["settings"]
    assert stored["memory"] == "as_set" and (stored["accumulation"] > 1 or stored["gradient_checkpointing"])
    err = capsys.readouterr().err
    assert err.index("memory=fit:") < err.index("training") and result.proof.effect > 0
    again = settings.model_copy(update={"steps": 3})
    assert adapt.train(
        data, output=tmp_path / "run", base=str(tiny_base), settings=again, existing="resume", allow=["steps"]
    )
    measures = ("accumulation", "gradient_checkpointing")
    assert {n: folder.read(tmp_path / "run")["settings"][n] for n in measures} == {n: stored[n] for n in measures}


def test_the_dry_run_says_it_too(data, tiny_base, trials, capsys):
    words = [
        str(data),
        "--base",
        str(tiny_base),
        "--dry-run",
        "memory=fit",
        f"memory_limit={limit_for(trials, 'accumulation', 2)}",
    ]
    assert main(["train", *words, "batch_size=8", "rank=2", "targets=[to_q]"]) == 0
    assert "memory=fit:" in capsys.readouterr().err


def test_a_limit_is_of_fit():
    with pytest.raises(SettingsError, match="memory_limit"):
        validate({"memory_limit": 8})
