"""Edit pairs: a run that learns from them, what its steps are told, how its adapter draws, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import RESULTS, content, tiny

import adapt
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import DataError, SettingsError

SHORT = {
    **{"steps": 4, "batch_size": 4, "validate_every": 2, "save_every": 2, "previews": (), "ema": 0.0, "flip": 0.5},
    **{"crop": "random", "variants": 2, "colour": 0.2, "source_dropout": 0.3},
}


@pytest.fixture(scope="module")
def result(pairs, tiny_editor, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return adapt.train(pairs, output=run, base=str(tiny_editor), settings=tiny(**SHORT))


# ---------------------------------------------------------------------------------------------- a whole run
def test_a_run_learns_from_pairs_and_its_adapter_edits(result, pairs, tiny_editor):
    base, picture = Backbone.load(str(tiny_editor)), pairs / "before" / "0.png"
    assert result.adapter.facts.base["pipeline"] == "StableDiffusionInstructPix2PixPipeline"
    assert result.adapter.facts.samples == () and not (result.folder / "adapter" / "samples").exists()
    assert (result.folder / "previews" / "step-000004" / "01.png").is_file()

    def drawn(**changes):
        asked = {"prompt": "negative", "image": picture, "steps": 2, "guidance_scale": 2.0, **changes}
        return np.asarray(adapt.generate(base, **asked)[0])

    found = [drawn(), drawn(adapters=[result.adapter]), drawn(image=pairs / "before" / "1.png")]
    found += [drawn(image_guidance_scale=3.0), drawn(prompt="snow")]
    assert not any(np.array_equal(a, b) for i, a in enumerate(found) for b in found[:i])
    assert np.array_equal(drawn(image_guidance_scale=1.5), found[0])


def test_a_resumed_run_gives_the_same_bytes(result, pairs, tiny_editor, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(result.folder, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    adapt.train(pairs, output=run, base=str(tiny_editor), settings=tiny(**SHORT), existing="resume")
    assert content(run, *RESULTS) == content(result.folder, *RESULTS)


# ---------------------------------------------------------------------------------------------- what a step is told
@pytest.fixture
def course(pairs, tiny_editor, tmp_path):
    from accelerate import Accelerator

    from adapt.api.assemble import assemble
    from adapt.api.gather import gather
    from adapt.api.settle import settle

    def made(**changes):
        backbone = Backbone.load(str(tiny_editor))
        settings = settle(tiny(**{**SHORT, **changes}), backbone)
        pictures = gather(pairs, settings, str(tiny_editor))
        return assemble(tmp_path, backbone, pictures.train, pictures.held_out, settings, Accelerator(cpu=True)).course

    return made


def test_source_and_picture_are_cut_coloured_and_mirrored_alike(course):
    """A picture and its negative stay negatives of each other in every view, when colours only change in brightness."""
    found = course(colour=0.0)
    assert found.examples._view(0, False, 1).box != found.examples._view(0, False, 0).box
    pixels, before = [], found.examples._before.encode
    found.examples._before = found.examples._before._replace(encode=lambda x: pixels.append(x) or before(x))
    encode = found.backbone.encode_media
    found.examples.encoder.encode_media = lambda x: pixels.append(x) or encode(x)
    for view in ((0, False, 0), (0, True, 1), (1, True, 0), (1, False, 1)):
        pixels.clear()
        number, seen = view[0], found.examples._view(*view)
        found.examples._encode_picture(number, seen)
        found.examples._encode_source(number, seen)
        torch.testing.assert_close(pixels[0], -pixels[1], atol=2 / 255, rtol=0)


def test_dropped_rows_have_zeros_and_the_others_their_own_source(course):
    from adapt.training.step import conditions, dropped_rows, views, with_source

    found, seen = course(source_dropout=0.25, joint_dropout=0.25, caption_dropout=0.25), set()
    for step in range(8):
        rows = found.plan.rows(step, range(4))
        told = with_source(found, rows, conditions(found, rows)).parts["source"]["latents"]
        gone = dropped_rows(found, rows)
        own = torch.stack([found.examples.source(*view)["latents"] for view in views(found, rows)])
        for row in range(4):
            expected = torch.zeros_like(own[row]) if gone["source"][row] else own[row]
            assert torch.equal(told[row], expected)
            seen.add((bool(gone["source"][row]), bool(gone["text"][row])))
    assert len(seen) == 4, "with words and picture, without either, without both"


def test_a_control_of_edits_is_taken_from_what_they_become_in_its_shape(pairs, tiny_editor):
    from adapt.api.previews import along_controls, over_sources
    from adapt.data import decode, find
    from adapt.data.decode import fit
    from adapt.sampling.request import Request, size_of

    backbone, pictures = Backbone.load(str(tiny_editor)), find(pairs).pictures
    asked = over_sources([Request(prompt="negative 3")], pictures)
    [found] = along_controls(asked, pictures, "edges", backbone)
    height, width = size_of(asked[0], backbone)
    assert found.control.size == (width, height) and width > height
    picture = next(each for each in pictures if each.plain == ("negative 3",))
    assert np.array_equal(np.asarray(found.control), fit(decode(picture.read()), width, height))


# ---------------------------------------------------------------------------------------------- what is refused
def test_pictures_without_their_source_are_named_before_anything_is_loaded(
    pairs, pictures, tiny_editor, tiny_base, tmp_path
):
    def refused(data, match, base=tiny_editor, kind=DataError, **changes):
        with pytest.raises(kind, match=match) as caught:
            adapt.train(data, output=tmp_path / "run", base=str(base), settings=tiny(**changes))
        assert "\n" not in str(caught.value)

    refused(pictures, "12 of 12 pictures have no source")
    refused(pictures, "no source of the same name.*00.png", source_folder=str(pairs / "before"))
    refused(pairs / "after", "no such folder of sources", source_folder="nowhere")
    refused(
        pairs, "source_folder is for bases that edit", tiny_base, SettingsError, source_folder=str(pairs / "before")
    )
    refused(pairs, "source_dropout is for bases that edit", tiny_base, SettingsError, source_dropout=0.1)
    refused(pairs, "prior_prompt asks the base by words alone", tiny_editor, SettingsError, prior_prompt="a dog")
    damaged = tmp_path / "damaged"
    shutil.copytree(pairs, damaged)
    Image.new("RGB", (32, 16)).save(damaged / "before" / "0.png")
    (damaged / "before" / "1.png").write_bytes(b"no picture")
    refused(damaged, "2 of 8 pictures cannot be used.*has a source of another shape.*has a source, before/1.png, that")
    (damaged / "before" / "2.png").unlink()
    refused(damaged, "Metadata names sources that are not there.*before/2.png")
    assert not (tmp_path / "run").exists()


def test_the_command_line_checks_trains_and_edits(pairs, tiny_editor, tmp_path, monkeypatch, capsys):
    """With the sources in a folder of the same names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pairs / "after", "after")
    shutil.copytree(pairs / "before", "before")
    for number in range(8):
        (tmp_path / "after" / f"{number}.txt").write_text("make it negative", "utf-8")
    base = ["--base", str(tiny_editor)]
    assert main(["check", "after", *base]) == 2
    assert "8 of 8 pictures have no source" in capsys.readouterr().err
    assert main(["check", "after", *base, "--source-folder", "before", "--exit-zero"]) == 0
    assert "8 pictures, captions from: sidecars" in capsys.readouterr().out
    words = ["steps=1", "batch_size=2", "rank=2", "sampling_steps=1", "preset=edit", "source_folder=before"]
    assert main(["train", "after", *base, "--output", "run", *words]) == 0
    facts = json.loads((tmp_path / "run/run.json").read_text("utf-8"))["settings"]
    assert (facts["source_dropout"], facts["caption_dropout"]) == (0.05, 0.05)
    common = ["generate", "--adapter", "run", "--prompt", "make it negative", "--steps", "2", *base]
    capsys.readouterr()
    assert main([*common, "--image", "before/0.png", "--image-guidance-scale", "2", "--output", "edit.png"]) == 0
    told = Image.open("edit.png").info["parameters"]
    assert "Image CFG scale: 2" in told and "Denoising strength" not in told
    for more, said in (
        ([], "the base edits pictures, and there is none"),
        (["--image", "before/0.png", "--strength", "0.5"], "strength is for drawing over a picture"),
        (["--image", "before/0.png", "--mask", "before/1.png"], "mask is for drawing over a picture"),
    ):
        capsys.readouterr()
        assert main([*common, *more]) == 2
        assert said in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- the card
def test_the_snippet_of_the_card_edits_in_diffusers(result, pairs, tiny_editor, tmp_path, monkeypatch):
    import re

    text = (result.folder / "adapter" / "README.md").read_text("utf-8")
    assert "--image picture.png" in text and "pipeline_tag: image-to-image" in text
    body = next(found for found in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    shutil.copy(pairs / "before" / "0.png", tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    address = re.search(r'load_lora_weights\("([^"]+)"', body)[1]
    body = body.replace("folder-of-the-base", str(tiny_editor)).replace(
        f'"{address}"', f'"{result.folder / "adapter"}"'
    )
    names = {}
    exec(body, names)
    ours = adapt.generate(
        Backbone.load(str(tiny_editor)), prompt="a picture", image="picture.png", adapters=[result.adapter], steps=1, width=24,
        height=16, guidance_scale=1.0,
    )[0]  # fmt: skip
    assert names["picture"].size == ours.size
    assert np.abs(np.asarray(names["picture"]).astype(int) - np.asarray(ours)).max() <= 1


def test_an_edit_is_explained_with_its_source_as_a_part(result, pairs, tiny_editor, tiny_base):
    base, asked = (
        Backbone.load(str(tiny_editor)),
        {"image": pairs / "before" / "0.png", "steps": 2, "guidance_scale": 2.0},
    )
    found = adapt.explain(base, "negative cat", adapters=[result.adapter], **asked)
    assert {(one.kind, one.name) for one in found.left_out} >= {("part", "text"), ("part", "source"), ("word", "cat")}
    assert all(one.distance > 0 for one in found.left_out)
    assert (
        found.picture.tobytes()
        == adapt.generate(base, prompt="negative cat", adapters=[result.adapter], **asked)[0].tobytes()
    )
    with pytest.raises(SettingsError, match="for bases that edit it"):
        adapt.explain(Backbone.load(str(tiny_base)), "a", image=asked["image"])


def test_a_sweep_of_words_alone_is_refused(result, tiny_editor):
    with pytest.raises(SettingsError, match="given a picture too"):
        adapt.sweep(Backbone.load(str(tiny_editor)), result.adapter, prompt="a")
