"""An explanation draws what `generate` draws, says what is computed, and leaves the base as it was."""

import html.parser
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from adapt.adapter import Adapter, Facts
from adapt.api.explain import explain
from adapt.api.generate import applied, generate
from adapt.backbones import Backbone
from adapt.backbones.features import features_of
from adapt.cli.main import main
from adapt.evaluation.explained import distance
from adapt.formats import LoraWeights, Pair
from adapt.report.explained import OTHER, block_of, kind_of
from adapt.report.overlay import overlay
from adapt.sampling.noise import generator_of
from conditioning import ClassConditioner, ImageConditioner

PROMPT = "a red cat"
DRAWN = {"steps": 3, "seed": 5, "guidance_scale": 4.0, "negative_prompt": "rain"}


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


@pytest.fixture(scope="module")
def adapters(backbone, tiny_base, tmp_path_factory):
    """Two folders of adapters, trained by nobody: of attention, and of the text encoder beside it."""
    found = []
    for seed, ends in enumerate([("to_q", "to_v"), ("to_k", "q_proj")]):
        torch.manual_seed(seed)
        weights = {}
        for component in ("unet", "text_encoder"):
            named = backbone.modules[component].named_modules()
            shapes = {n: m.weight.shape for n, m in named if n.endswith(ends)}
            pairs = {n: Pair(0.4 * torch.randn(2, i), 0.4 * torch.randn(o, 2), 2.0) for n, (o, i) in shapes.items()}
            weights |= {component: pairs} if pairs else {}
        base = {"reference": str(tiny_base), "family": backbone.family, "fingerprint": backbone.fingerprint()}
        folder = tmp_path_factory.mktemp("explained") / f"style-{seed}"
        Adapter(LoraWeights(weights), Facts(base=base)).save(folder)
        found.append(folder)
    return found


@pytest.fixture(scope="module")
def loaded(adapters):
    return [(Adapter.load(adapters[0]), 0.8), (Adapter.load(adapters[1]), 1.0)]


@pytest.fixture(scope="module")
def found(backbone, loaded):
    return explain(backbone, PROMPT, adapters=loaded, **DRAWN)


def same(picture, other):
    return np.array_equal(np.asarray(picture), np.asarray(other))


def test_the_picture_is_the_one_that_generate_draws_to_the_byte(found, backbone, loaded):
    assert same(found.picture, generate(backbone, prompt=PROMPT, adapters=loaded, **DRAWN)[0])
    alone = explain(backbone, PROMPT, leave_one_out=False, **DRAWN)
    assert same(alone.picture, generate(backbone, prompt=PROMPT, **DRAWN)[0])
    assert (alone.adapters, alone.times, alone.left_out, alone.another_seed) == ((), (), (), None)
    assert len(alone.looked) == 3


def test_the_base_is_afterwards_what_it_was(backbone, loaded, tiny_base):
    explain(backbone, "a", adapters=loaded, steps=1)
    fresh = Backbone.load(str(tiny_base))
    for name, module in fresh.modules.items():
        ours = backbone.modules[name].state_dict()
        assert all(ours[key].equal(value) for key, value in module.state_dict().items())


def test_looks_at_words_and_elsewhere_are_all_looks(found):
    assert [one.word.text for one in found.looked] == ["a", "red", "cat"]
    assert all(one.tokens and one.focus >= 1 and one.heat.min() >= 0 for one in found.looked)
    assert sum(one.share for one in found.looked) + sum(found.elsewhere.values()) == pytest.approx(1, abs=1e-4)


def test_what_is_left_out_is_what_generate_draws_without_it(found, backbone, loaded):
    pictures = {(one.kind, one.name): one for one in found.left_out}
    draw = {**DRAWN, "adapters": loaded}
    expected = {
        ("word", "red"): {**draw, "prompt": "a cat"},
        ("word", "cat"): {**draw, "prompt": "a red"},
        ("adapter", loaded[0][0].name): {**draw, "prompt": PROMPT, "adapters": loaded[1:]},
        ("adapter", loaded[1][0].name): {**draw, "prompt": PROMPT, "adapters": loaded[:1]},
        ("negative prompt", "rain"): {**draw, "prompt": PROMPT, "negative_prompt": ""},
        ("part", "text"): {**draw, "prompt": ""},  # this family's null is the encoding of nothing
    }
    assert set(pictures) == {*expected, ("word", "a")}
    for key, settings in expected.items():
        drawn = generate(backbone, **settings)[0]
        assert same(pictures[key].picture, drawn), key
        assert pictures[key].distance == distance(found.picture, drawn)
    other = generate(backbone, prompt=PROMPT, **{**draw, "seed": 6})[0]
    assert same(found.another_seed.picture, other)


def test_distance_is_0_for_the_same_and_1_for_black_and_white():
    black, white = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "white")
    assert (distance(black, black), distance(black, white)) == (0, 1)


def test_change_of_weights_is_that_of_the_weights_that_are_drawn_with(found, backbone, loaded):
    for told, (adapter, scale) in zip(found.adapters, loaded, strict=True):
        names = list(adapter.layers())
        modules = {f"{c}.{n}": m for c, each in backbone.modules.items() for n, m in each.named_modules()}
        before = {n: modules[n].weight.detach().clone() for n in names}
        with applied(backbone, [(adapter, scale)]):
            norms = {n: float((modules[n].weight - before[n]).norm()) for n in names}
        assert {one.name for one in told.layers} == set(names) and told.scale == scale
        stages = [s for one in told.layers if (s := re.search(r"down|mid|up_", one.name))]
        assert sorted({s[0] for s in stages}, key=[s[0] for s in stages].index) == ["down", "mid", "up_"]
        for one in told.layers:
            assert one.norm == pytest.approx(norms[one.name], rel=1e-4) and one.norm > 0
            assert one.relative == pytest.approx(norms[one.name] / float(before[one.name].norm()), rel=1e-4)


def test_change_of_the_prediction_is_that_between_base_and_adapters(found, backbone, loaded):
    """The first step begins with the picture's own noise."""
    assert len(found.times) == DRAWN["steps"]
    first = found.times[0]
    x_t = torch.randn((1, *backbone.own_latents), generator=generator_of(DRAWN["seed"]))
    t, predicted = torch.tensor([int(first.t)]), []
    for worn in ([], loaded):
        with applied(backbone, worn), torch.no_grad():
            predicted.append(backbone.predict(x_t, t, backbone.condition([PROMPT])))
    without, own = predicted
    assert first.relative == pytest.approx(float((own - without).norm() / without.norm()), rel=1e-3)
    assert first.relative > 1e-4
    nothing = explain(backbone, PROMPT, adapters=[(loaded[0][0], 0.0)], leave_one_out=False, **DRAWN)
    assert (
        max(one.relative for one in nothing.times) < 1e-5
    )  # rounding: a batch of two with guidance against one of one
    assert max(one.norm for one in nothing.adapters[0].layers) == 0


def test_words_that_are_cut_off_are_told(backbone):
    prompt = "abcdefghijklmnopqrstuvwxyz then"
    found = explain(backbone, prompt, leave_one_out=False, steps=1, prompt_syntax="plain")
    assert [one.tokens > 0 for one in found.looked] == [True, False]
    whole = explain(backbone, prompt, leave_one_out=False, steps=1)  # as `generate` reads it: in two chunks
    assert [one.tokens for one in whole.looked] == [26, 4]
    assert same(whole.picture, generate(backbone, prompt=prompt, steps=1)[0])


def test_what_adapters_tell_beside_words_is_looked_at_and_left_out_too(backbone, loaded):
    """A class of two tokens and a reference picture of three; the base without the adapter is told neither."""
    adapter, width = loaded[0][0], backbone.config["cross_attention_dim"]
    classes = ClassConditioner.new(["finch", "owl"], torch.ones(2, width), width=4)
    size = features_of(torch.zeros(backbone.own_latents)).numel()
    reference = ImageConditioner.new(size, torch.ones(3, width), "features", width=4)
    with torch.no_grad():
        classes.table.normal_(generator=generator_of(0))
        reference.up.normal_(generator=generator_of(1))
    worn = [(replace(adapter, conditioners={"class": classes, "image": reference}), 1.0)]
    asked = {"adapters": worn, "class_name": "owl", "image_prompt": Image.new("RGB", (16, 16), "red"), **DRAWN}
    found = explain(backbone, "red", **asked)
    assert [(one.word.text, one.tokens) for one in found.looked] == [("red", 3), ("[class]", 2), ("[image]", 3)]
    assert sum(one.share for one in found.looked) + sum(found.elsewhere.values()) == pytest.approx(1, abs=1e-4)
    assert found.title == "owl: red" and found.settings["class"] == "owl"
    pictures = {(one.kind, one.name): one.picture for one in found.left_out}
    parts = {("part", name) for name in ("text", "class", "image")}
    assert set(pictures) == parts | {("adapter", "style-0"), ("negative prompt", "rain")}
    assert same(found.picture, generate(backbone, prompt="red", **asked)[0])
    for key, settings in {
        ("part", "class"): {**asked, "class_name": ""},
        ("part", "image"): {**asked, "image_prompt": None},
        ("adapter", "style-0"): DRAWN,
    }.items():
        assert same(pictures[key], generate(backbone, prompt="red", **settings)[0]), key
    assert not backbone.conditioners
    assert found.times[0].relative > 1e-4


# ------------------------------------------------------------------------------------------------ page and command
class Page(html.parser.HTMLParser):
    """What a page loads, links to and shows."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.shown = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "action", "data")]
        self.shown += tag == "img"


def run(capsys, *words):
    code = main(["explain", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_writes_a_page_that_needs_nothing_else(adapters, tmp_path, capsys):
    there = tmp_path / "told"
    words = (f"{adapters[0]}:0.8", adapters[1], "--prompt", PROMPT, "--steps", 2, "--output", there, "--device", "cpu")
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    told = json.loads(out)
    page = (there / "explain.html").read_text("utf-8")
    seen = Page(page)
    assert seen.addresses and all(address.startswith("data:image/webp;base64,") for address in seen.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert seen.shown == 2 + 3 + len(told["left_out"]) + 1  # the picture twice, maps, drawings, the other seed
    names = {path.name for path in there.iterdir()}
    assert names == {path.rpartition("/")[2] for path in told["files"]}
    assert {"picture.png", "word-02-red.png", "explain.json", "seed-1.png"} <= names
    kept = json.loads((there / "explain.json").read_text("utf-8"))
    assert {k: v for k, v in kept.items() if k != "files"} == {k: v for k, v in told.items() if k != "files"}
    assert str(tmp_path) not in page.replace(str(adapters[0].parent.parent), "")
    # another explanation leaves no picture of the older one behind
    code, out, err = run(capsys, "--base", told["base"], "--prompt", "dog", "--steps", 1, "--no-leave-one-out",
                         "--output", there)  # fmt: skip
    assert code == 0, err
    assert {path.name for path in there.iterdir()} == {"explain.html", "explain.json", "picture.png", "word-01-dog.png"}
    assert "of looks" in out


BAD = {
    "no prompt": ([], "no prompt"),
    "word": (["--prompt", PROMPT, "--word", "cats"], "a, red, cat). Next: did you mean cat?"),
    "class": (["--prompt", PROMPT, "--class", "owl"], "classes=true"),
    "reference": (["--prompt", PROMPT, "--image-prompt", "none.png"], "none.png"),
    "steps": (["--prompt", PROMPT, "--steps", "0"], "steps"),
    "size": (["--prompt", PROMPT, "--size", "big"], "--size"),
    "device": (["--prompt", PROMPT, "--device", "gpu"], "--device"),
    "adapter": (["nowhere.safetensors", "--prompt", PROMPT], "nowhere"),
    "base": (["--prompt", PROMPT, "--base", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("case", BAD.items(), ids=lambda case: case[0])
def test_bad_input_is_one_line_before_anything_is_drawn(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words, told = case[1]
    code, out, err = run(capsys, *words)
    assert (code, out, err.count("\n")) == (2, "", 1) and told in err, err
    assert not list(tmp_path.iterdir())


def test_heat_is_hottest_where_most_looks_come_from_and_flat_maps_stay_faint():
    picture, heat = Image.new("RGB", (64, 64), "white"), np.full((4, 4), 0.1, np.float32)
    flat = np.asarray(overlay(picture, heat)).astype(int)
    assert flat.shape == (256, 256, 3) and np.ptp(flat) == 0
    heat[1, 2] = 0.3
    hot = np.asarray(overlay(picture, heat)).astype(int).sum(2)
    row, column = divmod(int(hot.argmax()), 256)
    assert (row // 64, column // 64) == (1, 2) and hot.max() > flat.sum(2).max() + 100


@pytest.mark.parametrize(
    ("name", "kind", "block"),
    [
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", "attention to the text", "down 1"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "attention", "mid"),
        ("unet.up_blocks.0.attentions.0.transformer_blocks.0.ff.net.2", "feed-forward", "up 0"),
        ("unet.conv_in", OTHER, "conv in"),
        ("transformer.transformer_blocks.7.attn.to_q", "attention", "block 7"),
        ("transformer.transformer_blocks.7.attn.add_k_proj", "attention to the text", "block 7"),
        ("transformer.single_transformer_blocks.3.attn.to_q", "attention", "single 3"),
        ("text_encoder.encoder.layers.0.self_attn.q_proj", "attention", "text encoder"),
    ],
)
def test_layers_are_called_by_what_they_do(name, kind, block):
    assert (kind_of(name), block_of(name)) == (kind, block)
