"""Several adapters at once do what diffusers' `set_adapters` and peft's mixed models do with them live."""

import copy
import itertools

import diffusers
import numpy as np
import peft
import pytest
import torch

import adapt
from adapt.adapter import Adapter, Facts
from adapt.backbones import Backbone
from adapt.config.network import NetworkSettings
from adapt.formats import FILE_NAME, LoHa, LoKr, LoraWeights, Pair
from adapt.lora import Applied, install
from adapt.sampling.noise import generator_of

NAMES = ("attn1.to_q", "conv_in", "proj_in", "mid_block.resnets.0.time_emb_proj")
SCALES = {"a": 0.7, "b": 0.4, "c": -0.5}


@pytest.fixture(scope="module")
def backbone(tiny_base):
    return Backbone.load(str(tiny_base))


@pytest.fixture(scope="module")
def adapters(backbone):
    """A DoRA and two LoRAs, as if trained, on the same layers."""
    found = {}
    for seed, (name, kind) in enumerate({"a": "dora", "b": "lora", "c": "lora"}.items()):
        injection = install(backbone.denoiser, NetworkSettings(kind=kind, rank=2, alpha=3.0), NAMES, 0)
        dice = torch.Generator().manual_seed(seed)
        values = {n: (p + 0.2 * torch.randn(p.shape, generator=dice)).detach() for n, p in injection.parameters.items()}
        found[name] = Adapter(LoraWeights({"unet": injection.layers(values)}), Facts(), name)
        assert found[name].weights.kinds == {kind}
        injection.remove()
    return found


@pytest.fixture(scope="module")
def pipeline(tiny_base, adapters, tmp_path_factory):
    """diffusers', with all of them loaded from their files."""
    folder = tmp_path_factory.mktemp("saved")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    for name, adapter in adapters.items():
        adapter.save(folder / name)
        pipeline.load_lora_weights(folder / name, weight_name=FILE_NAME, adapter_name=name)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def predict(unet, width=16):
    dice = torch.Generator().manual_seed(1)
    x, tokens = torch.randn(2, 4, 8, 8, generator=dice), torch.randn(2, 24, width, generator=dice)
    return unet(x, torch.tensor([10, 800]), encoder_hidden_states=tokens, return_dict=False)[0]


@pytest.mark.parametrize("order", [*itertools.permutations("abc"), ("b", "c"), ("c",)], ids="".join)
def test_set_adapters_of_diffusers_does_the_same(backbone, adapters, pipeline, order):
    """diffusers scales what came before a DoRA with its lengths, so the DoRA is named first there; ours has no order."""
    pipeline.set_adapters(sorted(order), [SCALES[name] for name in sorted(order)])
    before, plain = backbone.denoiser.state_dict(), predict(backbone.denoiser)
    before = {name: tensor.clone() for name, tensor in before.items()}
    handles = [adapters[name].apply(backbone, SCALES[name]) for name in order]
    ours, theirs = predict(backbone.denoiser), predict(pipeline.unet)
    assert (ours - theirs).abs().max() <= 2e-5 < 1e-2 < (plain - theirs).abs().max()
    for handle in handles:
        handle.unload()
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.denoiser.state_dict().items())


def test_scales_that_change_during_the_run_are_set_adapters_again(backbone, adapters, pipeline):
    with adapters["b"].apply(backbone, 1.0) as one, adapters["c"].apply(backbone, 1.0) as two:
        for scales in ([0.1, 0.9], [1.5, 0.0], [-0.2, 0.3]):
            one.rescale(scales[0])
            two.rescale(scales[1])
            pipeline.set_adapters(["b", "c"], scales)
            assert (predict(backbone.denoiser) - predict(pipeline.unet)).abs().max() <= 2e-5


def test_generate_draws_what_the_pipeline_draws_with_several(backbone, adapters, pipeline):
    pipeline.set_adapters(["a", "b"], [0.7, 0.4])
    settings = {"prompt": "a fox", "guidance_scale": 3.0}
    theirs = pipeline(num_inference_steps=3, generator=generator_of(7), output_type="np", **settings).images[0]
    for pair in (("a", "b"), ("b", "a")):
        given = [(adapters[name], SCALES[name]) for name in pair]
        (ours,) = adapt.generate(backbone, adapters=given, steps=3, seed=7, **settings)
        assert np.abs(np.asarray(ours) / 255 - theirs).max() <= 1.5 / 255


# ------------------------------------------------------------------------------------------------------ peft's mixed models
def mixed(plain):
    """A LoHa, a LoKr and a LoRA of peft's own making in one model, and their layers as ours."""
    targets = ["attn1.to_q", "attn2.to_k"]
    torch.manual_seed(3)
    options = {"r": 2, "target_modules": targets, "init_weights": False}
    configs = {
        "a": peft.LoHaConfig(alpha=3, **options),
        "b": peft.LoKrConfig(alpha=4, **options),
        "c": peft.LoraConfig(r=2, lora_alpha=3, target_modules=targets, init_lora_weights=False),
    }
    model = peft.get_peft_model(copy.deepcopy(plain), configs["a"], adapter_name="a", mixed=True)
    for name in "bc":
        model.add_adapter(name, configs[name])
    model.set_adapter(list("abc"))
    return model.eval(), layers_of(model)


def layers_of(model):
    found = {"a": {}, "b": {}, "c": {}}
    for name, module in model.named_modules():
        own = f"unet.{name.removeprefix('base_model.model.').replace('.base_layer', '')}"
        if "a" in getattr(module, "hada_w1_a", {}):
            parts = (getattr(module, f"hada_w{n}_{side}")["a"].detach() for n in (1, 2) for side in "ab")
            found["a"][own] = LoHa(*parts, 3.0)
        for part in ("lokr_w1", "lokr_w1_a"):
            if "b" in getattr(module, part, {}):
                names = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")
                held = {
                    n: getattr(module, f"lokr_{n}")["b"].detach() for n in names if "b" in getattr(module, f"lokr_{n}")
                }
                found["b"][own] = LoKr(alpha=4.0, given_rank=2, **held)
        if "c" in getattr(module, "lora_A", {}):
            found["c"][own] = Pair(module.lora_A["c"].weight.detach(), module.lora_B["c"].weight.detach(), 3.0)
    return found


@pytest.mark.parametrize("order", [*itertools.permutations("abc")], ids="".join)
def test_kinds_that_diffusers_does_not_take_do_what_pefts_mixed_model_does(plain, unet, order):
    model, layers = mixed(plain)
    assert {name: len(each) for name, each in layers.items()} == dict.fromkeys("abc", len(layers["a"])) and layers["a"]
    for module in model.modules():
        for name in "abc":
            if name in getattr(module, "scaling", {}):
                module.scaling[name] *= SCALES[name]
    handles = [Applied({"unet": unet}, layers[name], SCALES[name]) for name in order]
    assert (predict(unet) - predict(model)).abs().max() <= 2e-5 < 1e-2 < (predict(plain) - predict(model)).abs().max()
    for handle in handles:
        handle.unload()
    assert torch.equal(predict(unet), predict(plain))
