"""Published ControlNets and IP-Adapters: drawn with as diffusers' own pipelines draw with them."""

import pytest
import torch
from tiny_families import built

from adapt.adapter.control_net import ControlNet
from adapt.api.generate import generate
from adapt.backbones import Backbone
from adapt.errors import AdapterError
from adapt.sampling.draw import draw_latents
from adapt.sampling.ip_adapter import IPAdapter
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle

STEPS, GUIDANCE, PROMPTS = 3, 4.0, ("a red cat", "rain")


@pytest.fixture(scope="module")
def control():
    from PIL import Image

    picture = Image.new("RGB", (16, 16))
    picture.paste((255, 255, 255), (4, 4, 12, 9))
    return picture


def ours(base, companion, **asked):
    """Latents of two drawings, with what stands beside the base."""
    backbone = Backbone.load(str(base))
    with companion.on(backbone):
        rows = [
            settle(Request(prompt=p, steps=STEPS, guidance_scale=GUIDANCE, seed=i, **asked), backbone)
            for i, p in enumerate(PROMPTS)
        ]
        return draw_latents(backbone, rows, [generator_of(i) for i in range(2)])


def theirs(pipeline, **asked):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        list(PROMPTS), num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=[generator_of(i) for i in range(2)],
        output_type="latent", height=16, width=16, **asked,
    ).images  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_a_control_net_draws_as_in_its_own_pipeline(tiny_base, control_net, control, scale):
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline = StableDiffusionControlNetPipeline(
        **plain.components, controlnet=ControlNetModel.from_pretrained(control_net), requires_safety_checker=False
    )
    expected = theirs(pipeline, image=[control] * 2, controlnet_conditioning_scale=scale)
    found = ours(tiny_base, ControlNet.load(control_net), control=control, control_scale=scale)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found - ours(tiny_base, ControlNet.load(control_net))).abs().max() > 0.01


def test_without_a_control_a_control_net_changes_no_bit(tiny_base, control_net, control):
    backbone, net = Backbone.load(str(tiny_base)), ControlNet.load(control_net)
    plain = generate(backbone, prompt="a cat", steps=2)[0].tobytes()
    with net.on(backbone):
        assert generate(backbone, prompt="a cat", steps=2)[0].tobytes() == plain
        assert generate(backbone, prompt="a cat", steps=2, control=control, control_scale=0)[0].tobytes() == plain
        assert generate(backbone, prompt="a cat", steps=2, control=control)[0].tobytes() != plain
    assert generate(backbone, prompt="a cat", steps=2)[0].tobytes() == plain
    assert not backbone.conditioners


# ------------------------------------------------------------------------------------------------ IP-Adapters
@pytest.mark.parametrize("kind", ["ip-adapter_sd15", "ip-adapter-plus_sd15"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_an_ip_adapter_draws_as_in_its_own_pipeline(tiny_base, ip_adapter, control, kind, scale):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline.load_ip_adapter(str(ip_adapter.parent), subfolder="models", weight_name=f"{kind}.safetensors")
    pipeline.set_ip_adapter_scale(scale)
    expected = theirs(pipeline, ip_adapter_image=[control])
    found = ours(tiny_base, IPAdapter.load(ip_adapter / f"{kind}.safetensors", scale=scale), image_prompt=control)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_an_ip_adapter_comes_off_without_a_trace(tiny_base, ip_adapter, control):
    backbone = Backbone.load(str(tiny_base))
    before = (backbone.fingerprint(), backbone.content_key("unet"), sorted(backbone.modules))
    plain = generate(backbone, prompt="a cat", steps=2)[0].tobytes()
    with IPAdapter.load(ip_adapter / "ip-adapter_sd15.safetensors").on(backbone):
        assert backbone.fingerprint() == before[0]
        assert generate(backbone, prompt="a cat", steps=2, image_prompt=control)[0].tobytes() != plain
        with (
            pytest.raises(AdapterError, match="another image"),
            IPAdapter.load(ip_adapter / "ip-adapter_sd15.safetensors").on(backbone),
        ):
            pass
    assert generate(backbone, prompt="a cat", steps=2)[0].tobytes() == plain
    backbone._known = {}
    assert (backbone.fingerprint(), backbone.content_key("unet"), sorted(backbone.modules)) == before


@pytest.mark.parametrize("change", ["half", "other base", "pickle", "no encoder", "not one"])
def test_what_is_no_ip_adapter_of_this_base_leaves_it_as_it_is(tiny_base, ip_adapter, tmp_path, change):
    from safetensors.torch import load_file, save_file

    weights, file = load_file(ip_adapter / "ip-adapter_sd15.safetensors"), tmp_path / "ip.safetensors"
    if change == "half":
        weights = {k: x for k, x in weights.items() if "3.to_v" not in k}
    elif change == "other base":
        weights = {k: torch.cat([x, x], 1) if "_ip" in k else x for k, x in weights.items()}
    elif change == "not one":
        weights = {f"unet.{k}": x for k, x in weights.items()}
    save_file(weights, file)
    if change == "pickle":
        file.write_bytes(b"PK\x03\x04" + bytes(64))
    backbone = Backbone.load(str(tiny_base))
    before = sorted(backbone.modules), backbone.fingerprint(), generate(backbone, prompt="a", steps=1)[0].tobytes()
    encoder = None if change == "no encoder" else ip_adapter / "image_encoder"
    with pytest.raises(AdapterError), IPAdapter.load(file, image_encoder=encoder).on(backbone):
        pass
    backbone._known = {}
    assert (
        sorted(backbone.modules), backbone.fingerprint(), generate(backbone, prompt="a", steps=1)[0].tobytes()
    ) == before  # fmt: skip
    assert not backbone.conditioners


def test_a_control_net_of_another_base_is_refused(make_tiny, tmp_path, control_net):
    make_tiny(width=32).save_pretrained(tmp_path / "wide")
    backbone = Backbone.load(str(tmp_path / "wide"))
    with (
        pytest.raises(AdapterError, match=r"another base.*block_out_channels"),
        ControlNet.load(control_net).on(backbone),
    ):
        pass
    with pytest.raises(AdapterError, match="no ControlNet here"):
        ControlNet.load(tmp_path)
    with pytest.raises(AdapterError, match="no ControlNet that adapt can use"):
        ControlNet.load(tmp_path / "wide" / "unet")


def test_a_control_net_of_xl_draws_as_in_its_own_pipeline(tmp_path, control, make_control_net):
    from diffusers import StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline

    built("stable-diffusion-xl").save_pretrained(tmp_path / "base")
    plain = StableDiffusionXLPipeline.from_pretrained(tmp_path / "base", add_watermarker=False)
    net = make_control_net(plain.unet, tmp_path / "net")
    pipeline = StableDiffusionXLControlNetPipeline(**plain.components, controlnet=net, add_watermarker=False)
    expected = theirs(pipeline, image=[control] * 2)
    found = ours(tmp_path / "base", ControlNet.load(tmp_path / "net"), control=control, height=16, width=16)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------ from the command line
def test_they_are_options_of_generate(tiny_base, control_net, ip_adapter, control, tmp_path, capsys):
    from PIL import Image

    from adapt.cli.main import main

    control.save(tmp_path / "control.png")
    picture, base = str(tmp_path / "control.png"), ["--base", str(tiny_base), "--prompt", "a cat", "--steps", "2"]
    net = ["--control", picture, "--controlnet", str(control_net), "--control-scale", "0.5"]
    looking = ["--image-prompt", picture, "--ip-adapter", f"{ip_adapter / 'ip-adapter_sd15.safetensors'}:0.6"]
    drawn = {}
    for name, options in {"plain": [], "net": net, "ip": looking, "both": [*net, *looking]}.items():
        assert main(["generate", *base, *options, "--output", str(tmp_path / f"{name}.png")]) == 0
        drawn[name] = Image.open(tmp_path / f"{name}.png")
    assert len({picture.tobytes() for picture in drawn.values()}) == 4
    said = drawn["both"].info["parameters"]
    assert f"ControlNet: {control_net.name}" in said and 'IP-Adapter: "ip-adapter_sd15:0.6"' in said
    assert str(tmp_path) not in said
    capsys.readouterr()
    assert main(["generate", *base, "--controlnet", str(control_net)]) == 2
    assert "--control PICTURE" in capsys.readouterr().err
    assert main(["generate", *base, "--image-prompt", picture, "--ip-adapter", str(tiny_base)]) == 2
    assert main(["generate", *base, "--control", picture, "--controlnet", str(tmp_path / "nowhere")]) == 2
    assert "no ControlNet here" in capsys.readouterr().err


def test_lines_of_a_prompt_file_bring_pictures_of_their_own(
    tiny_base, control_net, ip_adapter, control, tmp_path, capsys
):
    import json

    from adapt.cli.main import main

    control.save(tmp_path / "c.png")
    rows = [{"prompt": "a", "control": "c.png", "image_prompt": "c.png"}, {"prompt": "a"}]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = ["generate", "--base", str(tiny_base), "--steps", "2", "--json", "--batch-size", "1"]
    plain += ["--output", str(tmp_path / "o")]
    file = ["--prompts", str(tmp_path / "lines.jsonl")]
    looking = ["--ip-adapter", str(ip_adapter / "ip-adapter_sd15.safetensors"), "--image-prompt-scale", "2"]

    def drawn(*options):
        assert main([*plain, *options]) == 0
        from PIL import Image

        return [Image.open(p["path"]).tobytes() for p in json.loads(capsys.readouterr().out)["pictures"]]

    both = drawn(*file, "--controlnet", str(control_net), *looking)
    weaker = drawn(*file, "--controlnet", str(control_net), *looking[:2])
    assert both[0] != weaker[0] != both[1] == weaker[1]
    [alone] = drawn("--prompt", "a", "--control", str(tmp_path / "c.png"), "--controlnet", str(control_net), *looking,
                    "--image-prompt", str(tmp_path / "c.png"))  # fmt: skip
    assert alone == both[0]
    assert main([*plain, "--prompt", "a", *looking[2:]]) == 2
    assert "--image-prompt-scale needs a reference picture" in capsys.readouterr().err


def test_at_the_door_for_adapters_they_are_sent_to_their_own(tiny_base, control_net, ip_adapter, capsys):
    from adapt.cli.main import main

    for thing, door in ((control_net, "--controlnet"), (ip_adapter / "ip-adapter_sd15.safetensors", "--ip-adapter")):
        for words in (
            ["inspect", str(thing)],
            ["generate", "--base", str(tiny_base), "--adapter", str(thing), "--prompt", "a"],
        ):
            assert main(words) == 2
            assert door in capsys.readouterr().err
