"""Reference pictures: a projector taught beside the network, alone and with classes; each part with its own null and scale."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import RESULTS, content, tiny

import adapt
from adapt.adapter import Adapter
from adapt.backbones import Backbone
from adapt.backbones.features import features_of
from adapt.cli.main import main
from adapt.config import validate
from adapt.errors import DataError, RunError, SettingsError
from adapt.training.step import dropout

OWN = {"image_prompts": True, "image_prompt_learning_rate": 3e-2, "previews": (), "ema": 0.0}
SHORT = {"steps": 4, "batch_size": 4, "validate_every": 2, "save_every": 2, **OWN}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, lot = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for label in ("finch", "owl"):
        (folder / label).mkdir()
        for number in range(6):
            pixels = lot.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def result(data, tiny_base, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return adapt.train(data, output=run, base=str(tiny_base), settings=tiny(**SHORT, classes=True))


def drawn(base, adapter, **changes):
    asked = {"prompt": "", "steps": 2, "guidance_scale": 2.0, "class_name": "owl", **changes}
    return np.asarray(adapt.generate(base, adapters=[adapter], **asked)[0])


def test_the_folder_holds_both_conditioners(result):
    adapter = result.adapter
    assert set(adapter.conditioners) == {"class", "image"}
    assert adapter.facts.conditioning["image"] == {"encoder": "latents 8 × 8", "shape": [8, 16]}
    assert adapter.conditioners["image"].up.abs().max() > 1e-3


def test_a_reference_decides_the_picture_each_scale_turns_its_own_part(result, data, tiny_base):
    base = Backbone.load(str(tiny_base))
    one, other = (data / label / "0.png" for label in ("finch", "owl"))
    asked = (
        {}, {"image_prompt": one}, {"image_prompt": other}, {"image_prompt": one, "image_prompt_scale": 3.0},
        {"image_prompt": one, "image_prompt_scale": 3.0, "class_scale": 3.0},
        {"image_prompt": one, "image_prompt_scale": 3.0, "class_scale": 3.0, "prompt": "a"},
    )  # fmt: skip
    found = [drawn(base, result.adapter, **each) for each in asked]
    assert not any(np.array_equal(a, b) for i, a in enumerate(found) for b in found[:i])
    assert np.array_equal(found[1], drawn(base, result.adapter, image_prompt=Image.open(one)))
    plain = drawn(base, result.adapter, image_prompt=one, guidance_scale=1.0)
    neutral = {"guidance_scale": 1.0, "class_scale": 1.0, "image_prompt_scale": 1.0}
    assert np.array_equal(plain, drawn(base, result.adapter, image_prompt=one, **neutral))
    assert base.conditioners == {}


def test_a_resumed_run_gives_the_same_bytes(result, data, tiny_base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(result.folder, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    adapt.train(data, output=run, base=str(tiny_base), settings=tiny(**SHORT, classes=True), existing="resume")
    assert content(run, *RESULTS, "words") == content(result.folder, *RESULTS, "words")


def test_features_are_those_of_the_picture_at_any_size():
    x = torch.randn(3, 8, 8)
    assert torch.equal(features_of(x), x.flatten())
    large = x.repeat_interleave(4, 1).repeat_interleave(2, 2)
    assert torch.allclose(features_of(large), x.flatten(), atol=1e-6)


def test_dropouts_are_of_parts_pairs_and_all():
    named = {"caption+class": 0.02, "caption+class+image": 0.03}
    settings = tiny(**OWN, classes=True, joint_dropout=named, class_dropout=0.15)
    assert dropout(settings, "text").rates == {
        ("text",): 0.3, ("class",): 0.15, ("image",): 0.1, ("text", "class"): 0.02, ("text", "class", "image"): 0.03,
    }  # fmt: skip
    assert dropout(tiny(**OWN), "text").rates == {("text",): 0.3, ("image",): 0.1, ("text", "image"): 0.05}
    assert dropout(tiny(), "text").rates == {("text",): 0.3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_prompt_tokens": 2}, "image_prompt_tokens .2. is of image_prompts=true"),
        ({"joint_dropout": 0.2}, "joint_dropout .0.2. is of classes=true, image_prompts=true, control=edges"),
        ({"classes": True, "joint_dropout": {"caption+image": 0.1}}, "image, which this run does not teach"),
        ({"classes": True, "joint_dropout": {"caption": 0.1}}, "several of caption, class, image"),
        ({"image_prompts": True, "image_prompt_dropout": 0.95}, "more than 1"),
        ({"image_prompts": True, "classes": True, "grow_from": "x"}, "image_prompts does not go with grow_from"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        validate(changes)


def test_the_command_line_takes_a_reference_and_says_what_is_wrong(result, data, tiny_base, tmp_path, capsys):
    common = ["generate", "--base", str(tiny_base), "--steps", "1", "--output", str(tmp_path / "o")]
    mine = ["--adapter", str(result.folder), "--class", "owl", "--image-prompt", str(data / "owl" / "0.png")]
    assert main([*common, *mine, "--image-prompt-scale", "2", "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["pictures"][0]["path"]
    assert "Image prompt: scale 2" in Image.open(path).info["parameters"]
    assert main([*common, "--image-prompt", str(data / "owl" / "0.png"), "--prompt", "a"]) == 2
    assert "nothing that takes a reference picture" in capsys.readouterr().err
    assert main([*common, *mine[:4], "--image-prompt-scale", "2"]) == 2
    assert "needs a reference picture" in capsys.readouterr().err
    assert main([*common, *mine[:4], "--image-prompt", "nowhere.png"]) == 2
    assert "nowhere.png" in capsys.readouterr().err


def test_an_adapter_reads_back_what_it_wrote(result, tmp_path):
    again = result.adapter.save(tmp_path / "a")
    assert again.digest == Adapter.load(tmp_path / "a").digest == result.adapter.digest
    (tmp_path / "a" / "conditioning" / "sound").mkdir()
    with pytest.raises(adapt.AdaptError, match="does not know"):
        Adapter.load(tmp_path / "a")


def test_a_column_says_by_which_picture_another_is_asked_for(captioned, tiny_base, tmp_path):
    """Cut anywhere and mirrored, a picture is asked for by its reference as that is: whole."""
    from accelerate import Accelerator

    from adapt.api.assemble import assemble
    from adapt.api.gather import gather
    from adapt.api.settle import settle
    from adapt.training.raw import references

    data, rows = tmp_path / "data", []
    (data / "photos").mkdir(parents=True)
    for number, path in enumerate(sorted(captioned.rglob("*.png"))[:4]):
        shutil.copy(path, data / f"{number}.png")
        Image.open(path).convert("RGB").rotate(90).resize((20, 30)).save(data / "photos" / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": "a", "image_prompt": f"photos/{number}.png"})
    (data / "photos" / "3.png").unlink()
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, [*rows[:3], {**rows[3], "image_prompt": None}])))
    base = Backbone.load(str(tiny_base))
    settings = settle(tiny(**{**SHORT, "validation": 0, "crop": "random", "variants": 2, "steps": 1}), base)
    found = gather(data, settings, str(tiny_base))
    assert [p.name for p in found.train] == [f"{n}.png" for n in range(4)]  # references are not trained
    examples = assemble(tmp_path, base, found.train, (), settings, Accelerator(cpu=True)).course.examples
    told = references(examples, [(0, True, 1), (0, False, 0), (3, True, 1)])
    photo = Image.open(data / "photos" / "0.png").convert("RGB").resize((16, 16), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(photo, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    expected = features_of(base.encode_media(pixels)[0][0])
    torch.testing.assert_close(told[0], expected, atol=1e-5, rtol=0)
    assert torch.equal(told[0], told[1])
    assert torch.equal(told[2], features_of(examples.latents(3, True, 1)[0]))


def test_a_run_is_not_resumed_with_other_references(captioned, tiny_base, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(captioned, data)
    (data / "photos").mkdir()
    names = [path.name for path in sorted(data.glob("*.png"))]
    for name in names:
        shutil.copy(data / name, data / "photos" / name)
    rows = [{"file_name": name, "text": "a", "image_prompt": f"photos/{name}"} for name in names]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for path in data.glob("*.txt"):
        path.unlink()
    settings = tiny(**{**SHORT, "validation": 0, "steps": 2, "save_every": 1})
    adapt.train(data, output=run, base=str(tiny_base), settings=settings)
    shutil.rmtree(run / "checkpoints" / "step-000002")
    Image.new("RGB", (16, 16), "red").save(data / "photos" / names[0])
    with pytest.raises(RunError, match="data"):
        adapt.train(data, output=run, base=str(tiny_base), settings=settings, existing="resume")


def test_references_that_are_not_there_are_named(captioned, tiny_base, tmp_path):
    from adapt.data import find

    shutil.copy(min(captioned.rglob("*.png")), tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a", "image_prompt": "b.png"}))
    with pytest.raises(DataError, match=r"references that are not there.*b.png"):
        find(tmp_path)
