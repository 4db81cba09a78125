"""Previews from a prompt file: the same syntax as `adapt generate --prompts`, the same noise each time."""

import json

import pytest
from PIL import Image

from adapt.api.previews import requests, rows
from adapt.cli.main import main
from adapt.config import TrainSettings
from adapt.errors import DataError, SettingsError
from adapt.training import events

LINES = """# what is looked at
a fox --d 7 --s 2

a hut --n snow --l 2.5 --d 3 --w 32 --h 16
"""


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(LINES, "utf-8")
    return path


def test_options_of_a_line_go_before_the_settings(prompts):
    fox, hut = requests(TrainSettings(previews=str(prompts), guidance_scale=4.0, sampling_steps=9))
    assert (fox.prompt, fox.seed, fox.steps, fox.guidance_scale, fox.width) == ("a fox", 7, 2, 4.0, None)
    assert (hut.negative_prompt, hut.guidance_scale, hut.steps, hut.seed) == ("snow", 2.5, 9, 3)
    assert (hut.width, hut.height) == (32, 16)


def test_json_lines_hold_counts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a fox", "count": 2, "seed": 5}\n')
    assert [r.seed for r in requests(TrainSettings(previews=str(path)))] == [5, 6]


def test_without_prompts_the_first_four_captions_are_drawn():
    captions = ["a", "b", "a", "c", "d", "e"]
    assert [row["prompt"] for row in rows(TrainSettings(), captions)] == ["a", "b", "c", "d"]
    assert [row["prompt"] for row in rows(TrainSettings())] == [""]
    assert [row["prompt"] for row in rows(TrainSettings(previews=("x",)), captions)] == ["x"]


def test_a_run_draws_the_file_each_time_from_the_same_noise(train, prompts, tmp_path):
    run = train(tmp_path / "run", steps=2, previews=str(prompts), preview_every=1, learning_rate=1e-8).folder
    drawn = [event for event in events.read(run) if event["event"] == "preview"]
    assert [e["prompts"] for e in drawn] == [["a fox", "a hut"]] * 2
    first, second = ([run / "previews" / f"step-00000{step}" / f"0{n}.png" for n in (1, 2)] for step in (1, 2))
    for a, b in zip(first, second, strict=True):
        with Image.open(a) as x, Image.open(b) as y:
            assert x.size == y.size
            assert max(abs(p - q) for p, q in zip(x.tobytes(), y.tobytes(), strict=True)) <= 1  # hardly learned
    with Image.open(first[1]) as wide, Image.open(run / "adapter" / "samples" / "02.png") as sample:
        assert wide.size == sample.size == (32, 16)
    card = (run / "adapter" / "README.md").read_text("utf-8")
    assert "a hut" in card and str(prompts) not in card


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no such prompt file"),
        ("", "holds no prompt"),
        ("a fox --q 3", "unknown setting"),
        ("a fox --s many", "cannot be read"),
    ],
    ids=["missing", "empty", "unknown option", "no number"],
)
def test_what_is_wrong_with_the_file_is_said_before_anything_is_looked_at(
    tmp_path, captioned, tiny_base, capsys, text, told
):
    path = tmp_path / "prompts.txt"
    if text is not None:
        path.write_text(text)
    words = ["train", str(captioned), "--base", str(tiny_base), "--output", str(tmp_path / "run"), f"previews={path}"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err and len(err.splitlines()) == 1 and not (tmp_path / "run").exists()


def test_a_size_that_the_base_cannot_draw_is_refused_before_step_1(train, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a fox --w 33 --h 16")
    with pytest.raises(SettingsError, match="multiples of"):
        train(tmp_path / "run", previews=str(path))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_prompt_without_brackets_is_answered_with_how_prompts_are_written():
    with pytest.raises(DataError, match=r"\[red fox, tulip\]"):
        rows(TrainSettings(previews="a red fox"))
    json.dumps(TrainSettings(previews="p.txt").model_dump(mode="json"))


def test_an_adapter_of_zero_terminal_snr_is_previewed_and_drawn_from_pure_noise(
    train, make_tiny, tmp_path, monkeypatch
):
    """Also by those who load it later: `adapter.json` says it."""
    from adapt import Adapter
    from adapt.sampling import schedulers

    make_tiny("v_prediction").save_pretrained(tmp_path / "base")
    built, build = [], schedulers.build
    monkeypatch.setattr(schedulers, "build", lambda *given: built.append(build(*given)) or built[-1])
    settings = {"steps": 1, "validation": None, "preview_every": 1, "zero_terminal_snr": True}
    run = train(tmp_path / "run", base=tmp_path / "base", **settings).folder
    assert len(built) >= 2 and all(float(s.alphas_cumprod[-1]) < 1e-6 for s in built)
    assert Adapter.load(run).recommended["zero_terminal_snr"] is True
    assert "rescale_betas_zero_snr=True" in (run / "adapter" / "README.md").read_text()
