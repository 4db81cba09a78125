"""New words: rows of an embedding that are learned, exported for diffusers, drawn with, resumed to the byte."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders import TextualInversionLoaderMixin
from safetensors.torch import load_file
from tiny_runs import RESULTS, content, tiny

import adapt
from adapt import files
from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.backbones.stable_diffusion import StableDiffusion
from adapt.cli.main import main
from adapt.config import validate
from adapt.errors import AdapterError, SettingsError
from adapt.formats import LoraWeights
from adapt.formats.embeddings import read_embeddings, write_embeddings
from adapt.lora.words import Words, say_to, starts, teach
from adapt.training.step import conditions, row_losses

WORD = {"new_tokens": {"<me>": "cat"}, "trigger": "<me>", "ema": 0.0}
SHORT = {
    "steps": 4,
    "validate_every": 2,
    "save_every": 2,
    **WORD,
    "new_token_vectors": 2,
    "new_token_learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def result(captioned, tiny_base, tmp_path_factory):
    settings = tiny(**{**SHORT, "new_token_stop": 0.5})
    return adapt.train(
        captioned, output=tmp_path_factory.mktemp("words") / "run", base=str(tiny_base), settings=settings
    )


def said(backbone, text="a <me> here"):
    return backbone.condition([text]).parts["text"]["tokens"]


def learned(folder, step):
    return read_embeddings(folder / "words" / f"step-{step:06d}")["<me>"]["text_encoder"]


# ---------------------------------------------------------------------------------------------- a whole run
def test_diffusers_loads_the_word_and_hears_the_same(result, tiny_base):
    adapter, folder = result.adapter, result.folder / "adapter"
    file = folder / "embeddings" / "me.safetensors"
    assert {name: tuple(t.shape) for name, t in load_file(file).items()} == {"<me>": (2, 16)}
    assert adapter.facts.words == {
        "<me>": {"file": "embeddings/me.safetensors", "vectors": 2, "encoders": ["text_encoder"]}
    }
    assert adapter.facts.loads_in == ("adapt", "diffusers") and result.proof.difference <= 1e-5 < result.proof.effect
    backbone, pipeline = Backbone.load(str(tiny_base)), StableDiffusionPipeline.from_pretrained(tiny_base)
    line = next(line for line in (folder / "README.md").read_text().splitlines() if "load_textual_inversion" in line)
    exec(line.replace('"run"', repr(str(folder))), {"pipeline": pipeline})
    before, tokenizer = said(backbone), backbone.pipeline.tokenizer
    with adapter.apply(backbone):
        ours = said(backbone)
    assert torch.equal(ours, said(StableDiffusion(pipeline, "theirs"))) and not torch.allclose(ours, before)
    assert torch.equal(said(backbone), before) and backbone.pipeline.tokenizer is tokenizer


def test_it_is_resumed_to_the_same_bytes(result, train, tmp_path):
    cut = shutil.copytree(result.folder, tmp_path / "b" / "run")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    (cut / "snapshots" / "step-000004.safetensors").unlink()
    train(cut, existing="resume")
    assert content(cut, *RESULTS, "words") == content(result.folder, *RESULTS, "words")


def test_it_learns_from_its_start_and_stays_after_its_share(result, tiny_base):
    start = starts(Backbone.load(str(tiny_base)).pipeline, "<me>", "cat", 2, 3)["text_encoder"]
    half, end = learned(result.folder, 2), learned(result.folder, 4)
    assert torch.equal(half, end) and 1e-4 < (half - start).abs().max() < 0.1
    lora = [load_file(result.folder / "snapshots" / f"step-00000{step}.safetensors") for step in (2, 4)]
    assert not all(torch.equal(tensor, lora[1][name]) for name, tensor in lora[0].items())


def test_the_command_draws_with_it(result, tiny_base, tmp_path):
    words = ["--adapter", str(result.folder), "--base", str(tiny_base), "--steps", "2", "--guidance-scale", "1"]
    drawn = []
    for number, prompt in enumerate(("a <me>", "a cat")):
        out = tmp_path / f"{number}"
        assert main(["generate", *words, "--prompt", prompt, "--output", str(out)]) == 0
        drawn.append(next(out.rglob("*.png")).read_bytes())
    assert drawn[0] != drawn[1]


def test_a_run_goes_on_from_its_words_or_says_why_not(result, train, tmp_path):
    given = {"init_from": str(result.folder), "steps": 1, "ema": 0.0}
    with pytest.raises(SettingsError, match="new_token_vectors=2"):
        train(tmp_path / "a", **given)
    again = train(tmp_path / "b", **{**SHORT, **given, "learning_rate": 1e-9, "new_token_learning_rate": 1e-9})
    assert torch.allclose(
        again.adapter.words["<me>"]["text_encoder"], result.adapter.words["<me>"]["text_encoder"], atol=1e-6
    )


# ---------------------------------------------------------------------------------------------- the step
def test_only_the_rows_of_the_new_words_learn(course):
    run = course(moved=False, **WORD)
    table = run.backbone.pipeline.text_encoder.get_input_embeddings().known.weight
    before = table.clone()
    row_losses(run, run.plan.rows(0, range(4))).sum().backward()
    rows = run.injection.parameters["words:text_encoder"]
    assert rows.grad.abs().sum() > 0 and table.grad is None and torch.equal(table, before)
    assert run.injection.beside == [rows]


def test_the_base_takes_a_new_word_for_what_it_started_as(course):
    run = course(moved=False, **{**WORD, "new_tokens": {"<me>": "c"}})
    rows = run.injection.parameters["words:text_encoder"]
    rows.data += torch.linspace(-0.5, 0.5, 16)
    assert torch.allclose(run.hearing.base(["a <me>"]).parts["text"]["tokens"], said(run.backbone, "a c"), atol=1e-6)
    assert not torch.allclose(run.hearing(["a <me>"]).parts["text"]["tokens"], said(run.backbone, "a c"), atol=1e-3)
    run.injection.remove()
    assert "<me>" not in run.backbone.pipeline.tokenizer.get_vocab()
    assert isinstance(run.backbone.pipeline.text_encoder.get_input_embeddings(), torch.nn.Embedding)


def test_no_gradient_once_nothing_that_is_heard_is_learned(course):
    run = course(**WORD, train_text_encoder=True, text_encoder_stop=0.5, new_token_stop=0.5, steps=4)
    for step, learns in ((1, True), (2, False)):
        run.injection.move(step, range(4))
        assert conditions(run, run.plan.rows(step, range(4))).parts["text"]["tokens"].requires_grad == learns


# ---------------------------------------------------------------------------------------------- pipelines and files
class Two(TextualInversionLoaderMixin, SimpleNamespace):
    """Two encoders, as SDXL's pipeline has them."""

    hf_device_map = "cpu"  # nothing is sent anywhere


@pytest.fixture
def two(make_tiny):
    first, second = make_tiny(), make_tiny(seed=1, text_width=32)
    return Two(text_encoder=first.text_encoder, text_encoder_2=second.text_encoder, tokenizer=first.tokenizer,
               tokenizer_2=second.tokenizer)  # fmt: skip


def heard(pipeline, text):
    found = []
    for encoder, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        tokenizer = getattr(pipeline, tokenizer)
        ids = tokenizer(pipeline.maybe_convert_prompt(text, tokenizer), return_tensors="pt").input_ids
        with torch.no_grad():
            found.append(getattr(pipeline, encoder)(ids).last_hidden_state)
    return found


def test_two_encoders_get_a_row_each_and_share_a_file(two, tmp_path):
    before = heard(two, "a <me> b")
    taught = teach(two, {"<me>": "", "<it>": "cat"}, 2, seed=5)
    assert {name: tuple(p.shape) for name, p in taught.parameters.items()} == {
        "text_encoder": (4, 16),
        "text_encoder_2": (4, 32),
    }
    ours, words = heard(two, "a <me> <it>"), taught.words.vectors()
    taught.words.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, heard(two, "a <me> b"), strict=True))
    write_embeddings(tmp_path, words)
    assert set(load_file(tmp_path / "embeddings" / "me.safetensors")) == {"clip_l", "clip_g"}
    again = read_embeddings(tmp_path)
    assert all(torch.equal(again[w][c], t) for w, each in words.items() for c, t in each.items())
    for word, found in again.items():
        say_to(two, word, found, tmp_path)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, heard(two, "a <me> <it>"), strict=True))


def test_words_of_two_adapters_are_heard_together_and_leave_no_trace(tiny_base):
    backbone = Backbone.load(str(tiny_base))

    def make(word, seed):
        vector = torch.randn(1, 16, generator=torch.Generator().manual_seed(seed))
        return Adapter(LoraWeights({}), Facts(), words={word: {"text_encoder": vector}})

    before = said(backbone, "a <me> <it>")
    with make("<me>", 1).apply(backbone):
        one = said(backbone, "a <me>")
        with make("<it>", 2).apply(backbone):
            assert torch.equal(said(backbone, "a <me>"), one)
            assert not torch.allclose(said(backbone, "a <it>"), one)
        with pytest.raises(AdapterError, match="known to the tokenizer already"):
            make("<me>", 3).apply(backbone)
    assert torch.equal(said(backbone, "a <me> <it>"), before)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"<me>": torch.ones(1, 2), "<it>": torch.ones(1, 2)}, "no embedding of one word"),
        ({"<me>": torch.ones(1, 2, 3)}, "shape that no word has"),
        ({"<me>": torch.tensor([[float("nan")]])}, "not finite"),
    ],
)
def test_a_file_that_holds_no_word_is_refused(tmp_path, tensors, words):
    (tmp_path / "embeddings").mkdir()
    files.write(tmp_path / "embeddings" / "x.safetensors", files.safetensors_bytes(tensors, {}))
    with pytest.raises(AdapterError, match=words):
        read_embeddings(tmp_path)


def test_a_word_for_another_encoder_is_refused(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    with pytest.raises(AdapterError, match="another text encoder"):
        Words(backbone.pipeline, {"<me>": {"text_encoder": torch.ones(1, 8)}})
    assert "<me>" not in backbone.pipeline.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"new_tokens": "<me>=cat"}, "no caption has the new word <me>"),
        ({"new_tokens": {"two words": "cat"}}, "without spaces"),
        ({"new_tokens": {"<Me>": "cat"}}, "write <me>"),
        ({"new_tokens": {"<me>": "cat", "a<me>": "cat"}}, "another of them inside"),
        ({"new_tokens": {"a": "cat"}, "trigger": "a"}, "known to the tokenizer already"),
        ({"new_token_vectors": 2}, "is of new_tokens"),
    ],
)
def test_what_makes_no_sense_is_refused_before_step_1(train, tmp_path, settings, words):
    with pytest.raises(SettingsError, match=words):
        train(tmp_path / "run", settings=validate(settings))
    assert not (tmp_path / "run" / "run.json").exists()


def test_ways_to_write_it():
    expected = {"<me>": "cat", "<it>": "a dog"}
    for given in (expected, ["<me>=cat", "<it>=a dog"], ["<me> = cat", "<it>=a dog"]):
        assert validate({"new_tokens": given}).new_tokens == expected
    assert (
        validate({"new_tokens": "<me>"}).new_tokens
        == validate({"new_tokens": {"<me>": None}}).new_tokens
        == {"<me>": ""}
    )
