"""Inpainting bases: a picture with a hole beside the noise. They equal their pipelines from noise in `test_contract.py`."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import CASES, holes, sources, stable_diffusion

from adapt.cli.main import main
from adapt.errors import DataError, SettingsError
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.pixels import to_pixels
from adapt.sampling.request import Request, settle

FILLING = [name for name, case in CASES.items() if case.fills]
filling = pytest.mark.parametrize("name", FILLING)


def drawn(backbone, **asked):
    request = Request(prompt="a cat", steps=4, guidance_scale=1.0, height=32, width=32, **asked)
    return draw_latents(backbone, [settle(request, backbone)], [generator_of(7)])


@filling
def test_part_of_the_way_it_starts_from_the_picture_as_its_pipeline_does(backbones, name):
    """The pipeline draws the masked picture's latents from the posterior too: here both take the most likely ones."""
    backbone, [picture, _], [mask, _] = backbones(name), sources(), holes()
    pipeline, vae = backbone.pipeline, backbone.pipeline.vae
    left = to_pixels(picture, 32, 32) * (torch.from_numpy(np.array(mask)) < 128)
    told = {"prompt": "a cat", "num_inference_steps": 4, "strength": 0.5, "output_type": "latent", "image": picture}
    told |= {"height": 32, "width": 32, "generator": generator_of(7), "mask_image": mask}
    kept, pipeline.scheduler = pipeline.scheduler, type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    encode, seen = vae.encode, []

    def certain(x, *args, **kwargs):
        """The picture first, then what is left of it."""
        found = encode(x, *args, **kwargs)
        seen.append(x)
        if len(seen) == 2:
            found.latent_dist.std = torch.zeros_like(found.latent_dist.std)
        return found

    try:
        vae.encode = certain
        expected = pipeline(**told, **CASES[name].call, **CASES[name].off[0]).images
    finally:
        del vae.encode
        pipeline.scheduler = kept
    assert torch.equal(seen[1], left)
    if CASES[name].packed:
        expected = pipeline._unpack_latents(expected, 32, 32, pipeline.vae_scale_factor)
    given = {"embedded_guidance": 2.5} if CASES[name].packed else {}
    found = drawn(backbone, image=picture, mask=mask, strength=0.5, **given)
    assert (found - expected).abs().max() <= 1e-4


@filling
def test_what_is_around_a_hole_and_where_it_is_matter(backbones, name):
    backbone, [one, other], [mask, inverse] = backbones(name), sources(), holes()
    plain = drawn(backbone, image=one, mask=mask)
    in_hole = np.array(one)
    in_hole[np.array(mask) > 0] = 0
    assert torch.equal(drawn(backbone, image=Image.fromarray(in_hole), mask=mask), plain), "a hole is not looked into"
    for changed in ({"image": other, "mask": mask}, {"image": one, "mask": inverse}, {}):
        assert (drawn(backbone, **changed) - plain).abs().max() > 1e-4


@filling
def test_no_picture_is_one_hole(backbones, name):
    everywhere, grey = Image.new("L", (32, 32), 255), Image.new("RGB", (32, 32), (10, 200, 30))
    assert torch.equal(drawn(backbones(name)), drawn(backbones(name), image=grey, mask=everywhere))


def test_what_cannot_be_filled_is_an_error(backbones):
    backbone, picture = backbones("inpainting"), sources()[0]
    with pytest.raises(SettingsError, match="is not told where"):
        settle(Request(prompt="a", image=picture), backbone)
    thin = Image.new("L", (32, 32))
    with pytest.raises(DataError, match="nothing to repaint"):
        drawn(backbone, image=picture, mask=thin)
    thin.putpixel((1, 1), 255)  # one pixel, which stands for none of the latents: the network would not be told of it
    with pytest.raises(DataError, match="nothing to repaint"):
        drawn(backbone, image=picture, mask=thin)
    drawn(backbones("flux-fill"), image=picture, mask=thin)  # is told of every pixel


def test_a_plain_network_in_an_inpainting_pipeline_is_plain():
    from adapt.backbones.stable_diffusion import StableDiffusion

    torch.manual_seed(0)
    pipeline = stable_diffusion(kind="StableDiffusionInpaintPipeline")
    backbone, [picture, _], [mask, _] = StableDiffusion(pipeline, "tiny"), sources(), holes()
    assert not backbone.takes_source
    settled = settle(Request(prompt="a", image=picture, mask=mask), backbone)
    assert (settled.image, settled.mask, settled.source) == (picture, mask, None)


def test_generate_fills_a_hole(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sources()[0].save("photo.png")
    holes()[0].save("mask.png")
    words = ["generate", "--prompt", "a fox", "--steps", "2", "--base", str(folders("inpainting")), "--device", "cpu"]
    assert main([*words, "--image", "photo.png", "--mask", "mask.png", "--output", "filled.png"]) == 0
    assert main([*words, "--output", "all.png"]) == 0
    with Image.open("filled.png") as a, Image.open("all.png") as b:
        assert a.tobytes() != b.tobytes()
    assert main([*words, "--image", "photo.png", "--output", "no.png"]) == 2
    assert "--mask" in capsys.readouterr().err


@torch.no_grad()
def test_a_checkpoint_in_one_file_fills_too(tiny_filler, tmp_path):
    import shutil

    from original_layout import checkpoint_of
    from safetensors.torch import save_file

    from adapt.backbones import Backbone

    whole = Backbone.load(str(tiny_filler))
    save_file(checkpoint_of(whole.pipeline), tmp_path / "model.safetensors")
    shutil.copytree(tiny_filler, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    alone = Backbone.load(str(tmp_path / "model.safetensors"))
    assert alone.fills and alone.fingerprint() == whole.fingerprint()
    x_t, t, condition = torch.zeros(1, *whole.own_latents), torch.tensor([500]), whole.condition(["a"])
    assert torch.equal(alone.predict(x_t, t, condition), whole.predict(x_t, t, condition))


# ------------------------------------------------------------------------------------------------ adapters of other tasks
def adapter_of(backbone, layer, **shape):
    from adapt.adapter import Adapter, Facts
    from adapt.formats import LoraWeights, Pair

    weight = backbone.denoiser.get_submodule(layer).weight
    pair = Pair(torch.ones(2, *weight.shape[1:]), torch.ones(len(weight), 2, *[1] * (weight.ndim - 2)), 2.0)
    base = {"family": backbone.family, "fingerprint": backbone.fingerprint()}
    return Adapter(LoraWeights({backbone.denoiser_name: {layer: pair}}), Facts(base=base), "other")


RELATED = [
    *(("stable-diffusion", "inpainting"), ("inpainting", "stable-diffusion"), ("stable-diffusion", "instruct-pix2pix")),
    *(("stable-diffusion-xl", "inpainting-xl"), ("flux", "flux-fill"), ("flux-fill", "flux"), ("flux", "flux-kontext")),
]
LAYERS = {
    "unet": ("mid_block.attentions.0.transformer_blocks.0.attn1.to_v", "conv_in"),
    "transformer": ("transformer_blocks.0.attn.to_v", "x_embedder"),
}


@pytest.mark.parametrize(("made_for", "name"), RELATED)
def test_an_adapter_of_another_task_of_the_family_is_taken(backbones, made_for, name):
    from adapt.errors import AdapterError

    backbone, plain = backbones(name), backbones(made_for)
    inside, first = LAYERS[backbone.denoiser_name]
    told = {"image": sources()[0], "mask": holes()[0]} if CASES[name].fills else {"image": sources()[0]}
    told = told if backbone.takes_source else {}
    before = drawn(backbone, **told)
    with adapter_of(plain, inside).apply(backbone):
        assert (drawn(backbone, **told) - before).abs().max() > 1e-3
    if backbone.fingerprint() != plain.fingerprint():  # what touches what comes in, fits its own base alone
        with pytest.raises(AdapterError, match="another base"):
            adapter_of(plain, first).apply(backbone)
    assert torch.equal(drawn(backbone, **told), before)


def test_generate_says_so(backbones, folders, tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    monkeypatch.chdir(tmp_path)
    adapter = adapter_of(backbones("stable-diffusion"), LAYERS["unet"][0])
    told = replace(adapter.facts, base={**adapter.facts.base, "pipeline": "StableDiffusionPipeline"})
    replace(adapter, facts=told).save("style")
    words = ["generate", "--prompt", "a", "--steps", "1", "--adapter", "style", "--device", "cpu", "--base"]
    for name, said in (("inpainting", True), ("stable-diffusion", False)):
        assert main([*words, str(folders(name))]) == 0
        assert (
            "made for StableDiffusionPipeline, another variant of Stable Diffusion 1.x, 2.x" in capsys.readouterr().err
        ) == said


def test_an_adapter_of_flux_dev_is_taken_by_schnell_and_by_fill(backbones):
    from tiny_families import flux

    from adapt.backbones.flux import Flux

    torch.manual_seed(0)
    schnell, dev = Flux(flux(guidance=False), "schnell"), backbones("flux")
    assert schnell.embedded_guidance is None and schnell.fingerprint() != dev.fingerprint()
    adapter_of(dev, LAYERS["transformer"][0]).check(schnell)
    adapter_of(schnell, LAYERS["transformer"][0]).check(dev)
    assert {dev.fingerprint(), schnell.fingerprint()} <= backbones("flux-fill").kin()


def test_other_networks_of_the_family_are_still_another_base(backbones):
    from adapt.errors import AdapterError

    backbone = backbones("inpainting")
    for other in ("stable-diffusion-xl", "flux"):
        assert backbones(other).fingerprint() not in backbone.kin()
    adapter = adapter_of(backbones("stable-diffusion"), LAYERS["unet"][0])
    unet = backbone.denoiser
    kept = unet.config
    try:
        unet.register_to_config(attention_head_dim=4)  # of the same shapes, and another network
        with pytest.raises(AdapterError, match="another base"):
            adapter.check(backbone)
    finally:
        unet.register_to_config(**{key: kept[key] for key in ("attention_head_dim",)})


def test_what_a_published_configuration_says_beside_its_network_is_not_who_it_is(backbones):
    """Moving averages of a training, say: diffusers keeps what it does not know."""
    backbone = backbones("stable-diffusion")
    unet, own = backbone.denoiser, backbone.fingerprint()
    frozen = unet._internal_dict
    try:
        unet.register_to_config(decay=0.9999, optimization_step=37000)
        assert backbone.fingerprint() == own
    finally:
        unet._internal_dict = frozen
