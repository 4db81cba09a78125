"""Strings planted where private things are found: in folders, file names, captions, picture metadata, the environment, tokens,
the base's path. None of them is in any file that is exported or pushed, nor in any request."""

import base64
import json
import re
import shutil
import zlib
from dataclasses import replace

import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import adapt
from adapt.adapter import Adapter
from adapt.cli.main import main
from adapt.formats import FILE_NAME, Dora, LoHa, LoraWeights
from adapt.formats.header import HEADER

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

    def __init__(self, prefix="pl"):
        self.planted, self.prefix = [], prefix

    def __call__(self, where):
        self.planted.append(f"{self.prefix}{len(self.planted):04d}q{zlib.crc32(where.encode()) % 10**6:06d}")
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


# ------------------------------------------------------------------------------------------------ what others wrote
PRIVATE = [
    "ss_dataset_dirs",
    "ss_datasets",
    "ss_reg_dataset_dirs",
    "ss_bucket_info",
    "ss_training_comment",
    "ss_session_id",
    "ss_vae_name",
    "ss_tag_frequency",
    "ss_full_command",
    "config",
    "training_info",
    "software",
    "file_path",
    "sd_merge_recipe",
    "sd_merge_models",
    "name",
    "host",
    "version",
    "author_note",
]
PATHS = [
    "ss_sd_model_name",
    "ss_network_module",
    "ss_network_args",
    "ss_optimizer",
    "ss_output_name",
    "modelspec.description",
    "modelspec.usage_hint",
    "modelspec.merged_from",
]
PEFT = [
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "note",
    "corda_config",
    "loftq_config",
    "megatron_core",
    "peft_secret",
]
DIALECTS = ("diffusers", "kohya", "comfyui", "simpletuner")


def in_a_path(plant, where):
    return f"/{plant(where)}/{plant(where)}/v1-5"


def header(plant, told):
    """What other trainers write, each entry with a planted string or a path of planted parts; and peft's configuration."""
    more = {key: json.dumps({plant(key): 1}) for key in PRIVATE} | {key: in_a_path(plant, key) for key in PATHS}
    config = json.loads(told.get(HEADER, "{}"))
    config |= {
        f"unet.{key}": in_a_path(plant, key) if number % 2 else {"x": plant(key)} for number, key in enumerate(PEFT)
    }
    return {**told, **more, HEADER: json.dumps(config)}


def rewrite(path, target, plant):
    with safe_open(path, "pt") as file:
        told = file.metadata() or {}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(load_file(path), target, header(plant, told))


def as_kind(adapter, kind):
    """The same adapter as another kind of layer, with planted strings in peft's configuration."""
    made = {}
    for name, pair in adapter.weights.modules["unet"].items():
        halves = (pair.up, pair.down, torch.ones_like(pair.up), torch.ones_like(pair.down))
        lengths = torch.ones(len(pair.up), 1)
        made[name] = LoHa(*halves, 3.0) if kind == "loha" else Dora(pair.down, pair.up, 3.0, lengths)
    reader = "peft" if kind == "loha" else "diffusers"
    return replace(
        adapter, weights=LoraWeights({"unet": made}), facts=replace(adapter.facts, lora={}, loads_in=("adapt", reader))
    )


@pytest.fixture(scope="module")
def foreign(planted, tmp_path_factory):
    """Files and folders as others would hand them on: planted strings, places."""
    plant, place = Planter("fo"), tmp_path_factory.mktemp("foreign")
    run = planted[1]
    for format in DIALECTS:
        assert (
            main(
                ["export", str(run), "--format", format, "--no-proof", "--output", str(place / f"{format}.safetensors")]
            )
            == 0
        )
        rewrite(place / f"{format}.safetensors", place / "theirs" / f"{format}.safetensors", plant)
    whole = Adapter.load(run)
    for kind in ("lora", "dora", "loha"):
        folder = place / kind / "adapter"
        (whole if kind == "lora" else as_kind(whole, kind)).save(folder)
        for path in sorted(folder.rglob("*.safetensors")):
            rewrite(path, path, plant)
        if kind == "loha":
            config = folder / "peft" / "adapter_config.json"
            more = {key: in_a_path(plant, key) for key in PEFT}
            config.write_text(json.dumps(json.loads(config.read_text()) | more))
        (folder / "kohya").mkdir()
        shutil.copy(place / "theirs" / "kohya.safetensors", folder / "kohya" / "a.safetensors")
        sidecar = {"activation text": "zqx", "notes": in_a_path(plant, "notes"), "civitai": {"user": plant("user")}}
        (folder / "kohya" / "a.json").write_text(json.dumps(sidecar))
    return plant.planted, place


def test_what_others_planted_in_their_files_is_not_handed_on(hub, planted, foreign, tmp_path):
    strings, place = foreign
    strings = strings + planted[0]
    assert len(strings) >= 500 and len(set(strings)) == len(strings)
    files = sorted((place / "theirs").iterdir())
    folders = [place / kind / "adapter" for kind in ("lora", "dora", "loha")]
    assert len(files) == len(DIALECTS)
    for number, path in enumerate([*files, *folders]):
        adapt.push(path, f"alice/number-{number}")
    for path in files:
        for format in ("kohya", "diffusers", "comfyui"):
            name = str(tmp_path / "out" / f"{path.stem}-{format}.safetensors")
            assert main(["export", str(path), "--format", format, "--no-proof", "--output", name]) == 0
    assert main(["merge", *map(str, files[:2]), str(folders[0]), "--output", str(tmp_path / "out" / "merged")]) == 0
    assert main(["merge", str(files[0]), "--output", str(tmp_path / "out" / "merged.safetensors")]) == 0
    for kind, folder in zip(("lora", "dora"), folders, strict=False):
        words = ["--rank", "1", "--output", str(tmp_path / "out" / f"{kind}-1")]
        assert main(["resize", str(folder), *words]) == 0
    shared = {str(p.relative_to(tmp_path)): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    pushed = {
        f"{number} {name}": content
        for number in range(len(files) + len(folders))
        for name, content in hub[f"alice/number-{number}"].files.items()
    }
    assert len(shared) >= 20 and {"6 peft/adapter_config.json", "6 kohya/a.json", f"5 {FILE_NAME}"} < set(pushed)
    requests = {str(number): body for number, body in enumerate(hub.bodies)}
    assert found(strings, shared | pushed | requests) == []


def test_what_is_taken_out_is_not_what_loading_needs(hub, foreign, tmp_path):
    for number, kind in enumerate(("lora", "dora", "loha")):
        folder = foreign[1] / kind / "adapter"
        adapt.push(folder, f"alice/whole-{number}")
        for name, content in hub[f"alice/whole-{number}"].files.items():
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / kind / name).write_bytes(content)
        assert Adapter.load(tmp_path / kind).weights.equals(Adapter.load(folder).weights)


def test_the_search_would_find_what_others_planted(foreign):
    strings, place = foreign
    held = {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert len({string for _, string in found(strings, held)}) == len(strings)
