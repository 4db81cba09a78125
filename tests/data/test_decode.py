"""What a viewer shows is what is trained, to the last bit; damaged files are faults, never crashes."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from adapt.data import decode, fit, pixels
from adapt.data.decode import examine
from adapt.errors import DataError, SettingsError


def array(image):
    return np.asarray(image)


def over(colour, alpha, background):
    """Alpha composition, rounded: integers in [0, 255]."""
    colour, alpha, background = (np.asarray(x, dtype=np.int64) for x in (colour, alpha, background))
    return ((colour * alpha + background * (255 - alpha) + 127) // 255).astype(np.uint8)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_their_own_pixels(noise, encoded, kind, options):
    image = noise()
    assert np.array_equal(array(decode(encoded(image, kind, **options))), array(image))


def test_jpeg_gives_what_pillow_gives(noise, encoded):
    data = encoded(noise(), "JPEG")
    assert np.array_equal(array(decode(data)), array(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(("background", "rgb"), [("white", (255, 255, 255)), ("#204060", (32, 64, 96))])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_composed_on_the_background(encoded, kind, background, rgb):
    values = np.random.default_rng(1).integers(0, 256, (16, 17, 4), dtype=np.uint8)
    data = encoded(Image.fromarray(values), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    seen = examine(data, background)
    assert seen.transparent
    assert np.array_equal(array(seen.image), over(values[..., :3], values[..., 3:], rgb))


def test_an_opaque_alpha_channel_is_not_called_transparent(noise, encoded):
    assert not examine(encoded(noise().convert("RGBA"))).transparent


def test_grey_with_alpha(encoded):
    values = np.random.default_rng(2).integers(0, 256, (16, 16, 2), dtype=np.uint8)
    expected = np.repeat(over(values[..., :1], values[..., 1:], 255), 3, axis=2)
    assert np.array_equal(array(decode(encoded(Image.fromarray(values, "LA")))), expected)


def test_a_background_that_is_no_colour_is_a_setting_error(png):
    with pytest.raises(SettingsError, match="no-such-colour"):
        decode(png(), "no-such-colour")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(encoded, kind, orientation):
    """EXIF 2.32, table 4.6.4 A: where the stored rows and columns belong."""
    stored = np.kron(np.random.default_rng(3).integers(0, 2, (3, 4)), np.ones((8, 8))).astype(np.uint8) * 255
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    shown = array(decode(encoded(Image.fromarray(stored), kind, exif=exif.tobytes(), **options)))[..., 0]
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).max() <= (8 if kind == "JPEG" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_no_reason_to_refuse(noise, encoded):
    data = encoded(noise(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert np.array_equal(array(decode(data)), array(noise()))


def test_grey_of_16_bits_is_scaled_not_clipped(encoded):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    shown = array(decode(encoded(Image.fromarray(values))))
    assert np.array_equal(shown[..., 0], np.floor(values / 257 + 0.5).astype(np.uint8))
    assert np.array_equal(shown[..., 0], shown[..., 1]) and np.array_equal(shown[..., 0], shown[..., 2])
    assert len(np.unique(shown)) == 256


def test_grey_of_16_bits_with_orientation_and_a_clear_value():
    values = np.arange(16 * 17, dtype=np.uint16).reshape(16, 17) * 200
    data = _png(17, 16, 16, 0, values.astype(">u2").tobytes(), [(b"tRNS", struct.pack(">H", 0)), _orientation(3)])
    expected = np.floor(values / 257 + 0.5).astype(np.uint8)
    expected[0, 0] = 255
    seen = examine(data)
    assert seen.transparent
    assert np.array_equal(array(seen.image)[..., 0], expected[::-1, ::-1])


def test_colour_of_16_bits_keeps_its_high_bytes():
    values = np.random.default_rng(4).integers(0, 65536, (16, 16, 3))
    shown = array(decode(_png(16, 16, 16, 2, values.astype(">u2").tobytes())))
    assert np.abs(shown - values / 257).max() < 1


def _orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")


def _png(width, height, depth, colour, rows, chunks=()):
    """A PNG by hand (ISO/IEC 15948), for kinds that Pillow does not write."""
    stride = len(rows) // height
    filtered = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def test_palette(noise, encoded):
    image = noise().quantize(16)
    assert np.array_equal(array(decode(encoded(image))), array(image.convert("RGB")))


def test_palette_with_one_clear_entry_and_with_alpha_for_each(noise, encoded):
    image = noise().quantize(4)
    index, colours = array(image), array(image.convert("RGB"))
    clear = array(decode(encoded(image, transparency=2)))
    assert np.array_equal(clear, np.where((index == 2)[..., None], 255, colours))
    alphas = np.array([0, 100, 200, 255], dtype=np.uint8)
    graded = array(decode(encoded(image, transparency=alphas.tobytes()), "black"))
    assert np.array_equal(graded, over(colours, alphas[index][..., None], 0))


def test_a_clear_colour_of_rgb(encoded):
    image = Image.new("RGB", (16, 16), (1, 2, 3))
    image.putpixel((5, 6), (9, 9, 9))
    shown = array(decode(encoded(image, transparency=(1, 2, 3))))
    assert tuple(shown[6, 5]) == (9, 9, 9) and (shown[0] == 255).all()


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_bilevel(noise, encoded, mode):
    image = noise().convert(mode)
    assert np.array_equal(array(decode(encoded(image))), array(image.convert("RGB")))


def test_cmyk_without_a_profile(noise, encoded):
    data = encoded(noise().convert("CMYK"), "JPEG", quality=100)
    stored = array(Image.open(io.BytesIO(data))).astype(int)
    ideal = (255 - stored[..., :3]) * (255 - stored[..., 3:]) / 255
    assert np.abs(array(decode(data)) - ideal).max() <= 1


def test_an_embedded_profile_is_converted_to_srgb(noise, encoded):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image = noise()
    assert np.array_equal(array(decode(encoded(image, icc_profile=srgb.tobytes()))), array(image))
    # A profile for another kind of pixels (here Lab on RGB) or damaged: ignored, as viewers do.
    assert np.array_equal(array(decode(encoded(image, icc_profile=lab.tobytes()))), array(image))
    assert np.array_equal(array(decode(encoded(image, icc_profile=b"no profile at all"))), array(image))


def test_a_profile_with_swapped_primaries_swaps_the_colours(encoded):
    """The sRGB profile with its red and blue columns exchanged, under another name: red must come out as blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")
    shown = array(decode(encoded(Image.new("RGB", (16, 16), (250, 10, 20)), icc_profile=swapped)))[0, 0].astype(int)
    assert np.abs(shown - (20, 10, 250)).max() <= 2
    clear = Image.new("RGBA", (16, 16), (250, 10, 20, 0))
    clear.putpixel((0, 0), (250, 10, 20, 255))
    both = array(decode(encoded(clear, icc_profile=swapped)))
    assert np.abs(both[0, 0].astype(int) - (20, 10, 250)).max() <= 2 and (both[1] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(noise, encoded, kind):
    frames = [noise(seed) for seed in range(3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    seen = examine(data)
    assert seen.animated and not examine(encoded(frames[0], kind, lossless=True)).animated
    assert np.array_equal(array(seen.image), array(frames[0]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_cut_file_is_named_as_such_at_every_length(noise, encoded, kind):
    data = encoded(noise(width=16, height=17), kind)
    for length in range(len(data)):
        with pytest.raises(DataError, match=r"cut off|damaged|empty|no picture"):
            decode(data[:length])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_damaged_bytes_give_a_picture_or_a_data_error(noise, encoded, kind):
    data, rng = encoded(noise(width=16, height=17), kind), np.random.default_rng(5)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(400):
            damaged = bytearray(data)
            for position in rng.integers(0, len(data), rng.integers(1, 4)):
                damaged[position] = rng.integers(0, 256)
            try:
                assert decode(bytes(damaged)).mode == "RGB"
            except DataError:
                refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\0\0\0\x1cftypheic" + bytes(64), "HEIC"),
        (b"hello", "no picture that can be read"),
        (bytes(500), "no picture that can be read"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(data, words):
    with pytest.raises(DataError, match=words):
        decode(data)


def test_formats_outside_the_list_are_refused(noise, encoded):
    for kind, word in (("GIF", "a GIF"), ("TIFF", "a TIFF"), ("PPM", "no picture"), ("ICO", "no picture")):
        with pytest.raises(DataError, match=rf"{word}.*PNG, JPEG, WEBP, BMP"):
            decode(encoded(noise(), kind))
    floating = Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20))
    with pytest.raises(DataError, match="a TIFF"):
        decode(encoded(floating, "TIFF"))


@pytest.mark.parametrize("side", [8001, 10_000, 40_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header(side):
    """Refused before any pixel is decoded: the few bytes here hold none."""
    with pytest.raises(DataError, match=r"too many pixels.*up to 64 million"):
        decode(_header_only(side))


def _header_only(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


# ------------------------------------------------------------------------------------------------ fit, pixels
def test_fit_keeps_the_pixels_of_a_picture_that_fits(noise):
    image = noise(width=24, height=20)
    assert np.array_equal(fit(image, 24, 20), array(image))


@pytest.mark.parametrize(("width", "height"), [(40, 16), (16, 40), (32, 32), (7, 9), (100, 50)])
def test_fit_covers_and_crops_the_centre(width, height):
    """A linear ramp stays a ramp around its centre under scaling by the factor that just covers."""
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))  # 60 x 40
    shown = fit(Image.fromarray(ramp).convert("RGB"), width, height)
    assert shown.shape == (height, width, 3) and shown.dtype == np.uint8
    step = 4 * min(60 / width, 40 / height)
    expected = 118 + (np.arange(width) - (width - 1) / 2) * step
    inner = slice(width // 4, -(width // 4))
    assert np.abs(shown[height // 2, inner, 0] - expected[inner]).max() <= 2


def test_fit_commutes_with_turning_the_picture(noise):
    image = noise(width=50, height=30)
    turned = fit(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 16, 16)
    assert np.array_equal(turned, fit(image, 16, 16)[:, ::-1])


def test_pixels_span_minus_one_to_one():
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    x = pixels(values)
    assert x.shape == (3, 16, 16) and x.dtype.is_floating_point and x.itemsize == 4
    assert x.min() == -1 and x.max() == 1
    assert np.allclose(x.numpy(), values.transpose(2, 0, 1) / 127.5 - 1, atol=1e-7)
