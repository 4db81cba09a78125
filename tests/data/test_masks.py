"""Masks: found beside their pictures, judged before step 1, cut and resized exactly as the picture is."""

import numpy as np
import pytest
from PIL import Image

from adapt.data import Picture, find, fit, judge
from adapt.data.buckets import crop_box
from adapt.data.decode import alpha_of, decode
from adapt.data.folders import Reading
from adapt.data.masks import mask_names, mask_of
from adapt.errors import DataError

FILES, ALPHA = Reading(masks="files"), Reading(masks="alpha")


def grey(values, mode="L"):
    return Image.fromarray(np.asarray(values, np.uint8)).convert(mode)


@pytest.fixture
def half(encoded):
    """A mask of 24 x 20 pixels whose left half counts."""
    return encoded(grey(np.where(np.arange(24) < 12, 255, 0) * np.ones((20, 1))))


# ------------------------------------------------------------------------------------------------ where they are
def test_masks_are_no_pictures_whatever_is_done_with_them(tmp_path, png, write, half):
    write(tmp_path, **{"cat_png": png(0), "cat-masklabel_png": half, "dog_jpg": png(1), "mask__dog_png": half})
    write(tmp_path, s__a_png=png(2))
    for reading in (Reading(), FILES, ALPHA):
        assert [p.name for p in find(tmp_path, reading).pictures] == ["cat.png", "dog.jpg", "s/a.png"]
    assert [p.mask and p.mask.name for p in find(tmp_path, FILES).pictures] == [
        "cat-masklabel.png",
        "mask/dog.png",
        None,
    ]
    assert (
        "Pictures without a mask beside others that have one, learned whole (1): s/a.png"
        in find(tmp_path, FILES).warnings
    )
    assert "Pictures with masks, which masks=files would use (2): cat.png, dog.jpg" in find(tmp_path).warnings
    assert not [w for reading in (FILES, ALPHA) for w in find(tmp_path, reading).warnings if "would use" in w]
    assert {p.mask for p in find(tmp_path, ALPHA).pictures} == {"alpha"} and {
        p.mask for p in find(tmp_path).pictures
    } == {None}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "a-masklabel.png"], {"a-masklabel.png": "a.png"}),
        (["a.JPG", "a-MASKLABEL.PNG"], {"a-MASKLABEL.PNG": "a.JPG"}),
        (["s/a.png", "s/masks/a.webp"], {"s/masks/a.webp": "s/a.png"}),
        (["s/a.png", "mask/a.png"], {}),
        (["mask/a.png"], {}),
        (["a.png", "mask/a.png", "mask/mask/a.png"], {"mask/a.png": "a.png", "mask/mask/a.png": "mask/a.png"}),
        (["a.png", "masking/a.png"], {}),
        (["a-masklabel.png"], {}),
        (["a.png", "b-masklabel.png", "a-condlabel.png"], {}),
        (["caf\u00e9.png", "cafe\u0301-masklabel.png"], {"cafe\u0301-masklabel.png": "caf\u00e9.png"}),
    ],
)
def test_which_file_is_whose_mask(names, expected):
    assert mask_names(names) == expected


def test_labels_without_a_picture_are_told_and_never_trained(tmp_path, png, write, half):
    write(tmp_path, **{"a_png": png(0), "gone-masklabel_png": half, "a-condlabel_png": half})
    found = find(tmp_path, FILES)
    assert [p.name for p in found.pictures] == ["a.png"]
    assert [w for w in found.warnings if "not used (2): a-condlabel.png, gone-masklabel.png" in w]


def test_masks_alone_are_no_data(tmp_path, write, half):
    with pytest.raises(DataError, match=r"masks, but no pictures.*x-masklabel\.png"):
        find(write(tmp_path, **{"x-masklabel_png": half}))


# ------------------------------------------------------------------------------------------------ what they are
def test_a_mask_lies_on_the_pixels_of_its_picture(encoded):
    """Cut anywhere, resized, mirrored: what is white in the mask is what was marked in the picture."""
    values = np.zeros((60, 90), np.uint8)
    values[20:40, 55:80] = 255
    data = encoded(grey(values, "RGB"))
    picture = Picture("p", None, data, mask=Picture("m", None, encoded(grey(values))))
    image, mask = decode(data), mask_of(picture, (90, 60))
    for width, height, at in ((32, 32, (0.5, 0.5)), (32, 32, (1.0, 0.0)), (40, 24, (0.3, 0.8)), (24, 48, (0.7, 0.5))):
        shown, counted = fit(image, width, height, at), fit(mask, width, height, at)
        assert counted.shape == (height, width) and np.array_equal(shown[..., 0], counted)
        left, top, right, bottom = crop_box((90, 60), (width, height), at)
        assert abs(counted.mean() / 255 - values[int(top) : int(bottom), int(left) : int(right)].mean() / 255) < 0.05


def test_a_mask_of_another_size_but_the_same_shape_is_resized(png, encoded):
    picture = Picture("p", None, png(0), mask=Picture("m", None, encoded(grey([[255, 0]] * 2).resize((48, 40), 0))))
    mask = np.asarray(mask_of(picture, (24, 20)))
    assert mask.shape == (20, 24) and (mask[:, :11] == 255).all() and (mask[:, 13:] == 0).all()


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "LA", "RGBA"])
def test_masks_of_any_mode_count_by_brightness(png, encoded, mode):
    mask = grey(np.where(np.arange(24) < 12, 255, 0) * np.ones((20, 1)), mode)
    shown = np.asarray(mask_of(Picture("p", None, png(0), mask=Picture("m", None, encoded(mask))), (24, 20)))
    assert (shown[:, :12] == 255).all() and (shown[:, 12:] == 0).all()


def test_what_is_transparent_in_a_mask_does_not_count(png, encoded):
    mask = Image.new("RGBA", (24, 20), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 12, 20))
    shown = np.asarray(mask_of(Picture("p", None, png(0), mask=Picture("m", None, encoded(mask))), (24, 20)))
    assert (shown[:, :12] == 255).all() and (shown[:, 12:] == 0).all()


def test_the_alpha_channel_as_mask_is_turned_upright_with_its_picture(encoded):
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(values), exif=exif.tobytes())
    mask = mask_of(Picture("p", None, data, mask="alpha"), (20, 24))
    assert mask.size == decode(data).size == (20, 24)
    assert np.array_equal(np.asarray(mask), np.rot90(values[..., 3], -1))


def test_a_picture_without_alpha_counts_everywhere(png):
    assert alpha_of(png(0)).getextrema() == (255, 255)
    assert mask_of(Picture("p", None, png(0)), (24, 20)) is None


# ------------------------------------------------------------------------------------------------ judged
FAULTS = {
    "black everywhere": lambda encoded: encoded(Image.new("L", (24, 20))),
    "another shape (given: m: 24 x 30 for 24 x 20 pixels)": lambda encoded: encoded(Image.new("L", (24, 30), 255)),
    "a mask that is an empty file": lambda encoded: b"",
    "a mask that is cut off": lambda encoded: encoded(Image.new("L", (24, 20), 255))[:-9],
    "a mask that is a web page": lambda encoded: b"<html>",
}


@pytest.mark.parametrize("words", FAULTS)
def test_masks_that_cannot_be_used_are_faults(png, encoded, words):
    from adapt.data import Found

    mask = Picture("m", None, FAULTS[words](encoded))
    judgement = judge(Found((Picture("p", None, png(0), mask=mask), Picture("q", None, png(1))), (), "pictures"), 16)
    (fault,) = judgement.faults
    assert (fault.name, fault.kind) == ("p", "mask") and words in fault.message
    assert [picture.name for picture in judgement.usable] == ["q"]


def test_a_fully_transparent_picture_has_nothing_to_learn(tmp_path, encoded, write):
    write(tmp_path, a_png=encoded(Image.new("RGBA", (24, 20), (9, 9, 9, 0))))
    (fault,) = judge(find(tmp_path, ALPHA), 16).faults
    assert fault.kind == "mask" and "black everywhere" in fault.message
    assert not judge(find(tmp_path), 16).faults


def test_a_mask_of_nearly_the_same_shape_is_taken(png, encoded):
    for size, taken in (((12, 10), True), ((119, 100), True), ((25, 20), False), ((20, 24), False)):
        mask = Picture("m", None, encoded(Image.new("L", size, 255)))
        if taken:
            assert mask_of(Picture("p", None, png(0), mask=mask), (24, 20)).size == (24, 20)
        else:
            with pytest.raises(DataError, match="another shape"):
                mask_of(Picture("p", None, png(0), mask=mask), (24, 20))
