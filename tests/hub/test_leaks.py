"""Strings planted where private things are found: in folders, file names, captions, picture metadata, the environment, tokens,
the base's path. None of them is in any file that is exported or pushed, nor in any request."""

import base64
import json
import re
import zlib

import pytest
from PIL import Image, PngImagePlugin

import adapt
from adapt.cli.main import main

PICTURES = 12
EXIF = {
    0x010E: "description",
    0x013B: "artist",
    0x8298: "copyright",
    0x010F: "make",
    0x0110: "model",
    0x0131: "software",
}
ENVIRONMENT = 40


class Planter:
    """Hands out strings that are found again; none occurs by chance."""

    def __init__(self):
        self.planted = []

    def __call__(self, where):
        self.planted.append(f"pl{len(self.planted):04d}q{zlib.crc32(where.encode()) % 10**6:06d}")
        return self.planted[-1]


def plant_pictures(folder, plant):
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        stem = plant("file name")
        picture = Image.effect_noise((16, 16), 40 + number).convert("RGB")
        exif = Image.Exif()
        for tag, name in EXIF.items():
            exif[tag] = plant(name)
        if number % 2:
            picture.save(folder / f"{stem}.jpg", exif=exif, comment=plant("comment").encode())
        else:
            text = PngImagePlugin.PngInfo()
            text.add_text("parameters", plant("text chunk"))
            text.add_text("Comment", plant("packed text chunk"), zip=True)
            picture.save(folder / f"{stem}.png", exif=exif, pnginfo=text)
        captions = "\n".join(f"a picture, {plant('caption')}" for _ in range(2))
        (folder / f"{stem}.txt").write_text(captions, encoding="utf-8")


@pytest.fixture(scope="module")
def planted(tmp_path_factory, make_tiny):
    """A run over planted pictures on a base in a planted folder: strings, the run's folder."""
    plant = Planter()
    place = tmp_path_factory.mktemp(plant("temporary folder")) / plant("client") / plant("project")
    plant_pictures(place / plant("pictures"), plant)
    base = place / plant("base")
    make_tiny(text_width=768).save_pretrained(base)
    names = {f"{plant('name of a variable')}_{i}".upper(): plant("value of a variable") for i in range(ENVIRONMENT)}
    names |= {
        "USER": plant("user"),
        "HOSTNAME": plant("host"),
        "WANDB_API_KEY": plant("key") * 3,
        "HF_TOKEN_OF_ANOTHER": plant("token"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        (data,) = (path for path in place.iterdir() if path != base)
        run = place / "runs" / "shared-style"
        words = [
            "steps=1",
            "batch_size=2",
            "rank=1",
            "sampling_steps=1",
            "trigger=zqx",
            "targets=[to_k,to_q]",
            "validation=0.25",
        ]
        assert main(["train", str(data), "--base", str(base), "--output", str(run), *words]) == 0
    return plant.planted, run, names


def unpacked(content):
    """The bytes, and what is packed in them: base64 and zlib streams of text chunks."""
    yield content
    for match in re.findall(rb"[A-Za-z0-9+/=]{64,}", content):
        yield base64.b64decode(match + b"=" * (-len(match) % 4))
    for start in (match.end() for match in re.finditer(rb"zTXt[^\0]*\0\0|iTXt", content)):
        try:
            yield zlib.decompress(content[start:])
        except zlib.error:
            continue


def found(strings, named):
    held = {name: b"\n".join(unpacked(content)).lower() for name, content in named.items()}
    return [(name, string) for name, content in held.items() for string in strings if string.encode() in content]


def test_none_of_two_hundred_is_shared(hub, planted, tmp_path, monkeypatch):
    strings, run, names = planted
    assert len(strings) >= 200 and len(set(strings)) == len(strings)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    for format in ("kohya", "diffusers"):
        assert (
            main(["export", str(run), "--format", format, "--output", str(tmp_path / "out" / f"{format}.safetensors")])
            == 0
        )
    adapt.push(run, "alice/shared-style", data_license="cc0-1.0", tag="v1")
    exported = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    adapter = {p.name: p.read_bytes() for p in (run / "adapter").rglob("*") if p.is_file()}
    pushed = hub["alice/shared-style"].files
    assert set(exported) == {"kohya.safetensors", "kohya.json", "kohya.png", "diffusers.safetensors"}
    assert {"kohya/shared-style.safetensors", "kohya/shared-style.json", "kohya/shared-style.png"} < set(pushed)
    requests = {str(number): body for number, body in enumerate(hub.bodies)}
    assert found(strings, exported | adapter | {f"pushed {n}": c for n, c in pushed.items()} | requests) == []
    assert found(strings, {"addresses": "\n".join(hub.log).encode()}) == []
    assert json.loads(pushed["adapter.json"])["base"]["reference"] is None


def test_the_search_would_find_them(planted):
    """The same search finds planted strings where they are: in the data."""
    strings, run, _ = planted
    (data,) = {path.parent for path in run.parents[1].rglob("*.jpg")}
    seen = {string for _, string in found(strings, {path.name: path.read_bytes() for path in data.iterdir()})}
    assert len(seen) >= PICTURES * 9
