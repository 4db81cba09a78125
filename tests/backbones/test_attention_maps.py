"""Attention maps are those that the network itself computes with, and computing them changes nothing."""

import pytest
import torch

from adapt.backbones.attention import INPUTS, KINDS, TOGETHER, Recorder, each_head, layers_of, require_layers
from adapt.backbones.columns import places_of
from adapt.errors import SettingsError
from conditioning import Condition

JOINT = ("stable-diffusion-3", "flux", "chroma", "flux2", "flux2-klein", "aura-flow")
KNOWN = ("stable-diffusion", "stable-diffusion-xl", "pixart-sigma", "sana", *JOINT)
PROMPT = "a red cat"


def asked(backbone, prompts, seed=0):
    """x_t, t and conditions, one row a prompt; every row has the same x_t."""
    x_t = torch.randn((1, *backbone.own_latents), generator=torch.Generator().manual_seed(seed))
    t = torch.full((len(prompts),), 500.0).to(torch.long if backbone.denoiser_name == "unet" else torch.float32)
    conditions = [backbone.condition([prompt]) for prompt in prompts]
    return x_t.expand(len(prompts), *x_t.shape[1:]), t, Condition.cat(conditions)


def values_of(layer, x, text):
    """What each place gets of what it looks at (B, heads, S, D), in the order of the keys."""
    kind = type(layer.processor).__name__
    if kind == "Flux2ParallelSelfAttnProcessor":
        parts = [layer.to_qkv_mlp_proj(x)[..., 2 * layer.inner_dim : 3 * layer.inner_dim]]
    elif kind == "JointAttnProcessor2_0":
        parts = [layer.to_v(x), layer.add_v_proj(text)]
    elif kind in TOGETHER:
        parts = [layer.to_v(x)] if text is None else [layer.add_v_proj(text), layer.to_v(x)]
    else:
        parts = [layer.to_v(text)]
    values = torch.cat(parts, 1)
    return values.view(*values.shape[:2], layer.heads, -1).transpose(1, 2)


def put_out(layer, x, mixed):
    """What the layer makes of it."""
    kind, start = type(layer.processor).__name__, x.shape[1] - mixed.shape[1]
    if kind == "Flux2ParallelSelfAttnProcessor":
        more = layer.mlp_act_fn(layer.to_qkv_mlp_proj(x)[:, start:, 3 * layer.inner_dim :])
        return layer.to_out(torch.cat([mixed, more], -1))
    return mixed if kind == "FluxAttnProcessor" and start else layer.to_out[0](mixed)


@pytest.mark.parametrize("name", KNOWN)
@torch.no_grad()
def test_the_maps_are_those_that_the_layers_compute_with(name, backbones):
    """Values mixed by our maps are what the layer gives back."""
    backbone = backbones(name)
    x_t, t, condition = asked(backbone, [PROMPT])
    length, seen = backbone.tokens_of(condition).tokens.shape[1], {}

    def remember(layer, args, kwargs, output):
        given = {**dict(zip(INPUTS, args, strict=False)), **kwargs}
        x, text, mask, rotary = (given.get(key) for key in INPUTS)
        look = KINDS[type(layer.processor).__name__](layer, x, text, mask=mask, rotary=rotary, length=length)
        values = values_of(layer, x, text)
        mixed = torch.cat([place @ values[:, head] for head, place in enumerate(each_head(look))], -1)
        whole = output[0] if isinstance(output, tuple) else output
        flat = x if x.ndim == 3 else x.flatten(2).mT
        seen[layer] = put_out(layer, flat, mixed), whole[:, flat.shape[1] - mixed.shape[1] :]

    layers = layers_of(backbone.denoiser)
    handles = [layer.register_forward_hook(remember, with_kwargs=True) for layer in layers.values()]
    backbone.predict(x_t, t, condition)
    for handle in handles:
        handle.remove()
    assert len(seen) == len(layers) > 0
    for ours, own in seen.values():
        assert ours.shape == own.shape and own.abs().max() > 1e-4
        torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", KNOWN)
@torch.no_grad()
def test_recording_changes_no_bit_and_every_look_is_counted_once(name, backbones):
    backbone = backbones(name)
    x_t, t, condition = asked(backbone, [PROMPT])
    recorder = Recorder(backbone, condition)
    for _ in range(2):
        assert recorder(x_t, t, condition).equal(backbone.predict(x_t, t, condition))
    maps = recorder.maps()
    assert set(maps) == set(layers_of(backbone.denoiser))
    for found in maps.values():
        assert found.shape[1] == backbone.tokens_of(condition).tokens.shape[1] + 1
        torch.testing.assert_close(found.sum(1), torch.ones(len(found)), atol=1e-5, rtol=0)
        assert found.min() > -1e-6
    assert all(
        (found[:, -1].mean() > 0.01) == (name in JOINT) for found in maps.values()
    )  # the picture looks at itself too
    assert not any(layer._forward_pre_hooks for layer in layers_of(backbone.denoiser).values())


@pytest.mark.parametrize("name", ["stable-diffusion", "sana"])
@torch.no_grad()
def test_only_the_rows_that_say_the_prompt_are_recorded(name, backbones):
    backbone = backbones(name)
    x_t, t, condition = asked(backbone, ["rain", PROMPT, ""])
    alone, among, never = (Recorder(backbone, backbone.condition([PROMPT])) for _ in range(3))
    alone(x_t[:1], t[:1], backbone.condition([PROMPT]))
    among(x_t, t, condition)
    never(x_t[:1], t[:1], backbone.condition(["rain"]))
    assert not never.maps()
    for layer, found in alone.maps().items():
        torch.testing.assert_close(among.maps()[layer], found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["lumina2", "z-image", "qwen-image", "wan"])
def test_families_whose_layers_are_not_known_are_refused(name, backbones):
    with pytest.raises(SettingsError, match="one sequence"):
        require_layers(backbones(name))


def test_a_base_that_is_told_a_class_has_no_words(backbones):
    with pytest.raises(SettingsError, match="told a class"):
        require_layers(backbones("dit"))


# ------------------------------------------------------------------------------------------------ tokens and characters
@pytest.mark.parametrize("name", KNOWN)
@torch.no_grad()
def test_columns_say_which_token_is_about_which_characters(name, backbones):
    """Another character changes the states of its own columns; in causal encoders no earlier one."""
    backbone = backbones(name)
    first, second = " a red cat", " a rod cat"
    place = first.index("e")
    spans = list(backbone.columns(first))
    about = [number for number, (start, end) in enumerate(spans) if start <= place < end]
    before = backbone.condition([first]).parts["text"]["tokens"]
    after = backbone.condition([second]).parts["text"]["tokens"]
    changed = (before != after).any(-1)[0].nonzero()[:, 0].tolist()
    assert about and set(about) <= set(changed)
    if name in ("stable-diffusion", "stable-diffusion-xl", "sana"):  # causal: nothing before it knows
        assert min(changed) == min(about)
    if name == "stable-diffusion-3":
        clip = backbone.pipeline.tokenizer_max_length
        assert [number < clip for number in about] == [True, False]
        assert min(changed) == min(about)
    assert all("".join(first[a:b]).strip() or (a, b) == (0, 0) or b - a == 1 for a, b in spans)


def test_a_learned_word_that_is_written_out_stands_for_its_own_characters():
    caption, text = "a <me> cat", "a <me> <me>_1 <me>_2 cat"
    places = places_of(text, caption)
    assert [caption[place] for place in places[:6]] == list("a <me>")
    assert {caption[place] for place in places[6:20]} <= set("<me> ")
    assert "".join(caption[place] for place in places[-4:]) == " cat"
