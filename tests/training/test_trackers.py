"""Trackers: diffusers' names, nothing of this machine, nothing public, and a failure ends no training."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest
from accelerate import tracking
from PIL import Image
from tiny_runs import tiny

from adapt.cli.main import main
from adapt.errors import SettingsError
from adapt.training import trackers
from adapt.training.trackers import Trackers, metrics, public, require


class Fake(tracking.GeneralTracker):
    """Accelerate's own interface; remembers what it is told."""

    name, requires_logging_directory, made = "fake", False, []

    def __init__(self, project, logging_dir=None, **options):
        super().__init__()
        self.project, self.folder, self.options = project, logging_dir, options
        self.logged, self.images, self.config, self.state = [], [], None, "made"
        Fake.made.append(self)

    @property
    def tracker(self):
        return self

    def start(self):
        self.state = "started"

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **more):
        self.logged.append((step, values))

    def log_images(self, values, step=None, **more):
        self.images.append((step, values, more))

    def finish(self):
        self.state = "finished"


class FakeBoard(Fake):
    name, requires_logging_directory = "tensorboard", True


@pytest.fixture
def fakes(monkeypatch):
    """All four trackers are fakes, and their packages seem to be there."""
    Fake.made = []
    for name in trackers.PACKAGES:
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, FakeBoard if name == "tensorboard" else Fake)
        if name != "tensorboard":
            module = types.ModuleType(name)
            module.Image = lambda picture, caption: (caption, picture.size)
            module.pictures = []
            module.log_image = lambda picture, key, step, to=module.pictures: to.append((key, step, picture.size))
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(trackers, "require", lambda names: None)
    return Fake.made


# ---------------------------------------------------------------------------------------------- in a run
def test_a_run_tells_all_four(train, fakes, tmp_path):
    names = ("tensorboard", "wandb", "trackio", "mlflow")
    run = train(tmp_path / "my-run", steps=3, trackers=names, previews=("a fox", "a <b>"), preview_every=2).folder
    board, wandb, trackio, mlflow = fakes
    assert [t.state for t in fakes] == ["finished"] * 4
    assert (board.project, board.folder) == ("my-run", run / "tensorboard")
    assert {t.project for t in (wandb, trackio, mlflow)} == {"adapt"}
    assert trackio.options == {"name": "my-run", "private": True} and wandb.options["name"] == "my-run"
    for each in fakes:
        scalars = {name for _, values in each.logged for name in values}
        assert {"loss", "lr", "validation/loss", "validation/ratio", "validation/gap", "validation/loss_ema"} <= scalars
        assert [step for step, values in each.logged if "loss" in values] == [1, 2, 3]
        assert each.config["rank"] == 2 and each.config["previews"] == "a fox, a <b>"
    assert [(step, sorted(values)) for step, values, _ in board.images] == [
        (2, ["validation"]), (3, ["validation"]), (3, ["test"]),
    ]  # fmt: skip
    _, values, more = board.images[0]
    assert values["validation"].shape == (2, 16, 16, 3) and more == {"dataformats": "NHWC"}
    drawn = [values["validation"] for _, values in wandb.logged if "validation" in values]
    assert [caption for caption, _ in drawn[0]] == ["0: a fox", "1: a <b>"] and len(drawn) == 2
    (final,) = [values["test"] for _, values in trackio.logged if "test" in values]
    assert [caption for caption, _ in final] == ["0: a fox", "1: a <b>"]
    assert sys.modules["mlflow"].pictures[0] == ("validation/0", 2, (16, 16))


def test_a_stopped_run_is_ended_there_too(train, fakes, tmp_path, monkeypatch):
    from adapt.errors import TrainingError
    from adapt.training import loop

    row_losses = loop.row_losses
    monkeypatch.setattr(loop, "row_losses", lambda c, rows: row_losses(c, rows) * float("nan"))
    with pytest.raises(TrainingError):
        train(tmp_path / "run", steps=2, trackers=("wandb",))
    assert fakes[0].state == "finished"


# ---------------------------------------------------------------------------------------------- parts
def test_pictures_of_several_sizes_are_logged_one_by_one(tmp_path):
    place = tmp_path / "previews" / "step-000002"
    place.mkdir(parents=True)
    for number, size in ((1, (8, 8)), (2, (8, 16))):
        Image.new("RGB", size, "red").save(place / f"{number:02d}.png")
    board = FakeBoard("run")
    listener = Trackers(tiny(trackers=("tensorboard",)), tmp_path, lambda *_: board)
    listener("preview", {"step": 2, "prompts": ["a", "b"], "seconds": 1})
    ((_, values, _),) = board.images
    assert {name: x.shape for name, x in values.items()} == {
        "validation/0": (1, 8, 8, 3),
        "validation/1": (1, 16, 8, 3),
    }
    assert np.array_equal(values["validation/0"][0, 0, 0], [255, 0, 0])


def test_a_final_picture_tells_its_prompt_or_class_and_no_training_caption(tmp_path):
    (tmp_path / "samples").mkdir()
    told = [{"prompt": "a fox"}, {"prompt": None}, {"prompt": "", "class": "owl"}, {"prompt": ""}]
    told = [{"file": f"samples/{k:02d}.png", **words} for k, words in enumerate(told, 1)]
    (tmp_path / "adapter.json").write_text(json.dumps({"samples": told}), "utf-8")
    shown = trackers.samples(tmp_path)
    assert [words for _, words in shown] == ["a fox", trackers.UNTOLD, "owl", ""]
    assert shown[0][0] == tmp_path / "samples" / "01.png"


def test_a_tracker_that_fails_is_left_aside_and_the_others_go_on(tmp_path, capsys):
    class Broken(Fake):
        def log(self, values, step=None, **more):
            raise ConnectionError("no\nnetwork")

    made = {"wandb": Broken("x"), "trackio": Fake("x")}
    listener = Trackers(tiny(trackers=("wandb", "trackio")), tmp_path, lambda name, *_: made[name])
    for step in (1, 2):
        listener("step", {"step": step, "loss": 1.0, "learning_rate": 0.1, "seconds": 1.0, "memory_gib": 1.0})
    assert [step for step, _ in made["trackio"].logged] == [1, 2]
    assert capsys.readouterr().err.count("the tracker wandb failed") == 1


def test_events_that_are_no_metrics_are_not_logged():
    assert metrics("checkpoint", {"step": 4}) == {} == metrics("request", {"step": 4, "request": "save"})


def test_what_is_none_is_not_logged():
    values = {"loss": 1.0, "ratio": 0.5, "standard_error": None, "log_ratio": None, "gap": None, "judged": {"raw": 1.0}}
    assert metrics("validation", values) == {
        "validation/loss": 1.0,
        "validation/ratio": 0.5,
        "validation/loss_raw": 1.0,
    }


def test_settings_are_told_without_paths_and_as_plain_values(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox")
    told = public(tiny(validation=str(tmp_path), previews=str(prompts)))
    assert told["validation"] == told["previews"] == "a local path"
    assert str(tmp_path) not in str(told) and told["targets"] == "to_q, to_out.0"
    assert all(isinstance(value, bool | int | float | str) for value in told.values())


# ---------------------------------------------------------------------------------------------- missing packages
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("wandb", "mlflow") else find(name))
    with pytest.raises(SettingsError, match=r"packages are missing .*wandb, mlflow.*pip install wandb mlflow"):
        require(("wandb", "mlflow"))
    require(())


def test_tensorboardx_will_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorboardX" or None)
    require(("tensorboard",))


def test_it_is_named_before_anything_is_looked_at(monkeypatch, captioned, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run = tmp_path / "run"
    assert main(["train", str(captioned), "--output", str(run), "trackers=[trackio]"]) == 2
    assert "pip install trackio" in capsys.readouterr().err and not run.exists()


def test_the_extra_holds_them_all():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(trackers.__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = " ".join(project["optional-dependencies"]["track"])
    assert all(packages[0] in extra for packages in trackers.PACKAGES.values())
