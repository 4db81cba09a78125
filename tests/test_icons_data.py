"""The data that `icons` learns: colours by name, captions that say what is shown, and nothing from held-out sets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

SCRIPTS = Path(__file__).parents[1] / "training_scripts" / "icons"


@pytest.fixture(scope="module")
def scripts():
    """The scripts import each other by their plain names, as when they are run."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import captions
        import colours
        import prepare

        yield type("Scripts", (), {"captions": captions, "colours": colours, "prepare": prepare})
    finally:
        sys.path.remove(str(SCRIPTS))


def disc(fill, spot=None):
    drawing = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    pen = ImageDraw.Draw(drawing)
    pen.ellipse((4, 4, 60, 60), fill=fill)
    if spot:
        pen.ellipse((28, 28, 40, 40), fill=spot)
    return drawing


FILLS = {"red": "#d8362f", "yellow": "#ffd23e", "green": "#4caf50", "blue": "#3b82e0", "purple": "#8f57c9"}


@pytest.mark.parametrize("name", FILLS)
def test_a_flat_drawing_is_called_by_its_colour(scripts, name):
    assert scripts.colours.main_colour(disc(FILLS[name])).name == name


@pytest.mark.parametrize("goal", ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"])
@pytest.mark.parametrize("name", FILLS)
def test_a_recoloured_drawing_has_the_named_colour_and_the_same_shape(scripts, name, goal):
    drawing = disc(FILLS[name], spot="#ffffff")
    painted = scripts.colours.recolour(drawing, scripts.colours.main_colour(drawing), goal)
    assert scripts.colours.main_colour(painted).name == goal
    assert painted.getchannel("A").tobytes() == drawing.getchannel("A").tobytes()
    assert painted.getpixel((34, 34)) == (255, 255, 255, 255), "what is white stays white"


def test_drawings_without_a_main_colour_have_none(scripts):
    assert scripts.colours.main_colour(disc("#888888")) is None
    assert scripts.colours.main_colour(Image.new("RGBA", (8, 8), (0, 0, 0, 0))) is None
    halves = disc("#d8362f")
    ImageDraw.Draw(halves).rectangle((0, 0, 21, 63), fill="#4caf50")
    ImageDraw.Draw(halves).rectangle((42, 0, 63, 63), fill="#3b82e0")
    assert scripts.colours.main_colour(halves) is None


def row(scripts, **changes):
    said = {"set": "noto", "name": "red-apple", "kind": "plain", "colour": "red", "category": "Food & Drink"}
    return scripts.prepare.Row(**{**said, "unseen": False, **changes})


def test_a_recoloured_drawing_is_not_called_by_its_old_colour(scripts):
    assert scripts.captions.words(row(scripts, kind="recoloured", colour="blue")) == "blue apple"
    assert scripts.captions.words(row(scripts, name="orange-book", kind="recoloured", colour="pink")) == "pink book"
    assert scripts.captions.words(row(scripts)) == "red apple"


@pytest.mark.parametrize("kind", ["outlined", "mirrored"])
def test_every_caption_of_another_look_says_so(scripts, kind):
    said = [text for text, _ in scripts.captions.phrasings(row(scripts, kind=kind))]
    assert said and all(kind in text for text in said)
    assert not any(kind in text for text, _ in scripts.captions.phrasings(row(scripts)))


def test_captions_name_at_most_their_own_set(scripts):
    styles = scripts.captions.STYLES
    for name, own in styles.items():
        said = [text for text, _ in scripts.captions.phrasings(row(scripts, set=name))]
        assert any(own in text for text in said) and any("style" not in text for text in said)
        assert not any(other in text for text in said for other in styles.values() if other != own)


def test_lots_depend_on_the_name_alone(scripts):
    names = [f"icon-{i}" for i in range(4000)]
    unseen = [name for name in names if scripts.prepare.unseen(name)]
    assert 0.02 < len(unseen) / len(names) < 0.04
    assert unseen == [name for name in reversed(names) if scripts.prepare.unseen(name)][::-1]


@pytest.mark.parametrize(
    "held_out", ["openmoji", "emojione", "fluent-emoji", "fluent-emoji-high-contrast", "fxemoji", "noto-v1"]
)
def test_held_out_sets_are_refused_as_training_data(held_out, tmp_path):
    words = [sys.executable, "prepare.py", str(tmp_path / "data"), "--packages", f"{held_out}@1.0.0"]
    ran = subprocess.run(words, cwd=SCRIPTS, capture_output=True, text=True)
    assert ran.returncode != 0 and "never trained on" in ran.stderr
    assert not (tmp_path / "data").exists()


def test_the_bundled_weights_learned_from_the_three_sets_and_no_other(scripts):
    """`training_data.json` is written by assemble.py from the pictures that were trained on."""
    bundled = SCRIPTS.parents[1] / "adapt" / "bundled" / "icons"
    said = json.loads((bundled / "training_data.json").read_text("utf-8"))
    packages = [source["package"].removeprefix("@iconify-json/") for source in said["sources"]]
    assert packages == list(scripts.prepare.PACKAGES)
    assert not {package.partition("@")[0] for package in packages} & set(scripts.prepare.FORBIDDEN)
    sets = {name.split()[0] for part in ("denoiser", "autoencoder") for name in said[part]}
    assert sets == {package.partition("@")[0] for package in packages}
    assert all(source["licence"] for source in said["sources"])
