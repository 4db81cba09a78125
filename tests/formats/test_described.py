"""What a shared file says, as the programs read it: their rules, written again as readers; their sources are named below."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adapt.adapter import Adapter, Facts
from adapt.cli.main import main
from adapt.formats import LoraWeights, Pair, read, write_lora
from adapt.formats.described import STEM, Description, slug, thumbnail
from adapt.formats.header import HEADER, KEPT, carried, kept, read_metadata

CROSS = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"


def weights(width=768):
    dice = torch.Generator().manual_seed(0)
    return LoraWeights(
        {"unet": {CROSS: Pair(torch.randn(2, width, generator=dice), torch.randn(8, 2, generator=dice), 1.0)}}
    )


@pytest.fixture
def picture(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "PLANTED"
    noise = np.random.default_rng(0).integers(0, 256, (512, 384, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "sample.png", exif=exif)
    return tmp_path / "sample.png"


@pytest.fixture(params=[768, 1024])
def exported(request, tmp_path, picture):
    """A kohya file with its sidecars, of Stable Diffusion 1.x and 2.x."""
    training = {"pictures": 7, "steps": 100, "resolution": 512, "learning_rate": 1e-4, "seed": 3, "optimizer": "adamw"}
    facts = Facts(base={"reference": "owner/base", "license": "openrail++"}, triggers=("zqx", "other word"), trigger="zqx",
                  objective="v_prediction", recommended={"scale": 0.8, "guidance_scale": 5.0, "steps": 30},
                  training=training)  # fmt: skip
    path = tmp_path / "models" / "my-style_1.0.safetensors"
    Adapter(weights(request.param), facts, "My style").export(path, "kohya", picture=picture)
    return path


# ------------------------------------------------------------------------------------------------ five readers
def a1111(path):
    """modules/ui_extra_networks.py, extensions-builtin/Lora: preview by stem, json beside it, `ss_*` in the header."""
    metadata = read_metadata(path)
    beside = json.loads(path.with_suffix(".json").read_text("utf-8"))
    by_header = (
        "SDXL"
        if metadata.get("ss_base_model_version", "").startswith("sdxl_")
        else "SD2"
        if metadata.get("ss_v2") == "True"
        else "SD1"
    )
    text = path.with_suffix(".txt")
    tags = json.loads(metadata.get("ss_tag_frequency", "{}"))
    return {
        "name": metadata.get("ss_output_name", path.stem),
        "preview": next((path.with_suffix(s) for s in (".png", ".jpg", ".webp") if path.with_suffix(s).exists()), None),
        "trigger": beside["activation text"],
        "weight": beside["preferred weight"],
        "description": text.read_text("utf-8") if text.exists() else beside["description"],
        "version": beside["sd version"] if beside["sd version"] in ("SD1", "SD2", "SDXL", "Unknown") else by_header,
        "tags": {tag for counts in tags.values() for tag in counts},
    }


def comfyui(path):
    """ComfyUI_frontend stores/modelStore: the exact key, else any key that *ends* so."""
    metadata = read_metadata(path)

    def find(*keys):
        for key in keys:
            if key in metadata:
                return metadata[key]
            if match := next((metadata[k] for k in metadata if k.endswith(key)), None):
                return match
        return None

    return {
        "title": find("modelspec.title", "title", "display_name", "name"),
        "description": find("modelspec.description", "description"),
        "trigger": find("modelspec.trigger_phrase", "trigger_phrase"),
        "hint": find("modelspec.usage_hint", "usage_hint"),
        "image": find("modelspec.thumbnail", "thumbnail", "image", "icon"),
        "tags": find("modelspec.tags", "tags"),
        "architecture": find("modelspec.architecture", "architecture"),
    }


def invokeai(path):
    """util/lora_metadata_extractor.py: triggers split at commas, description with notes, a picture of the same stem."""
    beside = json.loads(path.with_suffix(".json").read_text("utf-8"))
    return {
        "triggers": {word.strip() for word in beside["activation text"].split(",")},
        "description": f"{beside['description']} {beside['notes']}",
        "preview": path.with_suffix(".png").exists(),
    }


def lora_manager(path):
    """docs/metadata-json-schema.md: AutoV3 is the first 12 digits of the digest of the tensors."""
    metadata, content = read_metadata(path), path.read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    told = metadata["sshs_model_hash"], metadata["modelspec.hash_sha256"].removeprefix("0x")
    return {
        "auto_v3": {value[:12] for value in told},
        "right": digest[:12],
        "trigger": metadata["modelspec.trigger_phrase"],
    }


def test_a1111_and_forge(exported):
    seen = a1111(exported)
    assert seen["name"] == "My-style" and seen["preview"] == exported.with_suffix(".png")
    assert seen["trigger"] == "zqx, other word" and seen["tags"] == {"zqx", "other word"} and seen["weight"] == 0.8
    assert seen["description"].startswith("My style: trained with adapt on 7 pictures")
    assert seen["version"] == ("SD2" if read_metadata(exported)["ss_v2"] == "True" else "SD1")


def test_comfyui_and_swarmui(exported):
    seen = comfyui(exported)
    assert seen["title"] == "My style" and seen["trigger"] == "zqx, other word" and "strength 0.8" in seen["hint"]
    assert seen["description"].startswith("My style") and seen["architecture"].startswith("stable-diffusion-v")
    assert seen["image"].startswith("data:image/jpeg;base64,") and seen["tags"] is None


def test_invokeai_and_lora_manager(exported):
    seen = invokeai(exported)
    assert seen["triggers"] == {"zqx", "other word"} and seen["preview"] and "steps 30" in seen["description"]
    seen = lora_manager(exported)
    assert seen["auto_v3"] == {seen["right"]} and seen["trigger"] == "zqx, other word"


@pytest.mark.parametrize("format", ["comfyui", "kohya"])
def test_other_dialects_of_uis_say_the_same(format, tmp_path, picture):
    path = tmp_path / "out" / "a.safetensors"
    facts = Facts(trigger="zqx", recommended={"scale": 0.8})
    Adapter(weights(), facts, "My style").export(path, format, picture=picture)
    assert {file.name for file in path.parent.iterdir()} == {"a.safetensors", "a.json", "a.png"}
    assert (
        comfyui(path)["title"] == "My style"
        and comfyui(path)["trigger"] == "zqx"
        and invokeai(path)["triggers"] == {"zqx"}
    )
    Adapter(weights(), facts, "My style").export(tmp_path / "plain" / "a.safetensors", "diffusers", picture=picture)
    assert [file.name for file in (tmp_path / "plain").iterdir()] == ["a.safetensors"]


# ------------------------------------------------------------------------------------------------ traps a to g
def test_a_no_text_file_is_written(exported):
    assert {path.suffix for path in exported.parent.iterdir()} == {".safetensors", ".json", ".png"}


@pytest.mark.parametrize(
    ("version", "shown"),
    [("flux1", "Unknown"), ("sd3_medium", "Unknown"), ("sdxl_base_v1-0", "SDXL"), ("sd_v1", "SD1")],
)
def test_b_a1111_is_told_the_version_that_it_would_get_wrong(version, shown):
    assert Description("x").sidecar(version)["sd version"] == shown


def test_c_without_our_title_description_and_thumbnail_nothing_else_of_ours_takes_their_place(exported):
    endings = ("title", "display_name", "description", "image", "icon", "tags", "thumbnail")
    ours = [key for key in read_metadata(exported) if key.endswith(endings)]
    assert set(ours) == {"modelspec.title", "modelspec.description", "modelspec.thumbnail"}


@pytest.mark.parametrize("name", ["My style: v1", "стиль", "a/b\\c", "...", "", "<lora:x:1>", "ok_1.0-b"])
def test_d_stems_can_be_named_in_a_prompt(name):
    assert STEM.match(slug(name)) and re.fullmatch(r"<lora:([a-zA-Z0-9_.-]+):([0-9.]+)>", f"<lora:{slug(name)}:{0.8}>")
    assert slug("ok_1.0-b") == "ok_1.0-b"


def test_d_weights_are_plain_numbers_and_export_says_what_cannot_be_named(tmp_path, capsys):
    write_lora(tmp_path / "pytorch_lora_weights.safetensors", weights(), {})
    assert main(["export", str(tmp_path), "--output", str(tmp_path / "mein stil.safetensors")]) == 0
    assert "cannot name 'mein stil'" in capsys.readouterr().err
    assert json.loads((tmp_path / "mein stil.json").read_text())["preferred weight"] == 1.0


def test_e_a_digest_does_not_survive_a_change_of_the_tensors(exported, tmp_path):
    again = read(exported)
    assert "sshs_model_hash" in again.metadata
    write_lora(tmp_path / "again.safetensors", again, {})
    assert not {"sshs_model_hash", "modelspec.hash_sha256"} & set(read_metadata(tmp_path / "again.safetensors"))


def test_f_no_absolute_path_is_written(exported):
    for path in exported.parent.iterdir():
        assert str(exported.parent).encode() not in path.read_bytes() and b"file_path" not in path.read_bytes()


def test_g_thumbnails_are_small_and_hold_nothing_else(picture, exported):
    content = base64.b64decode(thumbnail(picture).partition(",")[2])
    with Image.open(io.BytesIO(content)) as small:
        assert small.size == (192, 256) and small.format == "JPEG" and not small.getexif()
    assert len(content) <= 24_000 and b"PLANTED" not in content
    with Image.open(exported.with_suffix(".png")) as preview:
        assert max(preview.size) == 256 and preview.info == {}


# ------------------------------------------------------------------------------------------------ headers of others
FOREIGN = {
    "ss_dataset_dirs": "{\"/home/ann/client\": {}}", "ss_datasets": "[]", "ss_bucket_info": "{}",
    "ss_training_comment": "PLANTED", "ss_session_id": "1", "ss_training_started_at": "1", "sd_merge_recipe": "x",
    "training_info": "PLANTED", "config": "PLANTED",
    "ss_reg_dataset_dirs": "{}", "ss_vae_name": "C:\\vae.pt", "software": "x", "file_path": "/home/ann",
}  # fmt: skip


def test_only_known_entries_are_shared():
    told = {**FOREIGN, "ss_network_dim": "4", "modelspec.author": "Ann", HEADER: "{}", "format": "pt"}
    assert kept(told) == {"ss_network_dim": "4", "modelspec.author": "Ann", HEADER: "{}", "format": "pt"}
    assert carried(told) == {"modelspec.author": "Ann"}
    assert not {key for key in KEPT if re.search("dir|path|comment|session|host|date(?!$)", key)}


@pytest.mark.parametrize(
    ("given", "shared"),
    [("/home/ann/models/v1-5.safetensors", "v1-5.safetensors"), ("C:\\Users\\ann\\v1-5.ckpt", "v1-5.ckpt"),
     ("owner/name", "owner/name"),
     ("\\\\host\\share\\x.safetensors", "x.safetensors"), ("../up/x.safetensors", "x.safetensors"), ("plain", "plain")],
)  # fmt: skip
def test_of_a_base_s_path_its_name_is_shared(given, shared):
    assert kept({"ss_sd_model_name": given}) == {"ss_sd_model_name": shared}


def test_captions_in_tag_frequencies_are_not_shared():
    theirs = {"ss_tag_frequency": json.dumps({"10_ann": {"a caption": 3}})}
    ours = {"ss_tag_frequency": json.dumps({"adapt": {"zqx": 3}})}
    assert kept(theirs) == {} and kept(ours) == ours and kept({"ss_tag_frequency": "no json"}) == {}


def test_saving_somebody_else_s_adapter_again_drops_what_is_private(tmp_path):
    from safetensors.torch import load_file, save_file

    write_lora(tmp_path / "a.safetensors", weights(), {})
    theirs = tmp_path / "theirs.safetensors"
    save_file(load_file(tmp_path / "a.safetensors"), theirs, {**FOREIGN, "modelspec.author": "Ann"})
    Adapter.load(theirs).save(tmp_path / "mine")
    told = read_metadata(tmp_path / "mine" / "pytorch_lora_weights.safetensors")
    assert set(told) == {"format", HEADER, "modelspec.author"}
    Adapter.load(theirs).export(tmp_path / "mine.safetensors", "kohya")
    assert (
        not set(FOREIGN) & set(read_metadata(tmp_path / "mine.safetensors")) and Path(tmp_path / "mine.json").exists()
    )
