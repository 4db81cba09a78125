"""Shared by all tests: offline, one thread, a cache of the session's own, and a tiny base of random weights."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPENMOJI = ROOT / "examples" / "data" / "openmoji"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test reads or leaves anything in the user's cache; several workers share the session's."""
    os.environ["ADAPT_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "adapt-cache")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Two workers with one thread each are faster than four threads on two cores, and bits depend on the number."""
    import torch

    torch.set_num_threads(1)


def tiny_pipeline(
    prediction_type="epsilon", seed=0, width=16, text_width=16, kind="StableDiffusionPipeline", in_channels=4
):
    """A tiny random `StableDiffusionPipeline`: 16 px pictures, 4 × 8 × 8 latents, a byte-level CLIP."""
    import diffusers
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    symbols = sorted(ByteLevel.alphabet())
    words = [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=24)
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=text_width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=24, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=in_channels,
        block_out_channels=(width, width), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
        cross_attention_dim=text_width, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
        prediction_type=prediction_type,
    )  # fmt: skip
    return getattr(diffusers, kind)(
        vae=vae, unet=unet, scheduler=scheduler, tokenizer=tokenizer, text_encoder=CLIPTextModel(text),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_tiny():
    """prediction type, seed, width, width of the text → a fresh tiny pipeline."""
    return tiny_pipeline


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """The folder of a tiny base that takes milliseconds a step."""
    folder = tmp_path_factory.mktemp("tiny-base")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_control_net():
    """UNet, folder → a tiny ControlNet in it, whose random weights say something, also where a new one has zeros."""

    def make(unet, folder):
        import torch
        from diffusers import ControlNetModel

        network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
        random = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.randn(p.shape, generator=random) * 0.2)
        network.save_pretrained(folder)
        return network

    return make


@pytest.fixture(scope="session")
def control_net(tmp_path_factory, make_control_net):
    """The folder of a tiny ControlNet of the tiny base."""
    folder = tmp_path_factory.mktemp("control-net")
    make_control_net(tiny_pipeline().unet, folder)
    return folder


@pytest.fixture(scope="session")
def ip_adapter(tmp_path_factory):
    """A repository as IP-Adapters are published: `models/….safetensors`, plain and plus, and `models/image_encoder/`."""
    import torch
    import transformers
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("ip") / "models"
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=12,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    unet, random = tiny_pipeline().unet, torch.Generator().manual_seed(1)

    def some(*shape):
        return torch.randn(shape, generator=random) * 0.3

    number, attention = 1, {}
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            for half in ("k", "v"):
                attention[f"ip_adapter.{number}.to_{half}_ip.weight"] = some(16, 16)
            number += 2
    plain = {"proj.weight": some(4 * 16, 12), "proj.bias": some(4 * 16)}
    plain |= {"norm.weight": some(16), "norm.bias": some(16)}
    save_file({**attention, **{f"image_proj.{k}": x for k, x in plain.items()}}, folder / "ip-adapter_sd15.safetensors")
    layer = {
        **{f"0.{n}.{w}": (64,) for n in ("norm1", "norm2") for w in ("weight", "bias")},
        **{"0.to_q.weight": (64, 64), "0.to_kv.weight": (128, 64), "0.to_out.weight": (64, 64)},
        **{"1.0.weight": (64,), "1.0.bias": (64,), "1.1.weight": (256, 64), "1.3.weight": (64, 256)},
    }
    resampler = {
        **{"latents": some(1, 4, 64), "proj_in.weight": some(64, 32), "proj_in.bias": some(64)},
        **{"proj_out.weight": some(16, 64), "proj_out.bias": some(16), "norm_out.weight": some(16), "norm_out.bias": some(16)},
        **{f"layers.{i}.{name}": some(*shape) for i in range(4) for name, shape in layer.items()},
    }  # fmt: skip
    save_file(
        {**attention, **{f"image_proj.{k}": x for k, x in resampler.items()}},
        folder / "ip-adapter-plus_sd15.safetensors",
    )
    return folder


@pytest.fixture(scope="session")
def tiny_editor(tmp_path_factory):
    """The folder of a tiny InstructPix2Pix."""
    folder = tmp_path_factory.mktemp("tiny-editor")
    tiny_pipeline(kind="StableDiffusionInstructPix2PixPipeline", in_channels=8).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_filler(tmp_path_factory):
    """The folder of a tiny inpainting base of 9 channels."""
    folder = tmp_path_factory.mktemp("tiny-filler")
    tiny_pipeline(kind="StableDiffusionInpaintPipeline", in_channels=9).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """A folder of eight edit pairs of 24 × 16 px: `before/`, and the same in negative with a word for it in `after/`."""
    import json

    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pairs")
    random, rows = np.random.default_rng(1), []
    for name in ("before", "after"):
        (folder / name).mkdir()
    for number in range(8):
        before = random.integers(0, 256, (16, 24, 3), np.uint8)
        Image.fromarray(before).save(folder / "before" / f"{number}.png")
        Image.fromarray(255 - before).save(folder / "after" / f"{number}.png")
        rows.append(
            {"file_name": f"after/{number}.png", "source": f"before/{number}.png", "text": f"negative {number}"}
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of twelve 16 px pictures with captions."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"picture {number}", encoding="utf-8")
    return folder


@pytest.fixture
def script(monkeypatch, capsys):
    """`script(words)`: `training_scripts/train_lora.py` in this process → exit code, standard output and error."""
    import runpy
    import sys

    path = str(ROOT / "training_scripts" / "train_lora.py")

    def run(*words):
        monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(path, run_name="__main__")
        return stopped.value.code, *capsys.readouterr()

    return run
