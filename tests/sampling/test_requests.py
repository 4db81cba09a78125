"""Requests: bad values are named, open ones are filled."""

import pytest
from PIL import Image

from adapt.errors import DataError, SettingsError
from adapt.sampling.draw import draw
from adapt.sampling.prompts import read_prompts, requests_of
from adapt.sampling.request import Request, settle

NAN = float("nan")


def _name(setting):
    """The same in every process of xdist: a picture's repr holds its address."""
    return "-".join(
        f"{key}={type(value).__name__ if isinstance(value, Image.Image) else value!r}" for key, value in setting.items()
    )


BAD = [
    {"steps": 0},
    {"steps": -1},
    {"steps": 2.5},
    {"steps": True},
    {"seed": -1},
    {"seed": 2**63},
    {"guidance_scale": 0.5},
    {"guidance_scale": NAN},
    {"guidance_scale": float("inf")},
    {"guidance_scale": "7"},
    {"guidance_rescale": 1.5},
    {"strength": 0.0},
    {"strength": 1.1},
    {"strength": NAN},
    {"height": 0},
    {"width": -64},
    {"scheduler": "eulr"},
    {"prompt": 3},
    {"prompt": "\udcff"},
    {"mask": Image.new("L", (8, 8))},
]


@pytest.mark.parametrize("setting", BAD, ids=_name)
def test_a_bad_value_is_a_settings_error_that_names_it(setting):
    with pytest.raises(SettingsError) as caught:
        Request(**{"prompt": "a", **setting})
    assert next(iter(setting)).split("_")[0] in str(caught.value)


def test_open_settings_come_from_the_adapter_then_the_family(icons):
    drawing = settle(Request(prompt="a"), icons, {"steps": 9})
    assert (drawing.steps, drawing.guidance_scale) == (9, icons.guidance_scale)
    assert (drawing.height, drawing.width) == (icons.resolution, icons.resolution)
    assert settle(Request(prompt="a", steps=4), icons, {"steps": 9}).steps == 4


@pytest.mark.parametrize(("size", "expected"), [((640, 640), (64, 64)), ((1200, 300), (32, 128)), ((20, 40), (88, 48))])
def test_a_picture_gives_its_shape_and_the_backbone_the_number_of_pixels(icons, size, expected):
    drawing = settle(Request(prompt="a", image=Image.new("RGB", size)), icons)
    assert (drawing.height, drawing.width) == expected


@pytest.mark.parametrize(
    "setting", [{"width": 60}, {"height": 100}, {"steps": 1001}, {"scheduler": "flow_euler"}], ids=str
)
def test_what_this_backbone_cannot_draw_is_refused_before_drawing(icons, setting):
    with pytest.raises(SettingsError):
        settle(Request(prompt="a", **setting), icons)


def test_steps_times_strength_below_one_is_refused(tiny, picture):
    drawing = settle(Request(prompt="a", steps=3, strength=0.2, image=picture(16, 16)), tiny("epsilon"))
    with pytest.raises(SettingsError, match=r"less than one step.*--steps 5"):
        draw(tiny("epsilon"), [drawing])


def test_a_mask_without_white_is_refused(tiny, picture):
    black = Image.new("L", (16, 16))
    drawing = settle(Request(prompt="a", steps=3, image=picture(16, 16), mask=black), tiny("epsilon"))
    with pytest.raises(DataError, match="nothing to repaint"):
        draw(tiny("epsilon"), [drawing])


def test_a_batch_size_below_one_is_refused(tiny):
    with pytest.raises(SettingsError, match="batch_size"):
        draw(tiny("epsilon"), [], batch_size=0)


def test_kohyas_options_in_a_prompt_file_are_read(tmp_path):
    file = tmp_path / "prompts.txt"
    text = "# comment\n\na cat --n bad, ugly --s 20 --d 7 --l 3.5 --w 64 --h 96 --ss euler_a\na dash -- here\n"
    file.write_text("\ufeff" + text, "utf-8")
    first, second = requests_of(Request(prompt=""), read_prompts(file))
    assert (first.prompt, first.negative_prompt, first.steps, first.seed) == ("a cat", "bad, ugly", 20, 7)
    assert (first.guidance_scale, first.width, first.height, first.scheduler) == (3.5, 64, 96, "euler_a")
    assert second.prompt == "a dash -- here"


def test_json_lines_have_the_apis_names_and_paths_from_the_files_folder(tmp_path, picture):
    picture(8, 8).save(tmp_path / "a.png")
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a cat", "seed": 5, "count": 2, "image": "a.png", "strength": 0.5, "steps": null}\n')
    requests = requests_of(Request(prompt="", steps=3), read_prompts(file))
    assert [(r.prompt, r.seed, r.strength, r.steps) for r in requests] == [("a cat", 5, 0.5, 3), ("a cat", 6, 0.5, 3)]
    assert requests[0].image is requests[1].image


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a cat --s many", "line 1.*given: many"),
        ("a.txt", b"ok\na cat --q 3", "line 2.*allowed: --n"),
        ("a.txt", b"\n# nothing\n", "no prompt"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.jsonl", b'{"prompt": "a", "step": 3}', "did you mean steps"),
        ("a.jsonl", b'{"prompt": "a"', "line 1 is no JSON"),
        ("a.jsonl", b'["a"]', "no prompt"),
        ("a.jsonl", b'{"prompt": "a", "count": 0}', "count is out of range"),
        ("a.jsonl", b'{"prompt": "a", "steps": "3"}', "steps is out of range"),
        ("a.jsonl", b'{"prompt": "a", "scheduler": 3}', "scheduler is a text"),
        ("a.jsonl", b'{"prompt": "a", "guidance": 7.5}', "guidance is a text or a list of texts"),
    ],
)
def test_a_bad_prompt_file_names_the_line_and_what_is_allowed(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DataError, SettingsError), match=message):
        requests_of(Request(prompt=""), read_prompts(tmp_path / name))


def test_a_missing_prompt_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")
