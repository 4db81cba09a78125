"""A base on the Hub at a revision and in a variant: what is fetched, what is loaded, what the adapter says of it."""

import json
import shutil

import pytest
import torch

from adapt.adapter import Facts
from adapt.backbones import Backbone
from adapt.card.usage import usage_of
from adapt.cli.main import main
from adapt.errors import BackboneError, SettingsError
from adapt.loading import at_hand, plain
from adapt.source import composed, find, identity, source, variant_of


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def half(make_tiny, tmp_path_factory):
    """A base of other weights in variant fp16 alone."""
    folder = tmp_path_factory.mktemp("half")
    make_tiny(seed=1).to(torch.float16).save_pretrained(folder, variant="fp16")
    return folder


@pytest.fixture
def known(hub, tiny_base, half):
    """`alice/base`: v1 holds plain weights of one base; on main there is an fp16 variant of another beside them, of the
    denoiser and the text encoder only."""
    from local_hub import Blob

    hub.put("alice/base", files_of(tiny_base))
    repository = hub["alice/base"]
    repository.tags["v1"] = repository.refs["main"]
    both = files_of(tiny_base) | {n: c for n, c in files_of(half).items() if ".fp16." in n and not n.startswith("vae")}
    repository.commit({n: Blob(c, n.endswith(".safetensors")) for n, c in both.items()}, "fp16 too")
    return repository


def first(backbone):
    return next(backbone.denoiser.parameters())


def test_a_variant_is_fetched_alone_and_loaded(known, tiny_base, half):
    backbone = Backbone.load("alice/base", variant="fp16")
    folder = find("alice/base:fp16")
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors")}
    assert there == {"unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.safetensors",
                     "vae/diffusion_pytorch_model.safetensors"}  # fmt: skip
    assert torch.equal(first(backbone), first(Backbone.load(f"{half}:fp16")))
    assert torch.equal(
        first(Backbone.load("alice/base")), first(Backbone.load(str(tiny_base)))
    )  # now that both are there
    assert torch.equal(first(Backbone.load("alice/base:fp16")), first(backbone))
    assert torch.equal(next(plain(backbone).unet.parameters()), first(backbone))


def test_a_denoisers_file_takes_the_rest_from_the_hub(known, tiny_base, half, tmp_path):
    """Whose own denoiser is not fetched."""
    file = tmp_path / "unet.safetensors"
    shutil.copy(half / "unet" / "diffusion_pytorch_model.fp16.safetensors", file)
    backbone = Backbone.load(f"{file}:alice/base@v1")
    folder = find(f"{file}:alice/base@v1")
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors")}
    assert there == {"text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"}
    assert torch.equal(first(backbone), first(Backbone.load(f"{half}:fp16")))
    assert identity(f"{file}:alice/base@v1") == {"reference": None}


def test_a_revision_is_that_commit(known, half):
    known.commit({}, "all gone")
    pinned = Backbone.load("alice/base", revision="v1")
    assert pinned.reference == "alice/base@v1"
    assert identity("alice/base@v1") == {"reference": "alice/base", "revision": "v1", "commit": known.tags["v1"]}
    with pytest.raises(BackboneError, match="no such revision") as error:
        find("alice/base@v9")
    assert "v1" in str(error.value)
    assert at_hand("alice/base@v1") and not at_hand("alice/base@v2") and not at_hand("alice/other")


def test_a_variant_that_is_not_there_is_said_before_weights_are_fetched(known, hub, tiny_base):
    hub.log.clear()
    with pytest.raises(BackboneError, match="no component has weights of the variant bf16"):
        find("alice/base:bf16")
    assert not any("safetensors" in line for line in map(str, hub.log))
    with pytest.raises(BackboneError, match="bf16"):
        find(f"{tiny_base}:bf16")


def test_train_records_it_and_generate_takes_it_from_there(known, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["steps=1", "batch_size=2", "rank=2", "validation=0", "previews=[a]", "sampling_steps=1", "save_every=1"]
    assert main(["train", str(pictures), "--base", "alice/base@main:fp16", "--output", "runs/a", *words]) == 0
    base = json.loads((tmp_path / "runs/a/adapter/adapter.json").read_text())["base"]
    assert (base["reference"], base["revision"], base["variant"]) == ("alice/base", "main", "fp16")
    assert base["commit"] == known.refs["main"]
    capsys.readouterr()
    words = ["generate", "--adapter", "runs/a", "--prompt", "a", "--steps", "1", "--device", "cpu", "--json"]
    assert main([*words, "--output", "a.png"]) == 0
    assert json.loads(capsys.readouterr().out)["base"] == "alice/base@main:fp16"


def test_the_cards_snippet_asks_for_the_same_files():
    facts = Facts(base={"reference": "o/n", "revision": "v1", "variant": "fp16", "commit": "0" * 40, "pipeline": "P"})
    assert facts.base_reference == "o/n@v1:fp16"
    made = 'P.from_pretrained("o/n", revision="v1", variant="fp16", use_safetensors=True)'
    assert made in usage_of(facts, "me/mine").load


def test_references(tiny_base, tmp_path):
    assert composed("o/n", "v1", "fp16") == composed("o/n@v1", None, "fp16") == "o/n@v1:fp16"
    assert composed("icons") == "icons" and composed(str(tiny_base), None, "fp16") == f"{tiny_base}:fp16"
    for words in (("icons", "v1"), (str(tiny_base), "v1"), ("o/n@v1", "v2"), ("o/n:fp16", None, "bf16")):
        with pytest.raises(SettingsError):
            composed(*words)
    assert identity(str(tiny_base)) == {"reference": None} and identity("icons") == {"reference": "icons"}
    names = (
        "model.safetensors",
        "model.fp16.safetensors",
        "model.fp16-00001-of-00002.safetensors",
        "a-00001-of-2.safetensors",
    )
    assert [variant_of(name) for name in names] == [None, "fp16", "fp16", None]
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    for file in copy.glob("unet/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert [file.name.count(".") for file in source(f"{copy}:fp16").weights("unet")] == [2]
