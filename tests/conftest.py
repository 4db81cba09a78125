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


def tiny_pipeline(prediction_type="epsilon", seed=0, width=16, text_width=16):
    """A tiny random `StableDiffusionPipeline`: 16 px pictures, 4 × 8 × 8 latents, a byte-level CLIP."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
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
        sample_size=8, block_out_channels=(width, width), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
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
    return StableDiffusionPipeline(
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
