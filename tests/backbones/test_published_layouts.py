"""Checkpoints in the names that models are published in, whole and transformers alone, are the bases that they were made from."""

import shutil

import pytest
import tiny_families as tiny
import torch
from original_layout import DENOISER, joint_of, second_of, transformer_of, xl_of
from safetensors.torch import save_file
from tiny_families import CASES, clip_text, t5_text

from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.errors import BackboneError
from adapt.source import source


def filled(pipeline):
    """Weights that are never all zero."""
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval()
            for parameter in module.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.02)
    return pipeline


def xl():
    """Its encoders have different widths, which the file is told apart by."""
    pipeline = tiny.stable_diffusion_xl()
    config = {**pipeline.unet.config, "cross_attention_dim": 48}
    unet = type(pipeline.unet).from_config(config)
    return type(pipeline)(**{**pipeline.components, "unet": unet, "text_encoder_2": clip_text(True, "gelu", 32)})


def sd3():
    """The file does not have the first encoder's projection: it is the identity."""
    pipeline = tiny.stable_diffusion_3(dual=(0,))
    config = {**pipeline.transformer.config, "joint_attention_dim": 48}
    parts = {"text_encoder_2": clip_text(True, "gelu", 32), "text_encoder_3": t5_text(48)}
    transformer = type(pipeline.transformer).from_config(config)
    pipeline = type(pipeline)(**{**pipeline.components, **parts, "transformer": transformer})
    pipeline.text_encoder.text_projection.weight.data = torch.eye(16)
    return pipeline


pytestmark = pytest.mark.usefixtures("narrow_flux")
WHOLE = {
    "stable-diffusion": (tiny.stable_diffusion, second_of),
    "stable-diffusion-xl": (xl, xl_of),
    "stable-diffusion-3": (sd3, joint_of),
    "flux": (tiny.flux, joint_of),
}
ALONE = (
    "stable-diffusion-3",
    "flux",
    "chroma",
    "aura-flow",
    "flux2",
    "flux2-klein",
    "wan",
    "ltx-video",
    "z-image",
    "qwen-image",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Family → a folder with `base/` (a whole pipeline), `bare/` (its configurations) and the pipeline."""
    found = {}

    def make(name):
        if name not in found:
            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(name)
            pipeline = filled(WHOLE[name][0]() if name in WHOLE else CASES[name].build())
            pipeline.save_pretrained(folder / "base")
            shutil.copytree(folder / "base", folder / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
            found[name] = folder, pipeline
        return found[name]

    return make


@torch.no_grad()
def same(one, other):
    """Predictions of two bases, bit for bit."""
    shape = one.own_latents
    x, t = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)), torch.tensor([300.0])
    a, b = (base.predict(x, t, base.condition(["a cat"])) for base in (one, other))
    return torch.equal(a, b) and bool(a.any())


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_checkpoint_is_the_base_that_it_was_made_from(made, name, capsys):
    folder, pipeline = made(name)
    file = folder / "model.safetensors"
    save_file(WHOLE[name][1](pipeline), file)
    whole, one = Backbone.load(str(folder / "base")), Backbone.load(f"{file}:{folder / 'bare'}")
    assert one.family == name and one.fingerprint() == whole.fingerprint() and same(whole, one)
    latents = torch.randn(1, *whole.own_latents)
    assert torch.equal(whole.decode(latents), one.decode(latents))
    assert main(["bases", f"{file}:{folder / 'bare'}"]) == 0
    assert "checkpoint in one file" in capsys.readouterr().out


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("prefix", ["", DENOISER])
def test_a_transformer_alone_takes_the_rest_from_a_folder(made, name, prefix):
    folder, pipeline = made(name)
    file = folder / f"{len(prefix)}.safetensors"
    save_file({prefix + key: value for key, value in transformer_of(pipeline).items()}, file)
    rest = shutil.copytree(folder / "base", folder / f"rest{len(prefix)}")
    (rest / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    whole, one = Backbone.load(str(folder / "base")), Backbone.load(f"{file}:{rest}")
    found = source(f"{file}:{rest}").contents
    assert found.alone and name in found.mark.families
    assert one.fingerprint() == whole.fingerprint() and same(whole, one)
    with pytest.raises(BackboneError, match="neither the checkpoint nor the folder has the weights of vae"):
        Backbone.load(f"{file}:{folder / 'bare'}")


@pytest.mark.parametrize("name", ["pixart-sigma", "stable-diffusion", "wan", "dit"])
def test_a_denoiser_in_diffusers_own_names_is_read_of_every_family(made, name):
    """In bfloat16 too, where some layers stay in float32 as they do from the folder."""
    folder, _ = made(name)
    component = "unet" if name == "stable-diffusion" else "transformer"
    file = folder / "base" / component / "diffusion_pytorch_model.safetensors"
    one = Backbone.load(f"{file}:{folder / 'base'}", dtype=torch.bfloat16)
    whole = Backbone.load(str(folder / "base"), dtype=torch.bfloat16)
    assert [p.dtype for p in one.denoiser.parameters()] == [p.dtype for p in whole.denoiser.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(one.denoiser.parameters(), whole.denoiser.parameters(), strict=True))
    mark = source(f"{file}:{folder / 'base'}").contents.mark
    assert name in mark.families


def test_names_of_every_family_are_told_apart(folders):
    """No family's own names are taken for another's."""
    from adapt.backbones.registry import FAMILIES
    from adapt.checkpoints import header
    from adapt.checkpoints.marks import mark_of, marked

    seen = 0
    for name in CASES:
        found = next((f for d in ("unet", "transformer") for f in (folders(name) / d).glob("*.safetensors")), None)
        mark = marked(header(found)) if found and (name in FAMILIES or mark_of(name)) else None
        if mark_of(name):
            assert mark is not None and name in mark[0].families and not (mark[1] and mark[0].diffusers == ()), name
            seen += 1
        elif mark is not None:
            assert not mark[1], name
    assert seen >= 12


EIGHT = torch.float8_e4m3fn


@pytest.mark.parametrize("scale", ["", "scale_weight", "weight_scale"])
def test_weights_in_eight_bits_are_widened_and_it_is_said(made, scale, capsys):
    """With a scale beside a weight, as ComfyUI writes it, the weight is what the scale makes of it."""
    folder, pipeline = made("flux")
    plain = transformer_of(pipeline)
    large = {k for k, v in plain.items() if v.ndim == 2 and "blocks" in k}
    scales = {k: (v.abs().amax() / 448).reshape(()) for k, v in plain.items() if k in large and scale}
    packed = {k: (v / scales.get(k, 1)).to(EIGHT) if k in large else v for k, v in plain.items()}
    wide = {k: v.float() * scales.get(k, 1) for k, v in packed.items()}
    remarks = {k.replace("weight", scale): v for k, v in scales.items()}
    remarks |= {"scaled_fp8": torch.zeros(2, dtype=EIGHT)} if scale else {}
    save_file({**packed, **remarks}, folder / "eight.safetensors")
    save_file(wide, folder / "wide.safetensors")
    one, other = (Backbone.load(f"{folder / n}.safetensors:{folder / 'base'}") for n in ("eight", "wide"))
    assert "eight.safetensors: weights in float8_e4m3fn, held in float32" in capsys.readouterr().err
    assert one.fingerprint() == other.fingerprint() and same(one, other)


def test_a_whole_checkpoint_in_eight_bits_with_scales(made):
    """Stable Diffusion 3.5 as ComfyUI scales it: the transformer's weights and the text encoders'."""
    folder, pipeline = made("stable-diffusion-3")
    plain = joint_of(pipeline)
    large = {k for k, v in plain.items() if v.ndim == 2 and k.endswith(".weight") and "embed" not in k}
    assert sum(k.startswith("text_encoders.t5xxl") for k in large) > 4
    scales = {k: (plain[k].abs().amax() / 448).reshape(1) for k in large}
    packed = {k: (v / scales[k]).to(EIGHT) if k in large else v for k, v in plain.items()}
    save_file(
        {k: v.float() * scales[k] if k in large else v for k, v in packed.items()}, folder / "whole-wide.safetensors"
    )
    save_file(
        {**packed, **{k.replace("weight", "scale_weight"): v for k, v in scales.items()}},
        folder / "whole-8.safetensors",
    )
    one, other = (Backbone.load(f"{folder / n}.safetensors:{folder / 'bare'}") for n in ("whole-8", "whole-wide"))
    assert same(one, other) and not same_but_far(one, Backbone.load(str(folder / "base")))


@torch.no_grad()
def same_but_far(one, other):
    """Whether two bases differ by more than eight bits can tell."""
    a, b = (base.condition(["a cat"]).parts["text"]["tokens"] for base in (one, other))
    return bool((a - b).abs().max() > 0.2 * b.abs().max())


def refused(reference, *said):
    with pytest.raises(BackboneError) as error:
        Backbone.load(str(reference))
    assert "\n" not in str(error.value)
    for word in said:
        assert word in str(error.value), error.value


def test_files_that_fit_nothing_are_one_line(made, tmp_path):
    flux, pipeline = made("flux")
    values = transformer_of(pipeline)
    sd3 = made("stable-diffusion-3")[0]

    def saved(name, found):
        save_file({k: v.contiguous() for k, v in found.items()}, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    file = saved("flux", values)
    refused(f"{file}:{sd3 / 'base'}", "its layers are Flux.1's", "Stable Diffusion 3, 3.5's")
    refused(file, "which is Flux.1's", "flux.safetensors:FOLDER", "other networks' weights too")
    part = saved("part", {k: v for k, v in values.items() if "txt_attn" not in k or "double_blocks.0" not in k})
    refused(f"{part}:{flux / 'base'}", "no tensor 'double_blocks.0.txt_attn")
    more = saved("more", {**made("wan")[1].transformer.state_dict(), "extra.weight": torch.ones(4, 4)})
    refused(f"{more}:{made('wan')[0] / 'base'}", "have no place in its configuration", "extra.weight")
    whole_numbers = saved("int", {k: v.to(torch.int8) if v.ndim == 2 else v for k, v in values.items()})
    refused(f"{whole_numbers}:{flux / 'base'}", "packed in a way", "int8")
    lora = saved("lora", {"transformer.x.lora_A.weight": torch.ones(2, 2)})
    refused(f"{lora}:{flux / 'base'}", "an adapter's file", "--adapter")
    vae = saved("vae", {"decoder.conv_in.weight": torch.ones(2, 2)})
    refused(f"{vae}:{flux / 'base'}", "holds no denoiser")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-10])
    refused(f"{cut}:{flux / 'base'}", "cut off")


def test_published_names_that_diffusers_does_not_know(made, tmp_path):
    folder, pipeline = made("pixart-sigma")
    values = {f"x.{k}": v.clone() for k, v in pipeline.transformer.state_dict().items()}
    save_file(values, tmp_path / "a.safetensors")
    refused(f"{tmp_path / 'a.safetensors'}:{folder / 'base'}", "no PixArtTransformer2DModel: only its own")
