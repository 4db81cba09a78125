"""Every kind of picture file that lies in real folders: right pixels, or a fault that is named before step 1; never a crash.

One folder holds one kind beside a plain picture. It is found, judged and, where it is accepted, decoded and compared with
pixels that are computed here from what was put into the file.
"""

import io
import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from adapt.data import decode, find, judge

W, H = 24, 20
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
SMOOTH = np.stack(np.meshgrid(np.linspace(40, 200, W), np.linspace(60, 180, H)), -1).mean(-1)[..., None].repeat(3, 2)
SMOOTH = SMOOTH.astype(np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (H, W, 1), dtype=np.uint8)
GREY = RGB[..., :1]


def encoded(values, kind="PNG", mode=None, **options):
    image = values if isinstance(values, Image.Image) else Image.fromarray(values.squeeze())
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def chunks(*parts):
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def png(width, height, depth, colour, rows, *more, interlace=0):
    """A PNG by hand (ISO/IEC 15948), for kinds that Pillow does not write: `rows` are bytes of unfiltered rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return chunks((b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b""))


def packed(values, depth):
    """Rows of (H, W) small numbers, several a byte, the first in the high bits."""
    per = 8 // depth
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % per))).reshape(len(values), -1, per)
    return [bytes((row << (depth * np.arange(per)[::-1])).sum(1).astype(np.uint8)) for row in padded]


def adam7(values):
    """The seven passes of an interlaced picture, row by row."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    return [row.tobytes() for y, x, dy, dx in starts for row in values[y::dy, x::dx]]


def over(colour, alpha, background=255):
    colour, alpha = np.asarray(colour, np.int64), np.asarray(alpha, np.int64)
    return ((colour * alpha + background * (255 - alpha) + 127) // 255).astype(np.uint8)


def grey3(values):
    return np.repeat(values.reshape(*values.shape[:2], 1), 3, 2)


def big_endian(values):
    return [row.astype(">u2").tobytes() for row in values]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def profile(name):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def two_frames(kind):
    first = Image.fromarray(RGB)
    return encoded(first, kind, save_all=True, append_images=[Image.fromarray(RGB[::-1])], lossless=True)


BLACK_AND_WHITE = Image.fromarray((GREY[..., 0] > 127).astype(np.uint8) * 255)
LEVELS = np.random.default_rng(2).integers(0, 65536, (H, W), dtype=np.uint16)
COLOURS = np.random.default_rng(3).integers(0, 65536, (H, W, 3), dtype=np.uint16)
PALETTE = np.random.default_rng(4).integers(0, 256, (16, 3), dtype=np.uint8)
INDEX = np.random.default_rng(5).integers(0, 16, (H, W), dtype=np.uint8)
TURNED = {
    1: SMOOTH, 2: SMOOTH[:, ::-1], 3: SMOOTH[::-1, ::-1], 4: SMOOTH[::-1], 5: SMOOTH.transpose(1, 0, 2),
    6: np.rot90(SMOOTH, -1), 7: SMOOTH[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(SMOOTH),
}  # fmt: skip
PLTE = (b"PLTE", PALETTE.tobytes())
P_IMAGE = Image.fromarray(RGB).quantize(16)
P_INDEX, P_RGB = np.asarray(P_IMAGE), np.asarray(P_IMAGE.convert("RGB"))
CMYK = Image.fromarray(SMOOTH).convert("CMYK")

# kind → (bytes, pixels that are right, largest difference)
ACCEPTED = {
    "png rgb": (encoded(RGB), RGB, 0),
    "png rgba": (encoded(np.concatenate([RGB, ALPHA], 2)), over(RGB, ALPHA), 0),
    "png grey": (encoded(GREY), grey3(GREY), 0),
    "png grey and alpha": (encoded(Image.fromarray(np.concatenate([GREY, ALPHA], 2), "LA")), over(grey3(GREY), ALPHA), 0),
    "png bilevel": (encoded(BLACK_AND_WHITE, mode="1"), grey3((GREY > 127) * 255), 0),
    "png palette": (encoded(P_IMAGE), P_RGB, 0),
    "png palette, one clear": (
        encoded(P_IMAGE, transparency=3), np.where((P_INDEX == 3)[..., None], 255, P_RGB), 0),
    "png palette, alpha for each": (
        encoded(P_IMAGE, transparency=bytes(range(0, 256, 16))), over(P_RGB, (P_INDEX * 16)[..., None]), 0),
    "png rgb, one clear colour": (
        encoded(Image.new("RGB", (W, H), (1, 2, 3)), transparency=(1, 2, 3)), np.full((H, W, 3), 255), 0),
    "png 16-bit grey": (encoded(LEVELS), grey3(np.floor(LEVELS / 257 + 0.5)), 0),
    "png 16-bit rgb": (png(W, H, 16, 2, big_endian(COLOURS)), COLOURS / 257, 1),
    "png 16-bit rgba": (
        png(W, H, 16, 6, big_endian(np.concatenate([COLOURS, np.full((H, W, 1), 65535)], 2))), COLOURS / 257, 1),
    "png 16-bit grey and alpha": (
        png(W, H, 16, 4, big_endian(np.stack([LEVELS, np.full((H, W), 65535)], 2))), grey3(LEVELS / 257), 1),
    "png 4-bit grey": (png(W, H, 4, 0, packed(INDEX, 4)), grey3(INDEX * 17), 0),
    "png 2-bit grey": (png(W, H, 2, 0, packed(INDEX % 4, 2)), grey3(INDEX % 4 * 85), 0),
    "png 1-bit grey": (png(W, H, 1, 0, packed(INDEX % 2, 1)), grey3(INDEX % 2 * 255), 0),
    "png 8-bit palette by hand": (png(W, H, 8, 3, [bytes(row) for row in INDEX], PLTE), PALETTE[INDEX], 0),
    "png 4-bit palette": (png(W, H, 4, 3, packed(INDEX, 4), PLTE), PALETTE[INDEX], 0),
    "png 2-bit palette": (png(W, H, 2, 3, packed(INDEX % 4, 2), PLTE), PALETTE[INDEX % 4], 0),
    "png 1-bit palette": (png(W, H, 1, 3, packed(INDEX % 2, 1), PLTE), PALETTE[INDEX % 2], 0),
    "png interlaced": (png(W, H, 8, 2, adam7(RGB), interlace=1), RGB, 0),
    "png with text and time": (
        png(W, H, 8, 2, [row.tobytes() for row in RGB], (b"tEXt", b"Comment\0prompt"), (b"tIME", b"\x07\xe7\1\1\0\0\0")), RGB, 0),
    "png in two pieces of data": (
        chunks((b"IHDR", struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 0)), *(
            (b"IDAT", part) for data in [zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB))]
            for part in (data[:200], data[200:])), (b"IEND", b"")), RGB, 0),
    "png with something behind it": (encoded(RGB) + b"more bytes", RGB, 0),
    "png animated": (two_frames("PNG"), RGB, 0),
    "png with orientation 6": (encoded(RGB, exif=exif(6)), np.rot90(RGB, -1), 0),
    "png with sRGB profile": (encoded(RGB, icc_profile=profile("sRGB")), RGB, 0),
    "png with a damaged profile": (encoded(RGB, icc_profile=b"none"), RGB, 0),
    "png with a profile for other pixels": (encoded(RGB, icc_profile=profile("LAB")), RGB, 0),
    "jpeg": (encoded(SMOOTH, "JPEG", quality=95), SMOOTH, 6),
    "jpeg progressive": (encoded(SMOOTH, "JPEG", quality=95, progressive=True), SMOOTH, 6),
    "jpeg grey": (encoded(SMOOTH, "JPEG", mode="L", quality=95), SMOOTH, 6),
    "jpeg 4:4:4": (encoded(SMOOTH, "JPEG", quality=95, subsampling=0), SMOOTH, 6),
    "jpeg 4:2:0": (encoded(SMOOTH, "JPEG", quality=95, subsampling=2), SMOOTH, 6),
    "jpeg of low quality": (encoded(SMOOTH, "JPEG", quality=5), SMOOTH, 60),
    "jpeg cmyk": (encoded(CMYK, "JPEG", quality=100), SMOOTH, 6),
    "jpeg with restart markers": (encoded(SMOOTH, "JPEG", quality=95, restart_marker_rows=1), SMOOTH, 6),
    "jpeg with a comment": (encoded(SMOOTH, "JPEG", quality=95, comment="x" * 500), SMOOTH, 6),
    "jpeg with something behind it": (encoded(SMOOTH, "JPEG", quality=95) + bytes(99), SMOOTH, 6),
    "jpeg with garbage for exif": (encoded(SMOOTH, "JPEG", quality=95, exif=b"Exif\0\0garbage"), SMOOTH, 6),
    "jpeg with orientation 0": (encoded(SMOOTH, "JPEG", quality=95, exif=exif(0)), SMOOTH, 6),
    "jpeg with orientation 9": (encoded(SMOOTH, "JPEG", quality=95, exif=exif(9)), SMOOTH, 6),
    **{f"jpeg with orientation {k}": (encoded(SMOOTH, "JPEG", quality=95, exif=exif(k)), v, 6) for k, v in TURNED.items()},
    "webp lossless": (encoded(RGB, "WEBP", lossless=True), RGB, 0),
    "webp lossy": (encoded(SMOOTH, "WEBP", quality=95), SMOOTH, 10),
    "webp with alpha": (
        encoded(np.concatenate([RGB, ALPHA], 2), "WEBP", lossless=True, exact=True), over(RGB, ALPHA), 0),
    "webp animated": (two_frames("WEBP"), RGB, 0),
    "webp with orientation 3": (encoded(RGB, "WEBP", lossless=True, exif=exif(3)), RGB[::-1, ::-1], 0),
    "bmp": (encoded(RGB, "BMP"), RGB, 0),
    "bmp grey": (encoded(GREY, "BMP"), grey3(GREY), 0),
    "bmp palette": (encoded(P_IMAGE, "BMP"), P_RGB, 0),
    "bmp bilevel": (encoded(BLACK_AND_WHITE, "BMP", mode="1"), grey3((GREY > 127) * 255), 0),
    "of 16 pixels a side": (encoded(RGB[:16, :16]), RGB[:16, :16], 0),
    "tall": (encoded(np.tile(RGB, (50, 1, 1))), np.tile(RGB, (50, 1, 1)), 0),
    "of one colour": (encoded(np.full((H, W, 3), 7, np.uint8)), np.full((H, W, 3), 7), 0),
}  # fmt: skip
SUFFIX_ONLY = {
    "png called jpg": ("a.jpg", encoded(RGB), RGB, 0),
    "jpeg called png": ("a.png", encoded(SMOOTH, "JPEG", quality=95), SMOOTH, 6),
    "webp called jpeg": ("a.jpeg", encoded(RGB, "WEBP", lossless=True), RGB, 0),
    "bmp called webp": ("a.webp", encoded(RGB, "BMP"), RGB, 0),
    "upper-case suffix": ("A.PNG", encoded(RGB), RGB, 0),
}
NAMES = [
    "two words.png", "日本語.png", "صورة.png", "תמונה.png", "चित्र.png", "рисунок.png", "ภาพ.png", "🦊🎨.png", "e\u0301tude.png",
    "\u202egnp.png", "a\nb.png", "a\tb.png", "-rf.png", "a'b\"c.png", "a\\b.png", "100%.png", "a;b&c.png", "[x]{y}.png",
    "n" * 250 + ".png", "a.b.c.png", " lead.png", "\udcff\udcfe.png", "con.png", "a" + "\u0300" * 30 + ".png",
]  # fmt: skip
WHOLE = {
    "PNG": encoded(RGB), "JPEG": encoded(RGB, "JPEG"), "WEBP": encoded(RGB, "WEBP", lossless=True), "BMP": encoded(RGB, "BMP")
}  # fmt: skip
REFUSED = {
    "zero bytes": (b"", "empty file"),
    "one pixel": (encoded(Image.new("RGB", (1, 1))), "1 x 1 pixels: 16 or more"),
    "15 pixels high": (encoded(RGB[:15]), "24 x 15 pixels"),
    "a line": (encoded(np.zeros((3, 20000, 3), np.uint8)), "20000 x 3 pixels"),
    "no width": (png(0, H, 8, 2, []), "cut off or damaged"),
    "more pixels than can be": (png(2**31 - 1, 2**31 - 1, 8, 2, []), "too many pixels"),
    "a bomb": (png(40_000, 40_000, 8, 2, []), "too many pixels"),
    "64 million and one": (png(64_001, 1000, 8, 2, []), "too many pixels"),
    "damaged header": (chunks((b"IHDR", b"\xff" * 13)), "damaged"),
    "gif": (encoded(RGB, "GIF"), "a GIF"),
    "tiff": (encoded(RGB, "TIFF"), "a TIFF"),
    "floating-point tiff": (encoded(Image.new("F", (W, H)), "TIFF"), "a TIFF"),
    "ico": (encoded(RGB, "ICO"), "no picture that can be read"),
    "ppm": (encoded(RGB, "PPM"), "no picture that can be read"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "no picture that can be read"),
    "heic": (b"\0\0\0\x1cftypheic" + bytes(99), "HEIC"),
    "avif": (b"\0\0\0\x1cftypavif" + bytes(99), "AVIF"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "web page": (b"<!DOCTYPE html><title>404</title>", "web page"),
    "pdf": (b"%PDF-1.7 ...", "PDF"),
    "zip": (b"PK\x03\x04" + bytes(99), "ZIP"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "text": (b"not a picture", "no picture that can be read"),
    "zeros": (bytes(5000), "no picture that can be read"),
    "noise": (np.random.default_rng(9).bytes(5000), "no picture that can be read"),
    "riff of sound": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(99), "damaged"),
    **{
        f"{kind} cut at {k} tenths": (data[: len(data) * k // 10], "cut off")
        for kind, data in WHOLE.items() for k in range(1, 10)
    },
}  # fmt: skip


def judged(folder, reading=None):
    return judge(find(folder), 16)


@pytest.fixture
def folder(tmp_path):
    """With one plain picture, so that it is never the only one that is bad."""
    (tmp_path / "zz-plain.png").write_bytes(encoded(RGB[::-1]))
    return tmp_path


def right(data, expected, tolerance):
    shown = np.asarray(decode(data)).astype(float)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= tolerance


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ACCEPTED)
def test_accepted_with_the_right_pixels(folder, kind):
    data, expected, tolerance = ACCEPTED[kind]
    (folder / "a.png").write_bytes(data)
    judgement = judged(folder)
    assert not judgement.faults and judgement.usable[0].name == "a.png"
    assert judgement.usable[0].size == expected.shape[1::-1]
    right(judgement.usable[0].read(), expected, tolerance)


@pytest.mark.parametrize("kind", SUFFIX_ONLY)
def test_the_bytes_decide_not_the_name(folder, kind):
    name, data, expected, tolerance = SUFFIX_ONLY[kind]
    (folder / name).write_bytes(data)
    picture = judged(folder).usable[0]
    assert picture.name == name
    right(picture.read(), expected, tolerance)


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[1:25] for name in NAMES])
def test_names_in_any_script(folder, name):
    (folder / name).write_bytes(encoded(RGB))
    (folder / name).with_suffix(".txt").write_text("its caption")
    judgement = judged(folder)
    assert not judgement.faults
    (picture,) = [p for p in judgement.usable if p.name != "zz-plain.png"]
    assert picture.captions == ("its caption",)
    right(picture.read(), RGB, 0)
    "\n".join(judgement.lines()).encode()  # what is said of it can be printed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_what_it_is(folder, kind):
    data, words = REFUSED[kind]
    (folder / "a.png").write_bytes(data)
    (fault,) = judged(folder).faults
    assert fault.name == "a.png" and words in fault.message, fault.message
    assert "\n" not in fault.message


def link(folder):
    (folder / "real.bin").write_bytes(encoded(RGB))
    (folder / "a.png").symlink_to(folder / "real.bin")


def chain(folder):
    link(folder)
    (folder / "a.png").rename(folder / "b.link")
    (folder / "a.png").symlink_to(folder / "b.link")


def twin(folder):
    (folder / "a.png").hardlink_to(folder / "zz-plain.png")


def itself(folder):
    (folder / "a.png").symlink_to(folder / "a.png")


def nowhere(folder):
    (folder / "a.png").symlink_to(folder / "gone.png")


def loop(folder):
    (folder / "a").symlink_to(folder)


def two_loops(folder):
    (folder / "a").mkdir()
    (folder / "a" / "b").symlink_to(folder / "c")
    (folder / "c").symlink_to(folder / "a")


def pipe(folder):
    os.mkfifo(folder / "a.png")


def named_socket(folder):
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(folder)
        server.bind("a.png")


def directory(folder):
    (folder / "a.png").mkdir()


def hidden(folder):
    (folder / ".a.png").write_bytes(b"")


def system(folder):
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "a.png").write_bytes(b"")


def enormous(folder):
    with (folder / "a.png").open("wb") as file:
        file.truncate(2**40)


PLACES = {
    "a link": (link, 2, None), "a link to a link": (chain, 2, None), "the same file twice": (twin, 1, "used once"),
    "a link to itself": (itself, 1, "lead nowhere"), "a link to nothing": (nowhere, 1, "lead nowhere"),
    "a folder that holds itself": (loop, 1, None), "folders that hold each other": (two_loops, 1, None),
    "a pipe": (pipe, 1, None), "a socket": (named_socket, 1, None), "a folder with a picture's name": (directory, 1, None),
    "a hidden file": (hidden, 1, None), "a system's folder": (system, 1, None), "an enormous file": (enormous, 2, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_what_a_folder_may_hold(folder, kind, monkeypatch):
    make, count, warning = PLACES[kind]
    monkeypatch.chdir(folder)
    make(folder)
    found = find(folder)
    assert len(found.pictures) == count
    assert not warning or any(warning in line for line in found.warnings)
    faults = judge(found, 16).faults
    assert (
        [fault.message for fault in faults if "too large" in fault.message]
        if kind == "an enormous file"
        else not faults
    )


def test_a_picture_that_goes_away_or_changes_after_it_was_found(folder):
    (folder / "a.png").write_bytes(encoded(RGB))
    found = find(folder)
    (folder / "a.png").unlink()
    (fault,) = judge(found, 16).faults
    assert "cannot be read" in fault.message
    (folder / "a.png").write_bytes(encoded(RGB)[:99])
    assert [f.name for f in judge(found, 16).faults] == ["a.png"]


def test_there_are_enough_kinds():
    assert len(ACCEPTED) + len(SUFFIX_ONLY) >= 60 and len(REFUSED) >= 60 and len(NAMES) + len(PLACES) >= 30
