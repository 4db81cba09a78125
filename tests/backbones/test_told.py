"""Weighted, chunked, blended and skipped text states: what they are equal to. Tokenizers are byte-level, so a word of n letters
is n tokens, and a chunk holds 22."""

import pytest
import torch
from tiny_families import stable_diffusion, stable_diffusion_xl

from adapt.backbones.readers import MOST_CHUNKS
from adapt.backbones.stable_diffusion import StableDiffusion
from adapt.backbones.stable_diffusion_xl import StableDiffusionXL
from adapt.backbones.told import chunks, nothing, require_readable, told
from adapt.errors import SettingsError
from adapt.prompts import Reading
from adapt.sampling.draw import draw, draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle

ROOM = 22
FULL = "abcdefghijk lmnopqrstuv"  # 22 letters


def _deep(pipeline):
    """With encoders of four layers, so that some can be left out."""
    torch.manual_seed(5)
    for name in [name for name in ("text_encoder", "text_encoder_2") if hasattr(pipeline, name)]:
        shallow = getattr(pipeline, name)
        made = type(shallow)(type(shallow.config)(**{**shallow.config.to_dict(), "num_hidden_layers": 4}))
        for p in made.parameters():
            torch.nn.init.normal_(p, std=0.2)
        setattr(pipeline, name, made)
        pipeline.register_modules(**{name: made})
    return pipeline


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def backbone(request):
    if request.param == "sd":
        return StableDiffusion(_deep(stable_diffusion()), "tiny")
    return StableDiffusionXL(_deep(stable_diffusion_xl()), "tiny")


def text(condition):
    return condition.parts["text"]


def same(a, b):
    assert set(text(a)) == set(text(b))
    return all(torch.equal(text(a)[key], text(b)[key]) for key in text(a))


def pipelines(backbone, prompts, clip_skip=None):
    """diffusers' own states of prompts."""
    given = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False, "clip_skip": clip_skip}
    if not hasattr(
        backbone.pipeline.text_encoder, "text_model"
    ):  # transformers 5 has no such level; diffusers asks for it
        backbone.pipeline.text_encoder.__dict__["text_model"] = backbone.pipeline.text_encoder
    try:
        found = backbone.pipeline.encode_prompt(list(prompts), **given)
    finally:
        backbone.pipeline.text_encoder.__dict__.pop("text_model", None)
    return {"tokens": found[0], **({"pooled": found[2]} if len(found) == 4 else {})}


def test_a_plain_prompt_has_the_pipelines_bytes_and_so_has_weight_1(backbone):
    prompts = ["a red fox", "", FULL, "fox: 1, 2!"]
    theirs, ours = pipelines(backbone, prompts), told(backbone, prompts)
    assert all(torch.equal(text(ours)[key], theirs[key]) for key in theirs)
    weighed = ["a (red:1.0) fo(x:1)", "", f"({FULL}:1)", "fox: 1, 2!"]
    assert same(told(backbone, weighed), ours)
    assert same(told(backbone, prompts, Reading("plain")), ours)


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_clip_skip_is_diffusers(backbone, clip_skip):
    prompts = ["a red fox", "owl"]
    theirs = pipelines(backbone, prompts, clip_skip)
    for syntax in ("weights", "plain"):
        ours = told(backbone, prompts, Reading(syntax, clip_skip))
        assert all(torch.equal(text(ours)[key], theirs[key]) for key in theirs)
    assert torch.equal(theirs["tokens"], text(told(backbone, prompts))["tokens"]) == (clip_skip == 0)


def test_the_null_comes_from_the_same_layer_where_it_is_a_text(backbone):
    skipped = nothing(backbone, 2, Reading(clip_skip=1))
    plain = backbone.null(2)
    if backbone.null_kind == "zeros":
        assert same(skipped, plain)
    else:
        assert torch.equal(text(skipped)["tokens"], pipelines(backbone, ["", ""], 1)["tokens"])
        assert not same(skipped, plain)


def test_a_weight_moves_its_own_tokens_away_from_saying_nothing(backbone):
    """e + w (z - e): linear in w, e at 0, z at 1; no other token moves, nor does the pooled state."""
    z, e = (text(told(backbone, [t]))["tokens"][0] for t in ("a fox", ""))
    for w in (0.0, 0.5, 1.5, 3.0):
        weighed = text(told(backbone, [f"a (fox:{w})"]))
        expected = torch.cat([z[:2], e[2:5] + w * (z[2:5] - e[2:5]), z[5:]])  # begin, a, then three letters
        torch.testing.assert_close(weighed["tokens"][0], expected, atol=1e-6, rtol=0)
        assert torch.equal(weighed["tokens"][0, 5:], z[5:]) and torch.equal(weighed["tokens"][0, :2], z[:2])
        if "pooled" in weighed:
            assert torch.equal(weighed["pooled"], text(told(backbone, ["a fox"]))["pooled"])
    up, down = (text(told(backbone, [t]))["tokens"] for t in ("a (fox)", "a [fox]"))
    torch.testing.assert_close(up[0, 2:5], e[2:5] + 1.1 * (z[2:5] - e[2:5]))
    torch.testing.assert_close(down[0, 2:5], e[2:5] + (z[2:5] - e[2:5]) / 1.1)


def test_a_chunk_is_a_prompt_of_its_own(backbone):
    first, second = FULL, "and an owl"
    whole = text(told(backbone, [f"{first} {second}"]))
    length = ROOM + 2
    assert whole["tokens"].shape[1] == 2 * length
    for number, part in enumerate((first, second)):
        alone = text(told(backbone, [part]))["tokens"]
        torch.testing.assert_close(whole["tokens"][:, number * length : (number + 1) * length], alone)
    broken = text(told(backbone, ["a fox BREAK and an owl"]))["tokens"]
    torch.testing.assert_close(broken[:, length:], text(told(backbone, [second]))["tokens"])
    if "pooled" in whole:
        torch.testing.assert_close(whole["pooled"], text(told(backbone, [first]))["pooled"])
    assert [chunks(backbone, t) for t in ("", first, first + "w", "a BREAK b")] == [1, 1, 2, 2]


def test_a_blend_lies_between_its_prompts(backbone):
    a, b = (told(backbone, [t]) for t in ("a fox", "(red:1.5) owl"))
    assert same(told(backbone, ["blend(a fox:1|(red:1.5) owl:0)"]), a)
    assert same(told(backbone, ["blend(a fox:0|(red:1.5) owl:5)"]), b)
    half = text(told(backbone, ["blend(a fox:1|(red:1.5) owl:3)"]))
    for key, x in half.items():
        torch.testing.assert_close(x, 0.25 * text(a)[key] + 0.75 * text(b)[key])
    rows = text(told(backbone, ["blend(a fox|owl)", "a fox", f"blend({FULL}w|owl:0)"]))["tokens"]
    assert rows.shape[:2] == (3, 2 * (ROOM + 2))


def test_the_drawing_is_the_pipelines_with_our_states(backbone):
    """Two chunks each, weighted, without a layer: as diffusers draws states that it is given."""
    prompt, negative = f"{FULL} (fox:1.4)", "(grey) and dull BREAK (bad:0.5)"
    settings = {"prompt": prompt, "negative_prompt": negative, "clip_skip": 1, "steps": 3, "guidance_scale": 4.0}
    ours = draw_latents(backbone, [settle(Request(seed=3, **settings), backbone)], [generator_of(3)])
    said, kept_away = (text(told(backbone, [t], Reading(clip_skip=1))) for t in (prompt, negative))
    names = {"tokens": "prompt_embeds", "pooled": "pooled_prompt_embeds"}
    given = {names[key]: x for key, x in said.items()} | {f"negative_{names[key]}": x for key, x in kept_away.items()}
    side = backbone.resolution
    theirs = backbone.pipeline(
        **given, height=side, width=side, num_inference_steps=3, guidance_scale=4.0, output_type="latent",
        generator=torch.Generator().manual_seed(3),
    ).images  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    plain = draw_latents(
        backbone,
        [settle(Request(seed=3, **{**settings, "negative_prompt": "grey and dull"}), backbone)],
        [generator_of(3)],
    )
    assert not torch.allclose(plain, ours, atol=1e-3)  # a shorter negative prompt goes through alone, and is heard


def test_prompts_of_other_lengths_share_no_batch(backbone):
    prompts = ("fox", f"{FULL} owl", "a BREAK b", "owl")
    drawings = [settle(Request(prompt=p, seed=s, steps=2), backbone) for s, p in enumerate(prompts)]
    together, alone = draw(backbone, drawings), [draw(backbone, [d])[0] for d in drawings]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(*(torch.tensor(list(x.tobytes())) for x in (a, b)), atol=1, rtol=0)


@pytest.mark.parametrize(
    ("prompt", "reading", "said"),
    [
        ("a (fox", Reading(), "not closed"),
        ("a " * ROOM * (MOST_CHUNKS + 1), Reading(), "longer than"),
        ("a", Reading(clip_skip=9), "leaves no layer"),
    ],
)
def test_what_cannot_be_told_is_refused_before_drawing(backbone, prompt, reading, said):
    with pytest.raises(SettingsError, match=said):
        require_readable(backbone, prompt, reading)


def test_elsewhere_brackets_are_text_and_too_many_tokens_are_refused(backbones):
    flux = backbones("flux")
    assert torch.equal(text(told(flux, ["(a:2)"]))["tokens"], text(flux.condition(["(a:2)"]))["tokens"])
    with pytest.raises(SettingsError, match="longer than the text encoder reads"):
        settle(Request(prompt="a" * 40), flux)
    settle(Request(prompt="a" * 40, prompt_syntax="plain"), flux)
    with pytest.raises(SettingsError, match="clip_skip is for"):
        settle(Request(prompt="a", clip_skip=1), flux)
