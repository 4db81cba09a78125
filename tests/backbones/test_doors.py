"""`adapt train` and `adapt generate` on a tiny folder of each family, from the command line; what they refuse."""

import json

import pytest
import torch
from PIL import Image
from tiny_families import (
    CASES,
    family_of,
    flux,
    flux2_klein,
    normalised_of,
    of_a_prior,
    of_one_size,
    one_by_one_of,
    picture_of,
)

from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.sampling.request import Request, settle

SETTINGS = ["steps=2", "batch_size=2", "rank=2", "validation=0.25", "validation_times=1", "previews=[a fox]",
            "sampling_steps=2", "validate_every=2", "save_every=2", "caption_dropout=0.5", "buckets=false"]  # fmt: skip


AT_ONCE = (
    "inpainting",
    "stable-diffusion",
    "stable-diffusion-xl",
    "stable-diffusion-3",
    "flux",
    "pixart-sigma",
    "z-image",
)
"""In `make test`; the others in the slow tests."""
OF_PICTURES = (picture_of, normalised_of, of_one_size, one_by_one_of, of_a_prior)
DISTILLED = ("flux-schnell",)  # taught beside an assistant: test_assistant.py
OF_PROMPTS = [
    name
    for name, case in CASES.items()
    if name not in DISTILLED and ((case.run in OF_PICTURES and case.frames == 1) or case.fills)
]
DOORS = [name if name in AT_ONCE else pytest.param(name, marks=pytest.mark.slow) for name in OF_PROMPTS]


@pytest.mark.parametrize("name", DOORS)
def test_train_and_generate(folders, pictures, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = str(folders(name))
    assert main(["train", str(pictures), "--base", base, "--output", "runs/a", *SETTINGS]) == 0
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["base"]["family"] == family_of(name)
    capsys.readouterr()
    words = ["generate", "--prompt", "a fox", "--steps", "2", "--base", base, "--device", "cpu", "--json"]
    assert main([*words, "--adapter", "runs/a", "--output", "with.png"]) == 0
    assert main([*words, "--output", "without.png"]) == 0
    with Image.open("with.png") as a, Image.open("without.png") as b:
        assert a.size == b.size == (CASES[name].side,) * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.edits])
def test_train_on_pairs_and_edit(folders, pairs, name, tmp_path, monkeypatch, capsys):
    """Pictures and sources in buckets, mirrored; captions dropped; measured, previewed, proved, drawn with."""
    monkeypatch.chdir(tmp_path)
    base, words = str(folders(name)), [word for word in SETTINGS if not word.startswith(("buckets", "previews"))]
    told = ["--base", base, "--output", "runs/a", *words, "buckets=true", "flip=0.5", "preset=edit"]
    assert main(["train", str(pairs), *told]) == 0
    facts = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())
    assert facts["base"]["family"] == family_of(name) and facts["samples"] == []
    assert (tmp_path / "runs/a/previews/step-000002/01.png").is_file()
    capsys.readouterr()
    words = [
        "generate",
        "--prompt",
        "negative",
        "--steps",
        "2",
        "--base",
        base,
        "--device",
        "cpu",
        "--adapter",
        "runs/a",
    ]
    for number in (0, 1):
        assert main([*words, "--image", str(pairs / "before" / f"{number}.png"), "--output", f"{number}.png"]) == 0
    with Image.open("0.png") as a, Image.open("1.png") as b:
        assert a.size == b.size and a.size[0] > a.size[1]
        assert a.tobytes() != b.tobytes()


@pytest.fixture(scope="module")
def schnell(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schnell")
    torch.manual_seed(0)
    flux(guidance=False).save_pretrained(folder)
    return str(folder)


def test_schnell_draws_and_is_not_trained(schnell, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(pictures), "--base", schnell, *SETTINGS]) == 2
    said = capsys.readouterr().err
    assert "cannot be trained" in said and "schnell" in said and "dev" in said
    words = ["generate", "--prompt", "a fox", "--steps", "1", "--base", schnell, "--device", "cpu", "--output", "a.png"]
    assert main(words) == 0
    assert main([*words, "--embedded-guidance", "3"]) == 2
    assert "no embedded guidance" in capsys.readouterr().err


def test_a_processor_is_read_by_its_tokenizer(folders, tmp_path):
    """Published Flux.2 dev has one, of a class that needs torchvision; what both say of a text is the same."""
    import shutil

    from transformers import ProcessorMixin

    class Processor(ProcessorMixin):
        def __init__(self, tokenizer):
            super().__init__(tokenizer, chat_template=tokenizer.chat_template)

    shutil.copytree(folders("flux2"), tmp_path / "base")
    index = json.loads((tmp_path / "base/model_index.json").read_text())
    index["tokenizer"] = ["transformers", "PixtralProcessor"]
    (tmp_path / "base/model_index.json").write_text(json.dumps(index))
    backbone = Backbone.load(str(tmp_path / "base"))
    expected = backbone.condition(["a fox", ""]).parts["text"]["tokens"]
    backbone.pipeline.tokenizer = Processor(backbone.pipeline.tokenizer)
    assert torch.equal(backbone.condition(["a fox", ""]).parts["text"]["tokens"], expected)


def test_distilled_klein_draws_and_is_not_trained(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    flux2_klein(distilled=True).save_pretrained("klein")
    refused(["train", str(pictures), "--base", "klein", *SETTINGS], capsys, "cannot be trained", "klein base")
    assert main(["bases", "klein"]) == 0
    assert "klein base" in " ".join(capsys.readouterr().out.split())
    drawing = settle(Request(prompt="a"), Backbone.load("klein"))
    assert (drawing.guidance_scale, drawing.steps) == (1.0, 4)
    words = ["generate", "--prompt", "a fox", "--steps", "1", "--base", "klein", "--device", "cpu", "--output", "a.png"]
    assert main([*words, "--size", "32"]) == 0
    with Image.open("a.png") as drawn:
        assert drawn.size == (32, 32)


def refused(words, capsys, *said):
    capsys.readouterr()  # what building a base has said
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    for word in said:
        assert word in error, error


def test_a_size_that_the_base_cannot_take(folders, pictures, tmp_path, monkeypatch, capsys):
    """Stable Diffusion 3 and AuraFlow have positions for 12 tokens a side, each 4 px wide."""
    monkeypatch.chdir(tmp_path)
    base = str(folders("stable-diffusion-3"))
    words = ["generate", "--prompt", "a", "--base", base, "--device", "cpu", "--size"]
    refused([*words, "64"], capsys, "sides up to 48 px")
    of_aura = [str(folders("aura-flow")) if word == base else word for word in words]
    refused([*of_aura, "64"], capsys, "sides up to 48 px")
    refused([*words, "30"], capsys, "multiples of 4")
    refused(["train", str(pictures), "--base", base, "resolution=64"], capsys, "sides up to 48 px")


def test_an_adapter_of_another_family(folders, tmp_path, monkeypatch, capsys, backbones):
    from adapt.adapter import Adapter, Facts
    from adapt.formats import LoraWeights, Pair

    monkeypatch.chdir(tmp_path)
    pair = Pair(torch.zeros(2, 16), torch.zeros(16, 2), 2.0)
    of_xl = backbones("stable-diffusion-xl")
    base = {"family": of_xl.family, "fingerprint": of_xl.fingerprint()}
    Adapter(LoraWeights({"unet": {"mid_block.attentions.0.proj_in": pair}}), Facts(base=base)).save("xl")
    words = ["generate", "--prompt", "a", "--adapter", "xl", "--device", "cpu", "--base"]
    refused([*words, str(folders("stable-diffusion"))], capsys, "another base", "stable-diffusion-xl")
    refused([*words, str(folders("flux"))], capsys, "another base")


def test_embedded_guidance_reaches_the_picture_and_its_text(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["generate", "--prompt", "a", "--steps", "1", "--base", str(folders("flux")), "--device", "cpu"]
    for value in ("1", "3.5"):
        assert main([*words, "--embedded-guidance", value, "--output", f"{value}.png"]) == 0
    assert main([*words, "--output", "own.png"]) == 0
    with Image.open("1.png") as low, Image.open("3.5.png") as high, Image.open("own.png") as own:
        assert low.tobytes() != high.tobytes()
        assert own.tobytes() == high.tobytes()
        assert "Distilled CFG Scale: 3.5" in high.info["parameters"]


def test_sd3_without_t5(tmp_path, monkeypatch, pictures):
    from tiny_families import stable_diffusion_3

    from adapt.backbones import Backbone

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    stable_diffusion_3(t5=False).save_pretrained("base")
    backbone = Backbone.load("base")
    assert backbone.text_components == ("text_encoder", "text_encoder_2")
    assert backbone.count_tokens("a cat")[1] == 24
    assert not backbone.condition(["a cat"]).parts["text"]["tokens"][:, 24:].any()
