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
from adapt.formats.export import FORMATS
from adapt.formats.header import HEADER, KEPT, carried, kept, read_metadata
from adapt.formats.names.families import FAMILIES
from adapt.formats.spec import model_of

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


FACTS = Facts(base={"reference": "owner/base"}, triggers=("zqx",), recommended={"scale": 0.8})
TAKING = {
    "sd1": ("kohya", "comfyui", "simpletuner", "diffusers"),
    "sd2": ("kohya", "comfyui", "simpletuner", "diffusers"),
    "sdxl": ("kohya", "comfyui", "omi", "simpletuner", "diffusers"),
    "sd3": ("kohya", "comfyui", "omi", "onetrainer", "simpletuner", "ai-toolkit", "diffusers"),
    "flux": FORMATS,
    "wan": ("kohya", "comfyui", "simpletuner", "diffusers"),
}
"""Family → the formats that take it."""


def of(family):
    """An adapter whose layers are told to be of this family."""
    dice = torch.Generator().manual_seed(0)
    width = {"sd1": 768, "sd2": 1024, "sdxl": 2048}.get(family)
    if width:
        return weights(width)
    names = [f"transformer_blocks.0.attn.to_{x}" for x in "qkv"]
    if family == "flux":
        names += ["transformer_blocks.0.attn.to_add_out"]
    names = [f"blocks.0.attn1.to_{x}" for x in "qkv"] if family == "wan" else names
    side = {"sd3": 1536, "flux": 3072, "wan": 64}[family]
    pairs = {n: Pair(torch.randn(2, side, generator=dice), torch.randn(side, 2, generator=dice), 1.0) for n in names}
    return LoraWeights({"transformer": pairs})


SHOWN = {
    "sd1": ("sd_v1", "stable-diffusion-v1/lora", "SD1"),
    "sd2": ("sd_v2", "stable-diffusion-v2-512/lora", "SD2"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "SDXL"),
    "sd3": ("medium", "stable-diffusion-3-medium/lora", "Unknown"),
    "flux": ("flux1", "flux-1-dev/lora", "Unknown"),
    "wan": ("wan", "wan2.1/lora", "Unknown"),
}
"""`ss_base_model_version`, `modelspec.architecture`, what A1111 shows."""
OMI = {"sd3": "stable-diffusion-v3-medium/lora", "flux": "Flux.1-dev/lora"}
CASES = [(family, format) for family, formats in TAKING.items() for format in formats]


@pytest.mark.parametrize(("family", "format"), CASES)
def test_b_every_dialect_says_what_it_is_for_and_a1111_shows_that(family, format, tmp_path):
    """By real exports: without the entry beside the file A1111 would show every Flux and SD 3 as SD1."""
    path = tmp_path / "a.safetensors"
    Adapter(of(family), FACTS, "My style").export(path, format)
    told, (version, architecture, shown) = read_metadata(path), SHOWN[family]
    assert told["ss_base_model_version"] == version and told["ss_v2"] == str(family == "sd2")
    assert told["modelspec.architecture"] == (OMI.get(family, architecture) if format == "omi" else architecture)
    assert {"sai_model_spec", "implementation", "title", "hash_sha256"} <= {k.partition(".")[2] for k in told}
    assert told["modelspec.title"] == "My style" and told["modelspec.trigger_phrase"] == "zqx"
    content = path.read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    assert told["sshs_model_hash"] == told["modelspec.hash_sha256"].removeprefix("0x") == digest
    assert told["ss_network_module"].startswith("networks.lora") and told["ss_network_alpha"] != ""
    assert ("ot_branch" in told) == (format == "omi") and set(told) <= {*KEPT, HEADER}
    if format != "diffusers":
        assert a1111(path)["version"] == shown
    again = tmp_path / "again.safetensors"
    Adapter(of(family), FACTS, "My style").export(again, format)
    assert again.read_bytes() == content


def invokeai_takes_for_omi(path):
    """configs/lora.py, LoRA_OMI_Config_Base: two entries, and then one of two architectures by its exact name."""
    told = read_metadata(path)
    spec, architecture = told.get("modelspec.sai_model_spec"), told.get("modelspec.architecture", "")
    if not (spec and told.get("ot_branch") == "omi_format" and architecture.split("/")[1].lower() == "lora"):
        return None
    return {"stable-diffusion-xl-v1-base/lora": "sdxl", "Flux.1-dev/lora": "flux"}.get(architecture)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_invokeai_knows_omis_file(family, tmp_path):
    for format in ("omi", "kohya"):
        Adapter(of(family), FACTS).export(tmp_path / f"{format}.safetensors", format)
    assert invokeai_takes_for_omi(tmp_path / "omi.safetensors") == family
    assert invokeai_takes_for_omi(tmp_path / "kohya.safetensors") is None


def test_layers_tell_stable_diffusion_3_5_where_the_adapter_does_not():
    pair = next(iter(of("sd3").modules["transformer"].values()))
    told = {
        "transformer_blocks.0.attn2.to_q": "5-medium", "transformer_blocks.30.attn.to_q": "5-large",
        "transformer_blocks.23.attn.to_q": "medium",
    }  # fmt: skip
    for name, version in told.items():
        model = model_of(FAMILIES["sd3"], {"transformer": {name: pair}}, Description("x"))
        assert model.version == version and model.architecture == f"stable-diffusion-3-{version}"


def test_a_family_that_nobody_has_a_name_for_is_called_by_adapts(tmp_path):
    path = tmp_path / "a.safetensors"
    own = {"transformer_blocks.0.attn1.to_q": Pair(torch.ones(1, 8), torch.ones(8, 1), 1.0)}
    Adapter(LoraWeights({"transformer": own}), Facts(base={"family": "pixart-sigma"})).export(path, "diffusers")
    told = read_metadata(path)
    assert told["modelspec.architecture"] == "pixart-sigma/lora" and "ss_base_model_version" not in told
    assert told["modelspec.implementation"].endswith("huggingface/diffusers")


def test_somebody_else_s_adapter_keeps_its_maker_and_its_words(tmp_path):
    theirs = {"modelspec.author": "Ann", "modelspec.title": "Foxes", "modelspec.description": "Of Ann's."}
    whose = LoraWeights(of("sd1").modules, {**FOREIGN, **theirs})
    for format in ("kohya", "comfyui", "diffusers"):
        Adapter(whose, Facts(), "file-42").export(tmp_path / f"{format}.safetensors", format)
        told = read_metadata(tmp_path / f"{format}.safetensors")
        assert theirs.items() <= told.items() and not set(FOREIGN) & set(told)
    Adapter(whose, Facts(training={"pictures": 7}), "mine").export(tmp_path / "b.safetensors", "kohya")
    told = read_metadata(tmp_path / "b.safetensors")
    assert told["modelspec.title"] == "mine" and told["modelspec.author"] == "Ann"


def test_c_without_our_title_description_and_thumbnail_nothing_else_of_ours_takes_their_place(exported):
    endings = ("title", "display_name", "description", "image", "icon", "tags", "thumbnail")
    ours = [key for key in read_metadata(exported) if key.endswith(endings)]
    assert set(ours) == {"modelspec.title", "modelspec.description", "modelspec.thumbnail"}


def test_c_names_that_end_in_name_are_harmless_as_there_is_always_a_title(exported, tmp_path):
    """ComfyUI looks for `title` before `name`, the whole key before its end: `ss_output_name` and `ss_sd_model_name` would be
    shown only in a file without `modelspec.title`."""
    ending = {key for key in read_metadata(exported) if key.endswith("name")}
    assert ending == {"ss_output_name", "ss_sd_model_name"} and comfyui(exported)["title"] == "My style"
    for number, (family, format) in enumerate(CASES):
        path = tmp_path / f"{number}.safetensors"
        Adapter(of(family), FACTS, "My style").export(path, format)
        told = read_metadata(path)
        assert "modelspec.title" in told or not any(key.endswith("name") for key in told), (family, format)


@pytest.mark.parametrize("name", ["My style: v1", "стиль", "a/b\\c", "...", "", "<lora:x:1>", "ok_1.0-b"])
def test_d_stems_can_be_named_in_a_prompt(name):
    assert STEM.match(slug(name)) and re.fullmatch(r"<lora:([a-zA-Z0-9_.-]+):([0-9.]+)>", f"<lora:{slug(name)}:{0.8}>")
    assert slug("ok_1.0-b") == "ok_1.0-b"


@pytest.mark.parametrize(
    ("scale", "weight"), [(-0.8, 0.0), (0, 0.0), (1e-9, 0.0), (0.1 + 0.2, 0.3), (0.7 / 0.3, 2.3333), (1, 1.0)]
)
def test_d_the_preferred_weight_is_a_plain_number_that_is_not_negative(scale, weight, tmp_path):
    """A slider may be best the other way round: UIs take 0 for not set, and the note beside it says the scale."""
    path = tmp_path / "a.safetensors"
    Adapter(weights(), Facts(recommended={"scale": scale})).export(path, "kohya")
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside["preferred weight"] == weight and f"strength {scale}" in beside["notes"]
    assert re.fullmatch(r"[0-9.]+", re.search('"preferred weight": ([^,]+)', path.with_suffix(".json").read_text())[1])


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
