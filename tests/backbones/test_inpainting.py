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
