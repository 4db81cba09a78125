"""Two backbones: the bundled icons (v prediction), and a tiny random Stable Diffusion with 4 latent channels."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from adapt.backbones import Backbone, StableDiffusion


@pytest.fixture(scope="session")
def icons():
    return Backbone.load("icons")


def _pipeline(icons, prediction_type):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=384,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    parts = {"text_encoder": icons.pipeline.text_encoder, "tokenizer": icons.pipeline.tokenizer}
    return StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        scheduler=scheduler,
        **parts,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def tiny(icons):
    """`tiny("epsilon")`, `tiny("v_prediction")`: 16 px, 2 px a latent."""
    made = {kind: StableDiffusion(_pipeline(icons, kind), "tiny") for kind in ("epsilon", "v_prediction")}
    return made.__getitem__


@pytest.fixture(scope="session")
def picture():
    """`picture(height, width)`: a smooth RGB gradient with a block in it."""

    def make(height, width):
        y, x = np.mgrid[0:height, 0:width]
        values = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], -1)
        values[height // 4 : height // 2, width // 4 : width // 2] = (250, 20, 20)
        return Image.fromarray(values.astype(np.uint8))

    return make


@pytest.fixture(scope="session")
def mask():
    """`mask(height, width)`: the right half is white."""

    def make(height, width):
        values = np.zeros((height, width), np.uint8)
        values[:, width // 2 :] = 255
        return Image.fromarray(values)

    return make
