"""`adapt mask`: the alpha channel, a plain background, rembg's interface; the training then finds what was written."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from adapt.cli.main import main
from adapt.data import find
from adapt.data.folders import Reading
from adapt.data.masks import mask_of


def disc(size=(200, 120), colour=(200, 30, 30), ground=(255, 255, 255), box=(40, 20, 120, 100)):
    picture = Image.new("RGB", size, ground)
    ImageDraw.Draw(picture).ellipse(box, fill=colour)
    return picture


def truth(size=(200, 120), box=(40, 20, 120, 100)):
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return np.asarray(mask) > 127


def overlap(path, right):
    found = np.asarray(Image.open(path)) > 127
    return (found & right).sum() / (found | right).sum()


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


def test_a_plain_background_is_found_whatever_its_colour_and_size(data):
    for number, (ground, scale) in enumerate([((255, 255, 255), 1), ((10, 60, 20), 1), ((240, 240, 245), 8)]):
        size, box = (200 * scale, 120 * scale), tuple(scale * side for side in (40, 20, 120, 100))
        picture = np.asarray(disc(size, ground=ground, box=box), np.int16)
        noise = np.random.default_rng(number).integers(-6, 7, picture.shape)
        Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8)).save(data / f"{number}.png")
    assert main(["mask", str(data), "--by", "background", "--yes"]) == 0
    for number, scale in enumerate((1, 1, 8)):
        right = truth((200 * scale, 120 * scale), tuple(scale * side for side in (40, 20, 120, 100)))
        assert overlap(data / f"{number}-masklabel.png", right) > 0.97


def test_the_background_s_colour_inside_the_subject_stays_subject(data):
    picture = disc()
    ImageDraw.Draw(picture).ellipse((70, 50, 90, 70), fill=(255, 255, 255))
    picture.save(data / "ring.png")
    assert main(["mask", str(data), "--by", "background", "--yes"]) == 0
    assert overlap(data / "ring-masklabel.png", truth()) > 0.97


def test_alpha_and_what_has_none(data, capsys):
    picture = disc().convert("RGBA")
    picture.putalpha(Image.fromarray(truth().astype(np.uint8) * 255))
    picture.save(data / "cut.png")
    disc().save(data / "whole.jpg")
    assert main(["mask", str(data), "--yes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["written"] == 1 and set(told["skipped"]) == {"whole.jpg"}
    assert overlap(data / "cut-masklabel.png", truth()) == 1.0


def test_a_background_that_is_not_plain_is_said_and_skipped(data, capsys):
    Image.effect_noise((64, 64), 90).convert("RGB").save(data / "noise.png")
    assert main(["mask", str(data), "--by", "background", "--yes"]) == 0
    assert "not plain" in capsys.readouterr().err and len(list(data.iterdir())) == 1


def test_nothing_is_written_or_replaced_unasked(data, capsys):
    disc().save(data / "a.png")
    for words in ([], ["--dry-run", "--yes"]):
        assert main(["mask", str(data), "--by", "background", *words]) == 0
    assert len(list(data.iterdir())) == 1
    (data / "a-masklabel.png").write_bytes(b"")
    Image.new("L", (200, 120), 9).save(data / "a-masklabel.png")
    before = (data / "a-masklabel.png").read_bytes()
    assert main(["mask", str(data), "--by", "background", "--yes"]) == 0
    assert (data / "a-masklabel.png").read_bytes() == before
    assert main(["mask", str(data), "--by", "background", "--yes", "--replace"]) == 0
    assert overlap(data / "a-masklabel.png", truth()) > 0.97 and "(replaces)" in capsys.readouterr().out


def test_a_mask_in_a_folder_of_masks_is_replaced_there(data):
    disc().save(data / "a.png")
    (data / "mask").mkdir()
    Image.new("L", (200, 120), 9).save(data / "mask" / "a.png")
    assert main(["mask", str(data), "--by", "background", "--yes", "--replace"]) == 0
    assert overlap(data / "mask" / "a.png", truth()) > 0.97 and not (data / "a-masklabel.png").exists()


@pytest.mark.parametrize(("grow", "sides"), [(3, (37, 17, 123, 103)), (-3, (43, 23, 117, 97))])
def test_grow_moves_the_edge(data, grow, sides):
    disc().save(data / "a.png")
    assert main(["mask", str(data), "--by", "background", "--grow", str(grow), "--yes"]) == 0
    assert Image.open(data / "a-masklabel.png").point(lambda v: 255 * (v > 127)).getbbox() == pytest.approx(
        (sides[0], sides[1], sides[2] + 1, sides[3] + 1), abs=1
    )


def test_feather_softens_it(data):
    disc().save(data / "a.png")
    assert main(["mask", str(data), "--by", "background", "--feather", "3", "--yes"]) == 0
    assert len(set(np.asarray(Image.open(data / "a-masklabel.png")).ravel())) > 20


def test_what_is_written_is_found_by_the_training(data):
    picture = disc()
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side: the mask is of the upright picture
    picture.save(data / "a.jpg", quality=95, exif=exif)
    assert main(["mask", str(data), "--by", "background", "--yes"]) == 0
    (found,) = find(data, Reading(masks="files")).pictures
    mask = mask_of(found, (120, 200))
    assert mask.size == (120, 200) and 0.15 < (np.asarray(mask) > 127).mean() < 0.3


def test_rembg_is_called_as_it_wants_to_be(data, monkeypatch, capsys):
    """Its interface only: it is not installed here, and its models were not tried."""
    monkeypatch.setitem(sys.modules, "rembg", None)
    disc().save(data / "a.png")
    assert main(["mask", str(data), "--by", "rembg", "--yes"]) == 2
    assert "rembg is not installed" in capsys.readouterr().err
    asked = []

    def remove(image, *, session, only_mask):
        asked.append((session, only_mask, image.mode))
        return Image.new("L", image.size, 255)

    fake = SimpleNamespace(new_session=lambda name="u2net": name, remove=remove)
    monkeypatch.setitem(sys.modules, "rembg", fake)
    assert main(["mask", str(data), "--by", "rembg", "--model", "isnet-general-use", "--yes"]) == 0
    assert asked == [("isnet-general-use", True, "RGB")] and "nearly everything" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--by", "magic"], ["--by", "background", "--tolerance", "300"], ["--feather", "-1"]]
)
def test_bad_words(data, words, capsys):
    disc().save(data / "a.png")
    assert main(["mask", str(data), *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
