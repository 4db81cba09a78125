"""Classes: taught beside the network, drawn by name, grown to the bit, edited; each part has its own null and its own scale."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import RESULTS, content, tiny

import adapt
from adapt.adapter import Adapter
from adapt.api.class_tools import edited
from adapt.api.classes import balanced, put_in_classes
from adapt.api.network import settled_network
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.config import validate
from adapt.data import Picture
from adapt.data.augment import Augmentation
from adapt.errors import AdapterError, AdaptError, DataError, RunError, SettingsError
from adapt.sampling.classes import read, written
from adapt.training.step import with_taught

OWN = {"classes": True, "class_learning_rate": 3e-2, "class_dropout": 0.2, "previews": (), "ema": 0.0}
SHORT = {"steps": 4, "batch_size": 4, "validate_every": 2, "save_every": 2, **OWN}
LABELS = ("blue ball", "finch", "red-ball")


def draw_some(folder, label, count, seed):
    lot = np.random.default_rng(seed)
    (folder / label).mkdir(parents=True)
    for number in range(count):
        pixels = lot.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of 9, 6 and 4 pictures."""
    folder = tmp_path_factory.mktemp("classes")
    for seed, (label, count) in enumerate(zip(LABELS, (9, 6, 4), strict=True)):
        draw_some(folder, label, count, seed)
    return folder


@pytest.fixture(scope="module")
def result(data, tiny_base, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    return adapt.train(data, output=run, base=str(tiny_base), settings=tiny(**SHORT))


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    folder = tmp_path_factory.mktemp("more")
    draw_some(folder, "owl", 3, 9)
    return folder


@pytest.fixture(scope="module")
def grown(result, more, tiny_base, tmp_path_factory):
    settings = tiny(**{**SHORT, "grow_from": str(result.folder), "validation": 0.0})
    return adapt.train(more, output=tmp_path_factory.mktemp("runs") / "grown", base=str(tiny_base), settings=settings)


def drawn(base, adapter, **changes):
    base = base if isinstance(base, Backbone) else Backbone.load(str(base))
    asked = {"prompt": "", "steps": 2, "guidance_scale": 2.0, "count": 1, **changes}
    return [np.asarray(picture) for picture in adapt.generate(base, adapters=[adapter], **asked)]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------------------------------------- a whole run
def test_the_folder_holds_the_classes_and_says_so(result):
    adapter, folder = result.adapter, result.folder / "adapter"
    assert adapter.labels == LABELS
    assert Adapter.labels_of(result.folder) == LABELS
    told = json.loads((folder / "conditioning" / "class" / "config.json").read_text())
    assert told["labels"] == list(LABELS)
    assert adapter.facts.conditioning == {"class": {"labels": list(LABELS), "slot": "tokens", "shape": [4, 16]}}
    assert {sample["class"] for sample in adapter.facts.samples} == set(LABELS)
    assert "It draws 3 classes: blue ball, finch, red-ball." in (folder / "README.md").read_text()


def test_classes_are_learned_and_differ(result):
    classes = result.adapter.conditioners["class"]
    said = classes.encode([*LABELS, ""])["tokens"]
    assert min(float((said[i] - said[j]).abs().max()) for i in range(4) for j in range(i)) > 1e-3


def test_a_class_decides_the_picture_and_no_class_is_none_of_them(result, tiny_base):
    base = Backbone.load(str(tiny_base))
    pictures = drawn(base, result.adapter, class_name=["finch", "red-ball", ""])
    assert not any(np.array_equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])
    assert base.conditioners == {}


def test_a_card_tells_how_to_draw_a_class_as_code_that_runs(result, tiny_base, tmp_path, monkeypatch):
    text = (result.folder / "adapter" / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    shutil.copytree(result.folder / "adapter", tmp_path / result.folder.name)
    monkeypatch.chdir(tmp_path)
    known = {}
    exec(code.replace("folder-of-the-base", str(tiny_base)), known)
    assert known["picture"].size == (16, 16)
    assert f'--class "{LABELS[0]}"' in text


@pytest.mark.parametrize("cut", [2])
def test_a_resumed_run_gives_the_same_bytes(cut, result, data, tiny_base, tmp_path):
    settings = tiny(**SHORT)
    run = tmp_path / "run"
    shutil.copytree(result.folder, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    for part in ("adapter", "report.html"):
        shutil.rmtree(run / part) if (run / part).is_dir() else (run / part).unlink()
    adapt.train(data, output=run, base=str(tiny_base), settings=settings, existing="resume")
    assert content(run, *RESULTS, "words") == content(result.folder, *RESULTS, "words")


def test_the_order_of_labels_is_part_of_the_data(result, data, tiny_base, tmp_path):
    other, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, other)
    (other / "finch").rename(other / "Finch")
    shutil.copytree(result.folder, run)
    with pytest.raises(RunError, match="data"):
        adapt.train(other, output=run, base=str(tiny_base), settings=tiny(**SHORT), existing="resume")


# ---------------------------------------------------------------------------------------------- the step
class Pieces:
    """What a step looks at, around real parts."""

    def __init__(self, backbone, labels, settings, plan):
        self.backbone, self.settings, self.plan = backbone, settings, plan
        classes = put_in_classes(backbone, settings, LABELS)
        self.injection = type("Network", (), {"taught": {"class": classes}})()
        pictures = [Picture(str(i), None, b"", (), label) for i, label in enumerate(labels)]
        self.examples = type("Examples", (), {"pictures": pictures, "augmentation": Augmentation()})()


def test_every_row_is_told_its_own_class_and_dropped_rows_none(tiny_base):
    from adapt.data.plan import Plan

    backbone = Backbone.load(str(tiny_base))
    settings = tiny(**{**OWN, "caption_dropout": 0.2, "class_dropout": 0.2, "joint_dropout": 0.2})
    plan = Plan(seed=1, size=3, batch=60)
    pieces = Pieces(backbone, LABELS, settings, plan)
    classes = pieces.injection.taught["class"]
    with torch.no_grad():
        classes.conditioner.table.normal_()
    rows = plan.rows(0, range(60))
    condition = with_taught(pieces, rows, backbone.condition([""] * 60))
    u, null = rows.uniform("drop"), classes.conditioner.null(1)["tokens"][0]
    gone = (u >= 0.2) & (u < 0.6)
    assert 0 < int(gone.sum()) < 60
    for row, (item, dropped) in enumerate(zip(rows.items(), gone.tolist(), strict=True)):
        expected = null if dropped else classes.conditioner.encode([LABELS[item]])["tokens"][0]
        assert torch.allclose(condition.parts["class"]["tokens"][row], expected, atol=1e-6)


def test_rows_that_drop_a_class_that_is_added_keep_its_own_layers(result, tiny_base):
    from adapt.api.classes import own_layers
    from adapt.data.plan import Plan

    backbone, settings = Backbone.load(str(tiny_base)), tiny(**{**OWN, "class_dropout": 0.5})
    own = own_layers(result.adapter, backbone, ["owl"], tiny(**OWN, grow_from=str(result.folder)))
    pieces = Pieces(backbone, ["owl"], settings, plan := Plan(seed=1, size=1, batch=40))
    pieces.injection.taught["class"] = taught = put_in_classes(backbone, settings, ["owl"], result.adapter.classes, own)
    told = with_taught(pieces, rows := plan.rows(0, range(40)), backbone.condition([""] * 40)).parts["class"]
    dropped = (told["tokens"] == taught.conditioner.empty).flatten(1).all(1)
    assert 0 < int(dropped.sum()) < 40 == len(rows.items())
    assert (told["own"] == torch.tensor([0.0, 0.0, 0.0, 1.0])).all()


def test_the_base_is_told_no_class(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    condition = backbone.condition([""])
    classes = put_in_classes(backbone, tiny(**OWN), LABELS)
    with classes.disabled():
        assert classes.told(condition, ["finch"]) is condition
        assert classes.null(condition) == {}
    assert classes.told(condition, ["finch"]).parts.keys() == {"text", "class"}


def test_a_class_starts_as_what_the_encoder_makes_of_its_name(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    told = put_in_classes(backbone, tiny(**OWN, class_tokens=2), ["finch", "red-ball"]).conditioner
    said = told.encode(["red-ball"])["tokens"][0]
    assert torch.allclose(said, backbone.condition(["red ball"]).parts["text"]["tokens"][0, 1:3], atol=1e-5)
    null = put_in_classes(backbone, tiny(**OWN, class_start="null"), LABELS).conditioner
    assert torch.equal(null.encode(["finch"])["tokens"], null.null(1)["tokens"])


def test_balance_makes_classes_equal_and_keeps_the_length_of_an_epoch():
    pictures = [Picture(str(i), None, b"", (), label) for i, label in enumerate("aaaabbc")]
    pictures.append(Picture("p", None, b"", (), "a", prior=True))
    repeats = [1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 3.0]
    found = balanced(pictures, repeats)
    shares = {
        label: sum(f for f, p in zip(found, pictures, strict=True) if p.label == label and not p.prior)
        for label in "abc"
    }
    assert shares == pytest.approx(dict.fromkeys("abc", 8 / 3))
    assert found[2] == pytest.approx(2 * found[0])
    assert found[-1] == 3.0


# ---------------------------------------------------------------------------------------------- growth
def test_growing_teaches_the_new_class_and_keeps_the_old_ones_to_the_byte(grown, result, tiny_base):
    old, new = result.adapter, grown.adapter
    assert new.labels == (*LABELS, "owl")
    assert new.weights.equals(old.weights)
    assert [new.facts.training[name] for name in ("kind", "rank", "alpha")] == ["lora", 2, 2.0]
    base = Backbone.load(str(tiny_base))
    for scale in (None, 3.0):
        asked = {"class_name": [*LABELS, "", {"finch": 0.5, "red-ball": 0.5}], "class_scale": scale}
        assert same(drawn(base, new, **asked), drawn(base, old, **asked))
    a, b = new.conditioners["class"], old.conditioners["class"]
    assert torch.equal(a.embeddings[:3], b.embeddings)
    assert (a.embeddings[3] - b.embeddings.mean(0)).abs().max() > 1e-3


def test_a_class_that_is_added_changes_layers_for_itself_and_learns_as_its_adapter_did(grown, result):
    changes = grown.adapter.classes.own_layers.by_layer()
    assert changes.keys() == grown.adapter.weights.modules["unet"].keys()
    assert {change.number for found in changes.values() for change in found} == {3}
    assert all(bool(change.up.any()) for found in changes.values() for change in found)
    told = json.loads((grown.folder / "run.json").read_text())["settings"]
    assert told["learning_rate"] == result.adapter.facts.training["learning_rate"]


def test_an_optimizer_of_another_kind_does_not_take_over_the_learning_rate(result, tiny_base):
    base, asked = Backbone.load(str(tiny_base)), {"classes": True, "grow_from": str(result.folder)}
    assert settled_network(validate(asked), base)["learning_rate"] == 1e-2
    for other in ({"optimizer": "prodigy"}, {"learning_rate": 1e-4}):
        assert "learning_rate" not in settled_network(validate({**asked, **other}), base)


def test_a_batch_of_old_and_new_classes_draws_the_old_ones_as_before(grown, result, tiny_base):
    base = Backbone.load(str(tiny_base))
    mixed = drawn(base, grown.adapter, class_name=["finch", "owl", "red-ball"], class_scale=3.0, batch_size=3)
    alone = drawn(base, result.adapter, class_name=["finch", "", "red-ball"], class_scale=3.0, batch_size=3)
    assert same((mixed[0], mixed[2]), (alone[0], alone[2]))
    assert not same(mixed[1:2], alone[1:2])


def test_both_sides_of_guidance_are_told_of_a_class_s_own_layers(grown, tiny_base):
    base, seen = Backbone.load(str(tiny_base)), []

    def spy(predictors, x_t, moment, condition, negative):
        seen.append([told.parts["class"]["own"][:, 3].tolist() for told in (condition, negative)])
        return predictors["main"](x_t, moment.t.expand(len(x_t)), condition)

    drawn(base, grown.adapter, class_name=["owl", "finch"], guidance=spy, steps=1, batch_size=2, guidance_scale=None)
    assert seen == [[[1.0, 0.0], [1.0, 0.0]]]


def test_without_layers_of_its_own_a_class_is_its_tokens(result, more, tiny_base, tmp_path):
    settings = tiny(**{**SHORT, "steps": 1, "grow_from": str(result.folder), "validation": 0.0, "class_rank": 0})
    grown = adapt.train(more, output=tmp_path / "run", base=str(tiny_base), settings=settings)
    assert not grown.adapter.classes.own_layers.tensors
    with pytest.raises(ValueError, match=r"class_rank \(2\) is of grow_from"):
        tiny(**OWN, class_rank=2)


def test_a_class_that_changes_layers_of_another_base_is_refused_and_the_base_is_left_as_it_was(grown, tiny_base):
    base, own = Backbone.load(str(tiny_base)), {"0.no.layer.down": torch.ones(1, 3), "0.no.layer.up": torch.ones(3, 1)}
    strange = replace(grown.adapter, conditioners={"class": grown.adapter.classes.grown(["jay"], own=own)})
    before = [weight.clone() for weight in base.denoiser.parameters()]
    with pytest.raises(AdapterError, match=r"another base.*no\.layer"):
        strange.apply(base)
    assert all(map(torch.equal, base.denoiser.parameters(), before))
    assert base.conditioners == {}


def test_a_grown_run_resumes_to_the_byte(grown, more, tiny_base, tmp_path):
    run = tmp_path / grown.folder.name  # the card's title
    shutil.copytree(grown.folder, run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    settings = validate(json.loads((run / "run.json").read_text())["settings"])
    adapt.train(more, output=run, base=str(tiny_base), settings=settings, existing="resume")
    assert content(run, *RESULTS, "words") == content(grown.folder, *RESULTS, "words")


def test_classes_that_are_there_already_are_not_grown(result, data, tiny_base, tmp_path):
    settings = tiny(**{**SHORT, "grow_from": str(result.folder)})
    with pytest.raises(DataError, match=r"there already.*blue ball"):
        adapt.train(data, output=tmp_path / "run", base=str(tiny_base), settings=settings)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------- editing
def test_renamed_and_removed_classes_leave_the_others_the_same_pictures(result, tiny_base, tmp_path, capsys):
    out = tmp_path / "edited"
    asked = ["--rename", "finch=Buchfink", "--remove", "red-ball", "--output", str(out)]
    assert main(["classes", str(result.folder), *asked]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["blue ball", "Buchfink"]
    base, changed = Backbone.load(str(tiny_base)), Adapter.load(out)
    assert changed.facts.conditioning["class"]["labels"] == ["blue ball", "Buchfink"]
    assert same(drawn(base, changed, class_name="Buchfink"), drawn(base, result.adapter, class_name="finch"))


def test_two_that_grew_from_the_same_become_one(result, grown, tiny_base):
    other = edited(grown.adapter, rename={"owl": "eagle"}, remove=["finch"])
    both = edited(grown.adapter, merge=other)
    assert both.labels == (*LABELS, "owl", "eagle")
    base = Backbone.load(str(tiny_base))
    assert same(drawn(base, both, class_name="eagle"), drawn(base, grown.adapter, class_name="owl"))


def test_merging_from_the_command_line(result, grown, tiny_base, tmp_path, capsys):
    edited(grown.adapter, rename={"owl": "eagle"}, remove=["finch"]).save(tmp_path / "other")
    words = ["classes", str(grown.folder), "--merge", str(tmp_path / "other"), "--output"]
    assert main([*words, str(tmp_path / "both"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"classes": [*LABELS, "owl", "eagle"]}
    both, base = Adapter.load(tmp_path / "both"), Backbone.load(str(tiny_base))
    assert both.labels == Adapter.labels_of(tmp_path / "both") == (*LABELS, "owl", "eagle")
    assert same(drawn(base, both, class_name="eagle"), drawn(base, grown.adapter, class_name="owl"))
    assert same(drawn(base, both, class_name="finch"), drawn(base, result.adapter, class_name="finch"))
    edited(grown.adapter, remove=["finch"], rename={"owl": "finch"}).save(tmp_path / "clash")
    for other, message in ((tmp_path / "clash", "mean something else.*finch"), (tmp_path / "none", "none")):
        words = ["classes", str(result.folder), "--merge", str(other), "--output", str(tmp_path / "o")]
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and re.search(message, error), error
        assert not (tmp_path / "o").exists()


def test_two_adapters_with_classes_are_refused_before_anything_is_loaded(result, grown, tiny_base, tmp_path, capsys):
    """One at scale 0 says nothing."""
    common = ["generate", "--base", str(tiny_base), "--steps", "1", "--class", "finch", "--output", str(tmp_path / "o")]
    assert main([*common, "--adapter", str(result.folder), "--adapter", str(grown.folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search("two adapters with classes do not go together.*adapt classes", error)
    assert not (tmp_path / "o").exists()
    assert main([*common, "--adapter", str(result.folder), "--adapter", f"{grown.folder}:0"]) == 0


def test_adapters_trained_apart_and_clashes_are_refused(result, grown, data, tiny_base, tmp_path):
    apart = adapt.train(
        data, output=tmp_path / "r", base=str(tiny_base), settings=tiny(**{**SHORT, "steps": 1, "seed": 8})
    )
    with pytest.raises(AdapterError, match="trained apart"):
        edited(result.adapter, merge=apart.adapter)
    clashing = edited(grown.adapter, remove=["finch"], rename={"owl": "finch"})
    with pytest.raises(AdapterError, match=r"mean something else.*finch"):
        edited(result.adapter, merge=clashing)
    with pytest.raises(AdapterError, match="another adapter with such a conditioner"):
        drawn(tiny_base, result.adapter) if False else adapt.generate(
            Backbone.load(str(tiny_base)),
            prompt="",
            adapters=[result.adapter, apart.adapter],
            class_name="finch",
            steps=1,
        )


# ---------------------------------------------------------------------------------------------- scales
def test_the_whole_condition_is_guided_without_a_class_scale_and_each_part_with_one(result, tiny_base):
    base = Backbone.load(str(tiny_base))
    plain = drawn(base, result.adapter, class_name="finch", prompt="a", guidance_scale=1.0)
    neutral = drawn(base, result.adapter, class_name="finch", prompt="a", guidance_scale=1.0, class_scale=1.0)
    assert same(plain, neutral)
    settings = {"class_name": "finch", "prompt": "a"}
    found = [
        drawn(base, result.adapter, **settings, guidance_scale=g, class_scale=c)
        for g, c in ((1.0, 1.0), (3.0, 1.0), (1.0, 3.0), (3.0, 2.0), (3.0, None))
    ]
    assert not any(same(a, b) for i, a in enumerate(found) for b in found[:i])


def test_equal_scales_of_words_and_class_are_guidance_of_the_whole(result, tiny_base):
    base = Backbone.load(str(tiny_base))
    settings = {"class_name": "finch", "prompt": "a", "guidance_scale": 3.0}
    [apart], [whole] = (drawn(base, result.adapter, **settings, class_scale=scale) for scale in (3.0, None))
    assert np.abs(apart.astype(int) - whole.astype(int)).max() <= 1


def test_when_and_how_guidance_works_is_said_for_classes_too(result, tiny_base):
    base = Backbone.load(str(tiny_base))
    for asked in ({"class_name": "finch"}, {"class_name": "finch", "prompt": "a"}):
        neutral = drawn(base, result.adapter, **asked, class_scale=1.0, guidance_scale=1.0)
        early = drawn(
            base, result.adapter, **asked, class_scale=5.0, guidance_scale=1.0, guidance="cfg:stop=0.4", steps=2
        )
        whole = drawn(base, result.adapter, **asked, class_scale=5.0, guidance_scale=1.0)
        assert not same(early, whole)
        assert not same(early, neutral)
        never = drawn(
            base, result.adapter, **asked, class_scale=5.0, guidance_scale=1.0, guidance="cfg:start=0.6,stop=0.9"
        )
        assert same(never, neutral)


def test_without_words_only_the_class_guides(result, tiny_base):
    base = Backbone.load(str(tiny_base))
    loud = drawn(base, result.adapter, class_name="finch", class_scale=3.0, guidance_scale=5.0)
    assert same(loud, drawn(base, result.adapter, class_name="finch", class_scale=3.0, guidance_scale=1.0))


def test_at_scale_0_it_is_the_base_which_knows_no_classes(result, tiny_base):
    base = Backbone.load(str(tiny_base))
    bare = [np.asarray(p) for p in adapt.generate(base, prompt="a", steps=2, guidance_scale=2.0)]
    assert same(bare, drawn(base, (result.adapter, 0.0), prompt="a"))


def test_domain_guidance_asks_the_base_without_classes(result, tiny_base):
    base = Backbone.load(str(tiny_base))
    neutral = drawn(base, result.adapter, class_name="finch", guidance="domain:scale=1")
    assert same(neutral, drawn(base, result.adapter, class_name="finch"))
    assert not same(neutral, drawn(base, result.adapter, class_name="finch", guidance="domain:scale=2"))


# ---------------------------------------------------------------------------------------------- the command line
def test_generate_draws_each_class_and_names_files_after_it(result, tiny_base, tmp_path, capsys):
    common = ["--adapter", str(result.folder), "--base", str(tiny_base), "--steps", "1", "--output", str(tmp_path)]
    assert main(["generate", *common, "--class", "*", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["pictures"]
    assert [picture["class"] for picture in told] == list(LABELS)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["blue-ball-0.png", "finch-0.png", "red-ball-0.png"]
    assert main(["generate", *common, "--class", "finch:0.7,red-ball:0.3", "--prompt", "in snow"]) == 0
    assert "finch" in Image.open(next(tmp_path.glob("*in-snow*"))).info["parameters"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "fnich"], "no such class.*fnich.*did you mean finch"),
        (["--prompt", "a"], "draws classes, and none is given.*blue ball, finch, red-ball"),
        (["--class", "finch:1e9"], "share is out of range"),
        (["--class", "finch:nan"], "share is out of range"),
        (["--class", "finch,finch"], "given twice"),
        (["--class", "finch", "--class-scale", "-1"], "class_scale is out of range"),
        (["--class", "finch", "--class-scale", "inf"], "class_scale is out of range"),
    ],
)
def test_wrong_classes_are_one_line_before_anything_is_loaded(words, message, result, tiny_base, tmp_path, capsys):
    common = ["--adapter", str(result.folder), "--base", str(tiny_base), "--output", str(tmp_path / "o")]
    assert main(["generate", *common, *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert not (tmp_path / "o").exists()


def test_a_class_without_an_adapter_that_knows_some_is_refused(tiny_base, capsys):
    assert main(["generate", "--base", str(tiny_base), "--class", "finch"]) == 2
    assert "no adapter that knows classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_tokens": 2}, "class_tokens .2. is of classes=true"),
        ({"grow_from": "x"}, "grow_from .x. is of classes=true"),
        ({"classes": True, "class_dropout": 0.9, "joint_dropout": 0.5}, "more than 1"),
        ({"classes": True, "grow_from": "x", "init_from": "y"}, "init_from does not go with grow_from"),
        ({"classes": True, "grow_from": "x", "prior_prompt": "a dog"}, "prior_prompt does not go with grow_from"),
        ({"classes": True, "grow_from": "x", "init": "pissa"}, "init=pissa does not go with grow_from"),
        ({"classes": True, "grow_from": "x", "quantize": "nf4-bnb"}, "quantize=nf4-bnb does not go with grow_from"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        validate(changes)


def test_pictures_without_classes_are_named_before_step_1(captioned, data, tiny_base, tmp_path):
    with pytest.raises(DataError, match="pictures have no class"):
        adapt.train(captioned, output=tmp_path / "run", base=str(tiny_base), settings=tiny(**SHORT))
    with pytest.raises(DataError, match="all pictures are of one class"):
        draw_some(tmp_path / "one", "cat", 4, 0)
        adapt.train(tmp_path / "one", output=tmp_path / "run", base=str(tiny_base), settings=tiny(**SHORT))
    assert not (tmp_path / "run").exists()


def test_an_adapter_without_classes_has_none_to_edit_or_grow(captioned, more, tiny_base, tmp_path):
    plain = adapt.train(captioned, output=tmp_path / "p", base=str(tiny_base), settings=tiny(steps=1, validation=0.0))
    with pytest.raises(AdapterError, match="has no classes"):
        edited(plain.adapter, remove=["a"])
    with pytest.raises(AdaptError, match="no classes to add others to"):
        settings = tiny(**{**SHORT, "grow_from": str(plain.folder)})
        adapt.train(more, output=tmp_path / "run", base=str(tiny_base), settings=settings)


def test_nothing_learned_is_lost_in_silence(result, data, more, captioned, tiny_base, tmp_path):
    """What a run, an export or growth would leave behind is refused."""
    with pytest.raises(SettingsError, match=r"init_from has learned conditioners .class.*grow_from"):
        settings = tiny(**{**SHORT, "init_from": str(result.folder)})
        adapt.train(data, output=tmp_path / "run", base=str(tiny_base), settings=settings)
    for name in ("diffusers", "kohya"):
        with pytest.raises(AdapterError, match=r"one file cannot hold.*class"):
            result.adapter.export(tmp_path / "x.safetensors", name)
    both = tiny(**{**SHORT, "steps": 1, "image_prompts": True})
    with_images = adapt.train(data, output=tmp_path / "both", base=str(tiny_base), settings=both)
    timed = tiny(**{**SHORT, "steps": 1, "kind": "tlora", "dropout": 0.0})
    by_time = adapt.train(data, output=tmp_path / "timed", base=str(tiny_base), settings=timed)
    for grown, message in (
        (with_images, "more than a denoiser's layers.*image"),
        (by_time, "a T-LoRA cannot be grown"),
    ):
        with pytest.raises(AdapterError, match=message):
            settings = tiny(**{**SHORT, "grow_from": str(grown.folder)})
            adapt.train(more, output=tmp_path / "run", base=str(tiny_base), settings=settings)
    assert not (tmp_path / "run").exists() and not (tmp_path / "x.safetensors").exists()


def test_a_damaged_label_map_is_one_error(result, tmp_path, capsys):
    folder = tmp_path / "a"
    shutil.copytree(result.folder / "adapter", folder)
    (folder / "conditioning" / "class" / "config.json").write_text("{")
    assert main(["generate", "--adapter", str(folder), "--class", "finch"]) == 2
    assert "label map cannot be read" in capsys.readouterr().err
    with pytest.raises(AdapterError, match="holds no classes that can be read"):
        Adapter.load(folder)


@pytest.mark.parametrize("text", ["finch", "finch:0.7,canary:0.3", "a, b"])
def test_what_is_written_is_read_again(text):
    labels = ["finch", "canary", "a, b"]
    found = read(text, labels)
    assert read(written(found), labels) == found


def test_mixtures_in_their_forms():
    labels = ["finch", "canary", "x:1"]
    assert read("finch,canary", labels) == (("finch", 0.5), ("canary", 0.5))
    assert read({"finch": 2}, labels) == (("finch", 2.0),)
    assert read("x:1", labels) == (("x:1", 1.0),)
    assert read("  ", labels) == ()


def test_the_learning_rates_of_table_projector_and_network(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    settings = tiny(**OWN)
    groups = put_in_classes(backbone, settings, LABELS).groups(settings)
    assert [round(factor * settings.learning_rate, 6) for _, factor in groups] == [0.03, settings.learning_rate]
