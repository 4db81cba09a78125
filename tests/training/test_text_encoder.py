"""Text encoders that are trained: heard live with gradients, saved, read by diffusers, resumed to the byte."""

import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from shares import record
from tiny_runs import RESULTS, content

import adapt
from adapt.adapter import Adapter
from adapt.api.judging import make_judge
from adapt.backbones import Backbone
from adapt.backbones.stable_diffusion import StableDiffusion
from adapt.cli.main import main
from adapt.data import EncodedPictures
from adapt.errors import SettingsError
from adapt.formats import read
from adapt.training.step import chosen, conditions, latents, row_losses

TRAINED = {"train_text_encoder": True, "text_encoder_learning_rate": 5e-3, "ema": 0.0}
SHORT = {"steps": 4, "validate_every": 2, "save_every": 2, **TRAINED}
KEY = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def result(captioned, tiny_base, tmp_path_factory):
    from tiny_runs import tiny

    settings = tiny(**{**SHORT, "text_encoder_stop": 0.5, "text_encoder_rank": 3, "rank_dropout": 0.2})
    return adapt.train(captioned, output=tmp_path_factory.mktemp("te") / "run", base=str(tiny_base), settings=settings)


def moved(tensors):
    return {name: tensor for name, tensor in tensors.items() if name.startswith("text_encoder") and "lora_B" in name}


# ---------------------------------------------------------------------------------------------- a whole run
def test_diffusers_takes_it_and_it_changes_what_is_said(result, tiny_base):
    adapter, folder = result.adapter, result.folder / "adapter"
    assert result.proof.difference <= 1e-5 < 1e-3 < result.proof.effect
    assert result.proof.layers == len(adapter.weights) > len(adapter.weights.modules["text_encoder"]) == 4
    assert {layer.rank for layer in adapter.weights.modules["text_encoder"].values()} == {3}
    assert adapter.facts.loads_in == ("adapt", "diffusers") and set(adapter.facts.lora) == {"unet", "text_encoder"}
    assert KEY in load_file(folder / "pytorch_lora_weights.safetensors")
    backbone, pipeline = Backbone.load(str(tiny_base)), StableDiffusionPipeline.from_pretrained(tiny_base)
    pipeline.load_lora_weights(folder)
    before = said(backbone)
    with adapter.apply(backbone):
        ours = said(backbone)
    assert (ours - said(StableDiffusion(pipeline, "theirs"))).abs().max() <= 1e-6 < 1e-4 < (ours - before).abs().max()
    assert torch.equal(said(backbone), before)


def said(backbone):
    return backbone.condition(["a red fox"]).parts["text"]["tokens"]


def test_it_is_resumed_to_the_same_bytes(result, train, tmp_path):
    cut = shutil.copytree(result.folder, tmp_path / "b" / "run")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    (cut / "snapshots" / "step-000004.safetensors").unlink()
    train(cut, existing="resume")
    assert content(cut, *RESULTS) == content(result.folder, *RESULTS)


def test_after_its_share_of_the_steps_it_stays_as_it_is(result):
    half, end = (load_file(result.folder / "snapshots" / f"step-00000{step}.safetensors") for step in (2, 4))
    assert all(torch.equal(tensor, end[name]) for name, tensor in half.items() if name.startswith("text_encoder"))
    assert moved(half) and all(tensor.any() for tensor in moved(half).values())
    assert not all(torch.equal(tensor, end[name]) for name, tensor in half.items())


def test_its_rate_is_its_own(train, tmp_path):
    """Adam's first step is as long as its rate: B starts from 0 and becomes ± the rate."""
    settings = {**SHORT, "steps": 1, "warmup": 0, "schedule": "constant", "weight_decay": 0.0, "dropout": 0.0}
    weights = train(tmp_path / "run", **settings).adapter.weights.modules
    for component, rate in (("unet", 1e-2), ("text_encoder", 5e-3)):
        sizes = torch.cat([layer.up.abs().flatten() for layer in weights[component].values()])
        assert float(sizes.median()) == pytest.approx(rate, rel=0.02)


def test_no_state_of_text_comes_from_the_cache(train, tmp_path, monkeypatch):
    monkeypatch.setattr(EncodedPictures, "text", None)
    more = {"anchor_above": 0.7, "prior_prompt": "a picture", "shuffle_tags": True, "preview_every": 2}
    result = train(tmp_path / "run", **{**SHORT, "steps": 2, **more})
    assert result.proof.effect > 0 and (result.folder / "previews" / "step-000002" / "01.png").exists()


def test_a_run_goes_on_from_it_only_when_it_trains_as_much(result, train, tmp_path):
    given = {"init_from": str(result.folder), "steps": 1, "ema": 0.0}
    with pytest.raises(adapt.AdaptError, match=r"train_text_encoder=\[text_encoder\]"):
        train(tmp_path / "a", **given)
    own = {"text_encoder_rank": 3, "learning_rate": 1e-9, "text_encoder_learning_rate": 1e-9}
    again = train(tmp_path / "b", **{**SHORT, **given, **own})
    for name, layer in result.adapter.layers().items():
        assert torch.allclose(layer.down, again.adapter.layers()[name].down, atol=1e-6)


# ---------------------------------------------------------------------------------------------- the step
def test_gradients_are_those_of_the_loss(course):
    """Against a difference quotient along a random direction of the text encoder's parameters, in fp64."""
    run = course(**TRAINED, caption_dropout=0.5)
    for module in run.backbone.modules.values():
        module.double()
    parameters = {n: p for n, p in run.injection.parameters.items() if n.startswith("text_encoder:")}
    dice = torch.Generator().manual_seed(3)
    along = {n: torch.randn(p.shape, generator=dice, dtype=p.dtype) for n, p in parameters.items()}
    rows = run.plan.rows(0, range(4))
    row_losses(run, rows).sum().backward()
    slope = sum(float((parameters[n].grad * v).sum()) for n, v in along.items())
    found = []
    for sign in (1, -1):
        values = {n: p + (sign * 1e-4 * along[n] if n in along else 0) for n, p in run.injection.parameters.items()}
        with run.injection.holding({n: v.detach() for n, v in values.items()}), torch.no_grad():
            found.append(float(row_losses(run, rows).sum()))
    assert slope == pytest.approx((found[0] - found[1]) / 2e-4, rel=1e-4) and abs(slope) > 1e-4


def test_dropped_captions_are_heard_as_empty_ones(course):
    run = course(**TRAINED, caption_dropout=0.5)
    heard, encode = [], run.backbone.encode_text
    run.backbone.encode_text = lambda captions: heard.extend(captions) or encode(captions)
    rows = run.plan.rows(0, range(4))
    found, dropped = conditions(run, rows), rows.dropped(0.5).tolist()
    assert True in dropped and False in dropped
    assert heard == ["" if gone else caption for gone, caption in zip(dropped, chosen(run, rows), strict=True)]
    assert found.parts["text"]["tokens"].requires_grad
    null = run.backbone.null(1).parts["text"]["tokens"][0]
    for gone, tokens in zip(dropped, found.parts["text"]["tokens"], strict=True):
        assert torch.allclose(tokens, null, atol=1e-6) == gone


def test_the_base_is_asked_with_what_the_base_hears(course):
    """With an anchor at all times the loss is the distance from the base's own prediction of what the base hears."""
    run = course(**TRAINED, anchor_above=0.0, caption_dropout=0.0)
    rows = run.plan.rows(0, range(4))
    x, t = latents(run, rows), run.objective.times(rows.quantiles())
    x_t = run.objective.noised(x, rows.noise(x.shape[1:]), t)
    with torch.no_grad():
        found = row_losses(run, rows)
        own = run.backbone.predict(x_t, t, run.backbone.condition(chosen(run, rows)))
        with run.injection.disabled():
            base = run.backbone.predict(x_t, t, run.backbone.condition(chosen(run, rows)))
    assert torch.allclose(found, (own - base).square().flatten(1).mean(1), rtol=1e-4) and (found > 1e-6).all()


def test_the_prior_hears_the_words_as_they_are_learned(course):
    run = course(**TRAINED, prior_prompt="a picture")
    told = []
    predict = run.backbone.predict
    run.backbone.predict = lambda x_t, t, condition: told.append(condition) or predict(x_t, t, condition)
    x_t, t = torch.randn(4, 4, 8, 8), torch.tensor([1, 2, 3, 4])
    run.prior.losses(x_t, t).sum().backward()
    teacher, student = (c.parts["text"]["tokens"][0] for c in told)
    assert torch.equal(teacher, run.hearing.base(["a picture"]).parts["text"]["tokens"][0])
    assert torch.allclose(student, run.hearing(["a picture"]).parts["text"]["tokens"][0], atol=1e-6)
    assert not torch.allclose(student, teacher, atol=1e-4)
    assert any(p.grad is not None and p.grad.any() for p in run.injection.beside)


def test_held_out_pictures_are_measured_with_what_is_heard_now(course):
    run = course(**TRAINED, validation_times=2)
    judge = make_judge(run, run.examples)
    base, now = judge.held_out.base, judge.losses(judge.held_out, run.backbone)
    still = {
        n: p.detach() if n.startswith("text_encoder:") else torch.zeros_like(p)
        for n, p in run.injection.parameters.items()
    }
    with run.injection.holding(still):  # only what is said differs from the base
        heard = judge.losses(judge.held_out, run.backbone)
    assert not torch.allclose(heard, base, rtol=1e-6) and not torch.allclose(now, heard, rtol=1e-6)
    with run.injection.disabled():
        assert torch.equal(judge.losses(judge.held_out, run.backbone), base)


def test_pieces_of_a_batch_learn_what_the_whole_does(tiny_base, captioned):
    whole, pieces = (
        record(tiny_base, captioned, torch.float64, accumulation=n, batch_size=4, rank_dropout=0.2, **TRAINED)
        for n in (1, 4)
    )
    encoder = [name for name in whole["weights"] if name.startswith("text_encoder:")]
    assert len(encoder) == 8 and max(float(whole["weights"][name].abs().max()) for name in encoder) > 1e-3
    for name, weight in whole["weights"].items():
        assert float((weight - pieces["weights"][name]).abs().max()) <= 1e-9


# ---------------------------------------------------------------------------------------------- files
def test_kohyas_file_holds_it_and_is_read_by_diffusers_and_here(captioned, make_tiny, tmp_path):
    from tiny_runs import tiny

    base = tmp_path / "wide"
    make_tiny(text_width=768).save_pretrained(base)
    settings = tiny(**{**SHORT, "steps": 2, "text_encoder_alpha": 5.0,
                                      "text_encoder_targets": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1")})  # fmt: skip
    result = adapt.train(captioned, output=tmp_path / "style", base=str(base), settings=settings)
    assert "ComfyUI" in result.adapter.facts.loads_in
    file = result.folder / "adapter" / "kohya" / "style.safetensors"
    names = {name.partition(".")[0] for name in load_file(file) if name.startswith("lora_te")}
    ends = ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_out_proj", "mlp_fc1")
    assert names == {f"lora_te_text_model_encoder_layers_0_{end}" for end in ends}
    assert read(file).equals(result.adapter.weights)
    backbone, pipeline = Backbone.load(str(base)), StableDiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    with Adapter.load(file).apply(backbone):
        assert (said(backbone) - said(StableDiffusion(pipeline, "theirs"))).abs().max() <= 1e-5


def test_an_encoder_that_diffusers_cannot_load_comes_as_pefts_folders_and_is_said_before(pictures, tmp_path, capsys):
    words = ["train_text_encoder=true", "rank=2", "resolution=32", "targets=[attn2.to_q]"]
    words += ["steps=2", "batch_size=1", "sampling_steps=1", "previews=[a fox]"]
    assert main(["train", str(pictures), "--output", str(tmp_path / "run"), *words]) == 0
    told = capsys.readouterr().err
    assert "loads in adapt, peft" in told and told.index("loads in") < told.index("training")
    folder = tmp_path / "run" / "adapter"
    assert sorted(p.name for p in (folder / "peft").iterdir()) == ["text_encoder", "unet"]
    adapter = Adapter.load(folder)
    assert set(adapter.weights.modules) == {"unet", "text_encoder"} and adapter.loader == "peft"
    card = (folder / "README.md").read_text()
    for component in ("unet", "text_encoder"):
        assert f'PeftModel.from_pretrained(pipeline.{component}, "run", subfolder="peft/{component}")' in card
    weights = folder / "peft" / "text_encoder" / "adapter_model.safetensors"
    digest = adapter.digest
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert Adapter.digest_of(folder)[:10] != digest


# ---------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_text_encoder": ("text_encoder_9",)}, "did you mean text_encoder"),
        ({"text_encoder_rank": 4}, "train_text_encoder=true"),
        ({"train_text_encoder": True, "text_encoder_targets": ("query",)}, "targets match no layer"),
        ({"train_text_encoder": True, "text_encoder_stop": 0.0}, "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_step_1(train, tmp_path, settings, words):
    from adapt.config import validate

    with pytest.raises(SettingsError, match=words):
        train(tmp_path / "run", settings=validate(settings))
    assert not (tmp_path / "run").exists()


def test_no_family_encodes_captions_without_gradients():
    """`encode_text` is what a trained encoder is asked by; who draws or fills the cache turns gradients off."""
    from adapt.backbones import FAMILIES

    kinds = {entry.load() for entry in FAMILIES.values()}
    assert kinds and not [kind for kind in kinds if hasattr(kind.encode_text, "__wrapped__")]
