"""Rank, alpha and learning rate by layer: which pattern fits which name, who wins, and what fits nothing is refused."""

import pytest
import torch
from torch import nn

from adapt.config import TrainSettings
from adapt.config.network import NetworkSettings
from adapt.errors import SettingsError
from adapt.lora.layout import convolution_ends, fits, layout

WIDE = ("to_q", "conv1", "conv_in")
NAME = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize(
    "pattern",
    ["to_k", "attn2", "attn2.to_k", "down_blocks", "down_blocks.1", "attentions.0", NAME, "to_[qk]", r"down_blocks\.[12]",
     "^down_blocks", "(attn1|attn2)", ".*attn2.*", "to_k$", "attn2.to_."],
)  # fmt: skip
def test_whole_parts_of_a_name_and_expressions_for_them_fit(pattern):
    assert fits(pattern, NAME)


@pytest.mark.parametrize(
    "pattern", ["to_", "o_k", "attn", "blocks.1", "down_blocks.0", "^attn2", "to_k.lora", "own_blocks.1"]
)
def test_halves_of_parts_do_not(pattern):
    assert not fits(pattern, NAME)


def places(unet, targets=("to_q", "to_k", "conv1", "conv2", "proj_in"), **settings):
    return layout(unet, NetworkSettings(**{"rank": 8, **settings}), targets)


def test_the_first_pattern_that_fits_counts(plain):
    found = places(plain, rank_pattern={"attn2.to_q": 2, "to_q": 3, "down_blocks": 5})
    assert {place.rank for name, place in found.items() if name.endswith("attn2.to_q")} == {2}
    assert {place.rank for name, place in found.items() if name.endswith("attn1.to_q")} == {3}
    others = {n: place.rank for n, place in found.items() if not n.endswith("to_q")}
    assert {rank for name, rank in others.items() if name.startswith("down_blocks")} == {5}
    assert {rank for name, rank in others.items() if not name.startswith("down_blocks")} == {8}


def test_without_alpha_each_layers_is_its_own_rank_and_with_it_the_same_everywhere(plain):
    alone = places(plain, rank_pattern={"to_q": 2})
    assert {(place.rank, place.alpha) for place in alone.values()} == {(2, 2.0), (8, 8.0)}
    given = places(plain, rank_pattern={"to_q": 2}, alpha=4.0, alpha_pattern={"to_k": 1.5})
    alphas = {name.rpartition(".")[2]: place.alpha for name, place in given.items()}
    assert alphas == {"to_q": 4.0, "to_k": 1.5, "conv1": 4.0, "conv2": 4.0, "proj_in": 4.0}


def test_rank_0_leaves_a_layer_out(plain, unet, put, predict, teach):
    injection = teach(put(unet, WIDE, rank_pattern={"up_blocks": 0, "conv_in": 0}))
    left = set(injection.places)
    assert left and not any(name.startswith(("up_blocks", "conv_in")) for name in left)
    assert {n for n, m in unet.named_modules() if hasattr(m, "lora_A")} == left == set(injection.layers())
    with pytest.raises(SettingsError, match="leaves no layer"):
        places(plain, rank_pattern={".*": 0})


def test_convolutions_have_a_rank_of_their_own_but_1x1_are_linear(plain):
    found = places(plain, conv_rank=4, conv_alpha=1.0, alpha=2.0)
    by_end = {name.rpartition(".")[2]: (place.rank, place.alpha) for name, place in found.items()}
    assert by_end == {"to_q": (8, 2.0), "to_k": (8, 2.0), "proj_in": (8, 2.0), "conv1": (4, 1.0), "conv2": (4, 1.0)}
    assert isinstance(plain.get_submodule("down_blocks.1.attentions.0.proj_in"), nn.Conv2d)
    assert convolution_ends(plain) == ("conv", "conv1", "conv2")
    with pytest.raises(SettingsError, match="conv_rank"):
        places(plain, targets=("to_q", "proj_in"), conv_rank=4)


@pytest.mark.parametrize(
    ("setting", "pattern", "near"),
    [
        ("rank_pattern", "too_q", "to_q"),
        ("alpha_pattern", "down_block.1", "down_blocks.1"),
        ("learning_rate_pattern", "xyz", ""),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused_with_a_near_name(plain, setting, pattern, near):
    with pytest.raises(SettingsError, match=f"{setting}: '{pattern}' fits no layer") as refused:
        places(plain, **{setting: {"to_q": 1, pattern: 1}})
    assert (f"did you mean {near}?" in str(refused.value)) == bool(near)


@pytest.mark.parametrize("bad", ["(", "[a", "*x"])
def test_what_is_no_expression_is_refused(bad):
    with pytest.raises(ValueError, match="is no pattern"):
        NetworkSettings(rank_pattern={bad: 1})


@pytest.mark.parametrize(
    "wrong",
    [{"rank_pattern": {"a": -1}}, {"rank_pattern": {"a": 1.5}}, {"rank_pattern": {"a": True}}, {"rank_pattern": {"a": 4096}},
     {"alpha_pattern": {"a": 0}}, {"alpha_pattern": {"a": float("nan")}}, {"learning_rate_pattern": {"a": 0}},
     {"learning_rate_pattern": {"a": float("inf")}}, {"rank_pattern": {1: 2}}, {"rank_pattern": "to_q"}],
    ids=str,
)  # fmt: skip
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValueError, match="pattern"):
        NetworkSettings(**wrong)


# -------------------------------------------------------------------------------------------------------- learning rates
def test_groups_hold_every_parameter_once_in_the_order_of_the_patterns(unet, put):
    settings = TrainSettings(learning_rate=1e-3, learning_rate_pattern={"attn2": 5e-4, "to_q": 2e-3, "conv1": 5e-4})
    injection = put(unet, WIDE, learning_rate_pattern=settings.learning_rate_pattern)
    groups = injection.groups(settings)
    assert [factor for _, factor in groups] == [1.0, 0.5, 2.0]
    names = {id(p): name for name, p in injection.parameters.items()}
    listed = [[names[id(p)] for p in found] for found, _ in groups]
    assert sorted(name for found in listed for name in found) == sorted(names.values())
    assert all(found == sorted(found) for found in listed)
    assert all("attn2" in name or ".conv1" in name for name in listed[1])  # the first that fits: attn2 before to_q
    assert all("attn1.to_q" in name for name in listed[2])


def test_without_patterns_there_is_one_group_in_the_order_of_names(unet, put):
    injection = put(unet)
    ((found, factor),) = injection.groups(TrainSettings())
    assert factor == 1.0 and all(a is b for a, b in zip(found, injection.parameters.values(), strict=True))


def test_ranks_and_alphas_by_pattern_reach_the_layers(unet, put, teach, predict, plain):
    settings = {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"conv1": 1.0}, "alpha": 4.0, "rank": 3}
    injection = teach(put(unet, WIDE, **settings))
    found = {name.rpartition(".")[2]: (layer.rank, layer.alpha) for name, layer in injection.layers().items()}
    assert found["to_q"] == (2, 4.0) and found["conv1"] == (3, 1.0) and found["conv_in"] == (3, 4.0)
    for name, layer in injection.layers().items():
        theirs = unet.get_submodule(name).get_delta_weight("default")
        assert torch.allclose(layer.delta(), theirs, atol=1e-6), name
