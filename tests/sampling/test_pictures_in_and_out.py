"""Pictures in and out: read as a person sees them, written whole, and saying how they were drawn."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from adapt.errors import DataError
from adapt.sampling.pictures import load_image, load_mask
from adapt.sampling.pixels import to_hole, to_pictures, to_pixels
from adapt.sampling.png import Parameters, Used, describe, png_bytes, read_parameters, save_beside, save_png
from adapt.sampling.request import Request, settle


def test_pixels_and_pictures_are_each_others_reverse(picture):
    original = picture(16, 24)
    pixels = to_pixels(original, 16, 24)
    assert pixels.shape == (1, 3, 16, 24)
    assert pixels.min() >= -1 and pixels.max() <= 1
    assert to_pictures(pixels)[0].tobytes() == original.tobytes()


def test_values_outside_the_range_are_cut_off():
    assert np.asarray(to_pictures(torch.full((1, 3, 1, 1), 9.0))[0]).max() == 255
    assert np.asarray(to_pictures(torch.full((1, 3, 1, 1), -9.0))[0]).min() == 0


def test_orientation_transparency_and_16_bit_are_seen_as_a_viewer_shows_them(tmp_path):
    turned = Image.new("RGB", (4, 2))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").size == (2, 4)
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    assert load_mask(tmp_path / "clear.png").getpixel((0, 0)) == 0
    Image.fromarray(np.full((2, 2), 32768, np.uint16)).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)
    Image.new("P", (2, 2)).save(tmp_path / "palette.gif")
    Image.new("CMYK", (2, 2)).save(tmp_path / "cmyk.jpg")
    assert {load_image(tmp_path / n).mode for n in ("palette.gif", "cmyk.jpg")} == {"RGB"}


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut"])
def test_an_unreadable_picture_is_a_data_error_that_names_the_file(tmp_path, picture, damage):
    path = tmp_path / "a.png"
    picture(64, 64).save(path)
    whole = path.read_bytes()
    contents = {"missing": None, "empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2]}
    path.unlink() if contents[damage] is None else path.write_bytes(contents[damage])
    for load in (load_image, load_mask):
        with pytest.raises(DataError, match=r"a\.png"):
            load(path)


def test_a_mask_becomes_zeros_and_ones_at_latent_size(mask):
    hole = to_hole(mask(16, 32), 16, 32, (2, 4))
    assert hole.tolist() == [[[[0, 0, 1, 1], [0, 0, 1, 1]]]]


def test_greys_of_a_mask_are_rounded_as_diffusers_rounds_them():
    greys = Image.fromarray(np.array([[0, 127, 128, 255]] * 4, np.uint8))
    processor = VaeImageProcessor(vae_scale_factor=1, do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    assert torch.equal(to_hole(greys, 4, 4, (4, 4)), processor.preprocess(greys, height=4, width=4))
    assert to_hole(greys, 4, 4, (4, 4))[0, 0, 0].tolist() == [0, 0, 1, 1]


TEXTS = [
    Parameters("a cat", "", {"Steps": "20", "Sampler": "Euler a", "Seed": "7"}),
    Parameters(
        'a "cat", of: two\nlines, naïve 猫', "ugly\nbad: worse", {"Steps": "1", "Lora hashes": "a b: 12, c: 34"}
    ),
    Parameters("", "", {"Steps": "3", "Model": 'odd, "name"'}),
]


@pytest.mark.parametrize("parameters", TEXTS)
def test_the_text_chunk_comes_back_as_it_was(tmp_path, picture, parameters):
    save_png(tmp_path / "a.png", picture(8, 8), parameters)
    assert read_parameters(tmp_path / "a.png") == parameters


def test_what_a1111_wrote_is_read():
    text = (
        "a cat\nNegative prompt: bad\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 9, Size: 512x768, "
        'Model hash: abc, Model: v1-5, Lora hashes: "x: 1, y: 2", Version: v1.6.0'
    )
    parameters = Parameters.from_text(text)
    assert (parameters.prompt, parameters.negative_prompt) == ("a cat", "bad")
    assert parameters.settings["Sampler"] == "DPM++ 2M Karras"
    assert parameters.settings["Lora hashes"] == "x: 1, y: 2"
    assert parameters.settings["Version"] == "v1.6.0"


def test_a_drawing_is_described_in_a1111s_words(icons):
    drawing = settle(Request(prompt="a cat", negative_prompt="bad", seed=7, steps=4, guidance_scale=3), icons)
    text = describe(drawing, model="icons", sampler="DDIM", adapters=[Used("style", "0123456789", 0.8)]).as_text()
    assert text == (
        "a cat\nNegative prompt: bad\nSteps: 4, Sampler: DDIM, CFG scale: 3, Seed: 7, Size: 64x64, Model: icons, "
        'Lora hashes: "style: 0123456789", Lora scales: "style: 0.8"'
    )


def test_without_parameters_nothing_is_said(tmp_path, picture):
    save_png(tmp_path / "a.png", picture(8, 8))
    assert read_parameters(tmp_path / "a.png") is None
    assert Image.open(tmp_path / "a.png").info == {}


def test_equal_pictures_are_equal_bytes_and_other_bytes_are_never_overwritten(tmp_path, picture):
    path = tmp_path / "a.png"
    first, second = png_bytes(picture(8, 8)), png_bytes(picture(8, 8), TEXTS[0])
    assert first == png_bytes(picture(8, 8))
    assert [save_beside(path, first).name, save_beside(path, first).name] == ["a.png", "a.png"]
    assert [save_beside(path, second).name, save_beside(path, second).name] == ["a-2.png", "a-2.png"]
    assert path.read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-2.png", "a.png"]
