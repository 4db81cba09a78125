"""What goes into a run: sources, triggers, variants of tags, masks, what is held out and what is told."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.api.gather import gather
from adapt.api.previews import captions_of
from adapt.config import TrainSettings
from adapt.errors import DataError

ROOT = Path(__file__).parents[2]


def save(path, seed, size=(24, 20), alpha=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))
    if alpha is not None:
        image.putalpha(alpha)
    image.save(path)


@pytest.fixture
def place(tmp_path):
    """Six pictures of a dog with captions of tags, three prior ones, a list of both."""
    for i in range(6):
        save(tmp_path / "dog" / f"{i}.png", i)
        (tmp_path / "dog" / f"{i}.txt").write_text(f"dog {i}, red, big, old", "utf-8")
    for i in range(3):
        save(tmp_path / "dogs" / f"{i}.png", 10 + i)
        (tmp_path / "dogs" / f"{i}.txt").write_text("a dog", "utf-8")
    sources = [{"path": "dog", "trigger": "zxc", "keep_tags": 1}, {"path": "dogs", "prior": True}]
    (tmp_path / "all.json").write_text(json.dumps({"sources": sources}))
    return tmp_path


def test_a_plain_folder_has_the_digest_that_it_always_had(place):
    """sha256 over the files' digests and captions: a run that began before there were sources can go on."""
    import hashlib

    pictures = sorted((place / "dog").glob("*.png"))
    files = [[hashlib.sha256(p.read_bytes()).hexdigest(), p.with_suffix(".txt").read_text()] for p in pictures]
    expected = hashlib.sha256(json.dumps([6, files]).encode()).hexdigest()[:16]
    assert gather(place / "dog", TrainSettings()).digest() == expected


def test_the_digest_tells_how_often_and_where_pictures_count(place):
    plain = gather(place / "all.json", TrainSettings()).digest()
    seen = {plain, gather(place / "dog", TrainSettings()).digest()}
    for change in ({"repeats": 2}, {"weight": 1}, {"keep_tags": 3}):
        sources = [{"path": "dog", "trigger": "zxc", **({} if "keep_tags" in change else {"keep_tags": 1}), **change},
                   {"path": "dogs", "prior": True, **({"weight": 3} if "weight" in change else {"repeats": 1})}]  # fmt: skip
        (place / "other.json").write_text(json.dumps({"sources": sources}))
        seen.add(gather(place / "other.json", TrainSettings()).digest())
    assert len(seen) == 5
    Image.new("L", (24, 20), 255).save(place / "dog" / "0-masklabel.png")
    masked = gather(place / "all.json", TrainSettings(masks="files")).digest()
    Image.new("L", (24, 20), 128).save(place / "dog" / "0-masklabel.png")
    assert len({plain, masked, gather(place / "all.json", TrainSettings(masks="files")).digest()}) == 3


def test_each_source_has_its_trigger_and_prior_pictures_have_none(place):
    train = gather(place / "all.json", TrainSettings(trigger="other")).train
    assert [p.captions for p in train if p.prior] == [("a dog",)] * 3
    assert [p.captions for p in train if not p.prior] == [(f"zxc, dog {i}, red, big, old",) for i in range(6)]


def test_a_trigger_inside_a_longer_word_is_no_trigger(place):
    (place / "dog" / "0.txt").write_text("a zxcs dog")
    (place / "dog" / "1.txt").write_text("a zxc dog")
    texts = [p.captions[0] for p in gather(place / "dog", TrainSettings(trigger="zxc")).train]
    assert texts[:2] == ["zxc, a zxcs dog", "a zxc dog"]


def test_tags_move_behind_what_their_source_keeps(place):
    settings = TrainSettings(shuffle_tags=True, tag_variants=6, keep_tags=0, seed=3)
    train = gather(place / "all.json", settings).train
    texts = train[0].texts
    assert len(texts) == 6 and len(set(texts)) > 2
    assert all(text.startswith("zxc, dog 0, ") for text in texts)
    assert texts == gather(place / "all.json", settings).train[0].texts
    assert texts != gather(place / "all.json", settings.model_copy(update={"seed": 4})).train[0].texts
    plain = gather(place / "dog", settings).train[0].texts
    assert not all(text.startswith("dog 0") for text in plain)


def test_held_out_pictures_keep_their_captions_and_are_never_prior(place):
    for seed in range(8):
        settings = TrainSettings(shuffle_tags=True, validation=0.4, seed=seed)
        pictures = gather(place / "all.json", settings)
        assert len(pictures.held_out) == 2 and not any(p.prior or p.tags for p in pictures.held_out)
        assert sum(p.prior for p in pictures.train) == 3
    (place / "other.json").write_text((place / "all.json").read_text())
    aside = gather(place / "dog", TrainSettings(validation=str(place / "other.json"))).held_out
    assert len(aside) == 6 and all(text.startswith("zxc, ") for p in aside for text in p.texts)


def test_a_validation_folder_shares_no_picture_with_training_unsaid(place):
    """The same one, and one that was only brightened: both would make the held-out loss lie."""
    aside = place / "aside"
    save(aside / "same.png", 2)
    save(aside / "new.png", 99)
    with Image.open(place / "dog" / "4.png") as picture:
        picture.point(lambda value: min(255, value + 6)).save(aside / "brighter.png")
    told = "\n".join(gather(place / "dog", TrainSettings(validation=str(aside))).warnings)
    assert "Held-out pictures that are trained on as well (1): same.png" in told
    assert "look almost like some that are trained on (1): brighter.png (like 4.png)" in told
    (aside / "same.png").unlink()
    (aside / "brighter.png").unlink()
    assert not [w for w in gather(place / "dog", TrainSettings(validation=str(aside))).warnings if "Held-out" in w]


def test_marks_in_captions_are_seen_by_no_one(place):
    """Neither the encoder, nor who measures, nor who draws previews meets the fence."""
    for i in range(6):
        (place / "dog" / f"{i}.txt").write_text(f"dog {i} ||| red, big ||| photo")
    settings = TrainSettings(shuffle_tags=True, keep_tags_separator="|||", validation=0.4, trigger="zxc")
    pictures = gather(place / "all.json", settings)
    assert [p.captions[0].split(", ", 2)[2] for p in pictures.held_out] == ["red, big, photo"] * 2
    assert all(
        t.startswith("zxc, dog ") and t.endswith(", photo") for p in pictures.train if not p.prior for t in p.texts
    )
    shown = captions_of(pictures.train)
    assert len(shown) == 4 and all("|" not in text and text.endswith("red, big, photo") for text in shown)


def test_captions_without_tags_are_told_when_tags_are_shuffled(place):
    told = [w for w in gather(place / "all.json", TrainSettings(shuffle_tags=True)).warnings if "to shuffle" in w]
    assert told == ["Captions without two tags to shuffle (3): dogs/0.png, dogs/1.png, dogs/2.png"]
    assert not [w for w in gather(place / "all.json", TrainSettings()).warnings if "to shuffle" in w]


def test_pictures_whose_captions_name_a_side_are_told_when_pictures_are_mirrored(place):
    (place / "dog" / "3.txt").write_text("a dog looking left")
    told = [w for w in gather(place / "dog", TrainSettings(flip=0.5)).warnings if "mirrored" in w]
    assert told == ["Pictures that are never mirrored, because a caption says left or right (1): 3.png"]
    assert not [w for w in gather(place / "dog", TrainSettings()).warnings if "mirrored" in w]


def test_masks_that_are_asked_for_have_to_be_somewhere(place):
    for masks, words in (("files", "There are no masks"), ("alpha", "No picture is transparent anywhere")):
        with pytest.raises(DataError, match=words):
            gather(place / "dog", TrainSettings(masks=masks))
    save(place / "dog" / "0.png", 0, alpha=Image.linear_gradient("L").resize((24, 20)))
    assert gather(place / "dog", TrainSettings(masks="alpha")).train[0].mask == "alpha"
    Image.new("L", (24, 20), 200).save(place / "dog" / "1-masklabel.png")
    assert [bool(p.mask) for p in gather(place / "dog", TrainSettings(masks="files")).train] == [False, True] + [
        False
    ] * 4


def test_a_bad_mask_stops_the_run_before_it_begins(place):
    Image.new("L", (24, 20), 0).save(place / "dog" / "1-masklabel.png")
    with pytest.raises(DataError, match=r"1 of 6 pictures cannot be used.*1\.png has a mask that is black everywhere"):
        gather(place / "dog", TrainSettings(masks="files"))


def test_sizes_are_judged_by_the_base_where_nothing_is_said(place, tiny_base):
    save(place / "dog" / "0.png", 0, size=(200, 20))
    assert not [w for w in gather(place / "dog", TrainSettings()).warnings if "enlarged" in w]
    assert not [w for w in gather(place / "dog", TrainSettings(), str(tiny_base)).warnings if "enlarged" in w]  # 16 px
    told = gather(place / "dog", TrainSettings(), "icons").warnings
    assert [w for w in told if w.startswith("6 pictures, enlarged")]
    assert [
        w for w in gather(place / "dog", TrainSettings(resolution=32), str(tiny_base)).warnings if "enlarged to 32" in w
    ]


def test_crops_are_judged_by_the_buckets_that_are_used(place, tiny_base):
    for i in range(6):
        save(place / "dog" / f"{i}.png", i, size=(32, 16))
    cut = [w for w in gather(place / "dog", TrainSettings(), str(tiny_base)).warnings if "loses" in w]
    assert "loses 50% to the square centre crop" in cut[0] and "buckets=true" in cut[0]
    assert not [w for w in gather(place / "dog", TrainSettings(buckets=True), str(tiny_base)).warnings if "loses" in w]


def test_gathering_imports_no_torch(place):
    code = (
        "import sys; from adapt.api.gather import gather; from adapt.config import TrainSettings\n"
        f"settings = TrainSettings(shuffle_tags=True, flip=0.5, validation=0.4, buckets=True)\n"
        f"gather({str(place / 'all.json')!r}, settings, 'icons'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stdout + done.stderr
