"""Controls: null is the base to the bit, a map is a wider first layer, edges and colours, and a run that learns from them."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_runs import RESULTS, content, tiny

import adapt
from adapt.backbones import Backbone
from adapt.backbones.stem import hinted, stem_of
from adapt.cli.main import main
from adapt.config import validate
from adapt.data.controls import EXTRACTORS, colours, edges
from adapt.errors import AdapterError, SettingsError
from conditioning import Condition, ControlConditioner

OWN = {"control": "edges", "control_learning_rate": 3e-2, "previews": (), "ema": 0.0}
SHORT = {"steps": 4, "batch_size": 4, "validate_every": 2, "save_every": 2, **OWN}


@pytest.fixture(scope="module")
def result(captioned, tiny_base, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return adapt.train(captioned, output=run, base=str(tiny_base), settings=tiny(**SHORT))


def drawn(base, adapter, **changes):
    asked = {"prompt": "a", "steps": 2, "guidance_scale": 2.0, **changes}
    return np.asarray(adapt.generate(base, adapters=[adapter], **asked)[0])


# ---------------------------------------------------------------------------------------------- the conditioner
def test_a_map_is_what_a_wider_first_layer_would_add(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    stem = stem_of(backbone).convolution
    control = ControlConditioner(torch.randn(stem.weight.shape), "edges", stem.stride[0], int(stem.padding[0]))
    x, z = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    condition = Condition({"control": control.encode(list(z))})
    with hinted(backbone, condition), torch.no_grad():
        added = stem(x)
    wide = F.conv2d(torch.cat([x, z], 1), torch.cat([stem.weight, control.weight], 1), stem.bias, padding=1)
    assert torch.allclose(added, wide, atol=1e-5)


def test_pixels_are_cut_into_squares_and_none_of_them_is_lost(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    side = backbone.scale_factor
    control = ControlConditioner(torch.randn(5, 3 * side**2, 1, 1), "edges", padding=0, places=side)
    pixels = torch.rand(2, 3, 8 * side, 8 * side)
    said = control.encode(list(pixels))["map"]
    y, x = 3, 5
    square = pixels[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side]
    assert torch.allclose(said[:, :, y, x], square.flatten(1) @ control.weight.flatten(1).T, atol=1e-4)
    assert not control.encode([torch.zeros(3, 8 * side, 8 * side)])["map"].any()  # black is nothing
    with pytest.raises(ValueError, match="pixels of one size and 3 channels"):
        control.encode([torch.zeros(4, 8, 8)])
    with pytest.raises(ValueError, match="no squares of 2 × 2"):
        ControlConditioner(torch.randn(5, 3, 1, 1), "edges", places=2)


def test_files_say_what_is_looked_at_and_older_ones_are_read(tmp_path):
    for places, channels, schema in ((0, 4, 1), (2, 12, 2)):
        control = ControlConditioner(torch.randn(5, channels, 3, 3), "edges", places=places)
        control.save(tmp_path / str(places))
        told = json.loads((tmp_path / str(places) / "config.json").read_text())
        assert (told["schema"], told.get("places", 0)) == (schema, places)
        again = ControlConditioner.load(tmp_path / str(places))
        assert (again.places, again.channels) == (places, 3 if places else 4)
        assert torch.equal(again.having({}).weight, control.weight)
        assert again.having({}).places == places


def test_null_and_a_new_control_are_the_base_to_the_bit(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    control = ControlConditioner.new(stem_of(backbone).convolution.weight.shape, "edges")
    plain = backbone.condition(["a", "b"])
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([100, 700])
    before = backbone.predict(x, t, plain)
    for part in (control.null(2), control.encode([torch.randn(4, 8, 8), None]), control.encode([None, None])):
        assert torch.equal(backbone.predict(x, t, plain.replaced({"control": part})), before)


def test_dropped_rows_have_no_map():
    control = ControlConditioner(torch.randn(5, 4, 3, 3), "edges")
    condition = Condition({"control": control.encode([torch.randn(4, 8, 8)] * 2)})
    found = condition.drop({"control": torch.tensor([True, False])}, Condition({"control": control.null(2)}))
    assert torch.equal(found.parts["control"]["map"][0], torch.zeros(5, 8, 8))
    assert torch.equal(found.parts["control"]["map"][1], condition.parts["control"]["map"][1])


def test_controls_of_several_sizes_or_channels_are_named():
    control = ControlConditioner(torch.randn(5, 4, 3, 3), "edges")
    for wrong in ([torch.zeros(4, 8, 8), torch.zeros(4, 8, 9)], [torch.zeros(3, 8, 8)]):
        with pytest.raises(ValueError, match="one size and 4 channels"):
            control.encode(wrong)


# ---------------------------------------------------------------------------------------------- the extractors
@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_a_plain_picture_has_no_edges_and_its_own_colour(name):
    plain = torch.full((3, 16, 24), 0.25)
    expected = -1.0 if name == "edges" else 0.25
    assert torch.equal(EXTRACTORS[name](plain), torch.full_like(plain, expected))


def test_edges_are_where_brightness_steps_and_follow_the_picture():
    step = torch.cat([torch.full((3, 16, 8), -1.0), torch.full((3, 16, 8), 1.0)], 2)
    found = edges(step)
    assert (found[:, :, 7:9] == 1).all()
    assert (found[:, :, :6] == -1).all()
    assert torch.equal(edges(step.flip(2)), found.flip(2))
    assert torch.equal(edges(step.transpose(1, 2)), found.transpose(1, 2))


def test_colours_are_means_and_stay_when_taken_again():
    found = colours(torch.randn(3, 16, 32))
    assert torch.allclose(colours(found), found, atol=1e-6)
    assert len(torch.unique(found[0])) == 64


# ---------------------------------------------------------------------------------------------- a whole run
def test_a_control_is_learned_and_decides_the_picture(result, captioned, tiny_base):
    adapter, base = result.adapter, Backbone.load(str(tiny_base))
    assert adapter.facts.conditioning["control"]["source"] == "edges"
    assert adapter.conditioners["control"].weight.abs().max() > 1e-3
    assert adapter.conditioners["control"].places == Backbone.load(str(tiny_base)).scale_factor
    first, second = sorted(captioned.rglob("*.png"))[:2]
    asked = ({}, {"control": first}, {"control": second}, {"control": first, "control_scale": 2.0})
    found = [drawn(base, adapter, **each) for each in asked]
    assert not any(np.array_equal(a, b) for i, a in enumerate(found) for b in found[:i])
    assert np.array_equal(found[0], drawn(base, adapter, control=first, control_scale=0.0))
    assert base.conditioners == {}


def test_an_adapter_at_nothing_leaves_room_for_the_control_of_another(result, captioned, tiny_base, control_net):
    from adapt.adapter.control_net import ControlNet

    base, first = Backbone.load(str(tiny_base)), min(captioned.rglob("*.png"))
    asked = {"control": first, "prompt": "a", "steps": 1, "guidance_scale": 2.0}
    with ControlNet.load(control_net).on(base):
        alone = adapt.generate(base, **asked)[0]
        beside = adapt.generate(base, adapters=[(result.adapter, 0.0)], **asked)[0]
        assert alone.tobytes() == beside.tobytes()
        with pytest.raises(AdapterError, match="another adapter with such a conditioner") as caught:
            adapt.generate(base, adapters=[result.adapter], **asked)
    assert "classes" not in str(caught.value)


def test_a_control_is_looked_at_once_a_batch_and_stands_on_both_sides(result, captioned, tiny_base, monkeypatch):
    base, first = Backbone.load(str(tiny_base)), min(captioned.rglob("*.png"))
    look, calls = EXTRACTORS["edges"], []
    monkeypatch.setitem(EXTRACTORS, "edges", lambda pixels: calls.append(1) or look(pixels))
    asked = {"control": first, "prompt": "", "guidance_scale": 3.0, "compose": [("", 1.0)]}
    guided = drawn(base, result.adapter, **asked)
    assert len(calls) == 1
    # Words and null are the same here: with the same control on both sides, guidance has nothing to push away from.
    plain = drawn(base, result.adapter, control=first, prompt="", guidance_scale=1.0)
    assert np.abs(guided.astype(int) - plain.astype(int)).max() <= 1


def test_a_resumed_run_gives_the_same_bytes(result, captioned, tiny_base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(result.folder, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    adapt.train(captioned, output=run, base=str(tiny_base), settings=tiny(**SHORT), existing="resume")
    assert content(run, *RESULTS, "words") == content(result.folder, *RESULTS, "words")


def test_the_command_line_follows_a_picture_and_says_what_is_wrong(result, captioned, tiny_base, tmp_path, capsys):
    first = str(min(captioned.rglob("*.png")))
    common = ["generate", "--base", str(tiny_base), "--steps", "1", "--output", str(tmp_path / "o")]
    assert main([*common, "--adapter", str(result.folder), "--control", first, "--control-scale", "0.5", "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["pictures"][0]["path"]
    assert "Control: scale 0.5" in Image.open(path).info["parameters"]
    assert main([*common, "--control", first, "--prompt", "a"]) == 2
    assert "nothing that draws along a control" in capsys.readouterr().err
    Image.new("RGB", (24, 16)).save(tmp_path / "wide.png")
    assert main([*common, "--adapter", str(result.folder), "--control", str(tmp_path / "wide.png")]) == 2
    assert "another size than the drawing (given: 24x16; allowed: 16x16)" in capsys.readouterr().err


def test_captions_are_left_out_in_half_of_the_rows_unless_the_user_says_how_often(tiny_base):
    from adapt.api.controls import settled_control

    for given, expected in (({"control": "edges"}, {"caption_dropout": 0.5}), ({}, {})):
        assert settled_control(validate(given)) == expected
    assert settled_control(validate({"control": "edges", "caption_dropout": 0.1})) == {}


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(SettingsError, match=r"control_dropout .0.3. is of control=edges"):
        validate({"control_dropout": 0.3})
    with pytest.raises(SettingsError, match="control does not go with grow_from"):
        validate({"classes": True, "grow_from": "x", "control": "edges"})
    with pytest.raises(SettingsError, match=r"control .edges.: with slider the base is shown no pictures"):
        validate({"slider": "young | old", "control": "edges"})


# ---------------------------------------------------------------------------------------------- maps of one's own
FILES = {"steps": 2, "batch_size": 4, "validate_every": 2, "save_every": 2, **OWN, "control": "files", "flip": 0.5,
         "crop": "random", "variants": 2, "colour": 0.2}  # fmt: skip


def test_files_are_controls_cut_and_mirrored_like_their_pictures_in_their_own_colours(pairs, tiny_base, tmp_path):
    from accelerate import Accelerator

    from adapt.api.assemble import assemble
    from adapt.api.gather import gather
    from adapt.api.settle import settle

    base = Backbone.load(str(tiny_base))
    settings = settle(tiny(**FILES), base)
    found = gather(pairs, settings, str(tiny_base))
    examples = assemble(tmp_path, base, found.train, found.held_out, settings, Accelerator(cpu=True)).course.examples
    picture = examples.pictures[0]
    assert picture.source is not None and picture.source.name.startswith("before/")
    for flip in (False, True):
        for variant in range(2):
            view = examples._view(0, flip, variant)
            with Image.open(pairs / picture.source.name) as control:
                pixels = torch.from_numpy(view.placed(control.convert("RGB")).copy()).permute(2, 0, 1) / 255
            torch.testing.assert_close(examples.control(0, flip, variant), pixels.float(), atol=1e-6, rtol=0)


def test_an_adapter_of_files_draws_along_the_map_as_it_is(pairs, tiny_base, tmp_path):
    settings = {k: v for k, v in FILES.items() if k not in ("crop", "variants", "colour")}
    result = adapt.train(pairs, output=tmp_path / "run", base=str(tiny_base), settings=tiny(**settings))
    assert result.adapter.facts.conditioning["control"]["source"] == "files"
    control = Image.open(pairs / "before" / "0.png").convert("RGB").resize((16, 16))
    base = Backbone.load(str(tiny_base))
    assert not np.array_equal(drawn(base, result.adapter, control=control), drawn(base, result.adapter))


def test_a_picture_without_its_map_is_named(pairs, captioned, tiny_base, tmp_path, capsys):
    common = ["--base", str(tiny_base), "--output", str(tmp_path / "run"), "--dry-run"]
    assert main(["train", str(captioned), *common, "control=files"]) == 2
    assert "have no source, and control=files draws along them" in capsys.readouterr().err
    assert main(["train", str(pairs), *common, "control=edges"]) == 0
    assert "which bases that edit and control=files use" in capsys.readouterr().out
    folder = ["control=files", f"source_folder={pairs / 'before'}"]
    assert main(["train", str(pairs / "after"), *common, *folder]) == 0


def test_a_base_that_edits_has_its_own_use_for_them(pairs, tiny_editor, tmp_path, capsys):
    words = ["train", str(pairs), "--base", str(tiny_editor), "--output", str(tmp_path / "run"), "control=files"]
    assert main(words) == 2
    assert "control=files takes the pictures that a base which edits is told" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- a ControlNet of one's own
NET = {**SHORT, "control_as": "controlnet", "control_learning_rate": 1e-2, "previews": ("a",)}


@pytest.fixture(scope="module")
def net_result(captioned, tiny_base, tmp_path_factory):
    run = tmp_path_factory.mktemp("nets") / "run"
    return adapt.train(captioned, output=run, base=str(tiny_base), settings=tiny(**NET))


def test_a_new_control_net_is_the_base_to_the_bit(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    plain, x, t = backbone.condition(["a"]), torch.randn(1, 4, 8, 8), torch.tensor([300])
    before = backbone.predict(x, t, plain)
    net = adapt.ControlNet.new(backbone, "edges", seed=0)
    with net.on(backbone):
        part = net.encode([(torch.rand(3, 16, 16), 1.0)])
        assert torch.equal(backbone.predict(x, t, plain.replaced({"control": part})), before)


def test_a_control_net_is_learned_whole_and_decides_the_picture(net_result, captioned, tiny_base):
    adapter, base = net_result.adapter, Backbone.load(str(tiny_base))
    assert (
        adapter.facts.conditioning["control"] | {"source": "edges", "network": "ControlNetModel"}
        == adapter.facts.conditioning["control"]
    )
    fresh = adapt.ControlNet.new(base, "edges", seed=3).learned
    learned = adapter.conditioners["control"].learned
    assert all(not torch.equal(learned[name], fresh[name]) for name in fresh if name.endswith("weight"))
    first, second = sorted(captioned.rglob("*.png"))[:2]
    found = [drawn(base, adapter, **each) for each in ({}, {"control": first}, {"control": second})]
    assert not any(np.array_equal(a, b) for i, a in enumerate(found) for b in found[:i])
    assert np.array_equal(found[0], drawn(base, adapter, control=first, control_scale=0.0))
    assert base.conditioners == {}


def test_its_files_are_diffusers_own(net_result, captioned, tiny_base):
    from diffusers import ControlNetModel

    folder = net_result.folder / "adapter" / "conditioning" / "control"
    network = ControlNetModel.from_pretrained(folder)
    learned = net_result.adapter.conditioners["control"].state()
    assert all(torch.equal(p, learned[name]) for name, p in network.named_parameters())
    base, first = Backbone.load(str(tiny_base)), min(captioned.rglob("*.png"))
    with adapt.ControlNet.load(folder).on(base):  # alone, as a published one; it knows that it wants edges
        alone = np.asarray(adapt.generate(base, prompt="a", steps=2, control=first)[0])
    assert not np.array_equal(alone, np.asarray(adapt.generate(base, prompt="a", steps=2)[0]))


def test_a_resumed_run_with_a_control_net_gives_the_same_bytes(net_result, captioned, tiny_base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(net_result.folder, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    adapt.train(captioned, output=run, base=str(tiny_base), settings=tiny(**NET), existing="resume")
    assert content(run, *RESULTS, "words") == content(net_result.folder, *RESULTS, "words")


def test_a_control_net_is_for_unets_and_said_before(tiny_base, captioned, tmp_path, capsys):
    with pytest.raises(SettingsError, match="control_as"):
        validate({"control_as": "controlnet"})
    words = ["train", str(captioned), "--base", str(tiny_base), "--output", str(tmp_path / "run"), "--dry-run"]
    assert main([*words, "control=edges", "control_as=controlnet", "shard=true"]) == 2
    assert "does not go with shard" in capsys.readouterr().err


def test_a_dry_run_counts_the_control_net(tiny_base, captioned, tmp_path, capsys):
    words = [
        "train",
        str(captioned),
        "--base",
        str(tiny_base),
        "--output",
        str(tmp_path / "run"),
        "--dry-run",
        "--json",
    ]
    trainable = []
    for kind in ("layer", "controlnet"):
        assert main([*words, "control=edges", f"control_as={kind}"]) == 0
        trainable.append(json.loads(capsys.readouterr().out)["forecast"]["trainable"])
    net = adapt.ControlNet.new(Backbone.load(str(tiny_base)), "edges", 0)
    assert trainable[1] - trainable[0] == sum(p.numel() for p in net.learned.values())
