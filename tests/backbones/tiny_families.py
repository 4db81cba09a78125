"""Tiny random pipelines of every family, made in memory, and what each one's own pipeline is called with.

Byte-level tokenizers spend a token a byte. Biases and norms that are built as zeros are filled, or an error in them could not
show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SIDE = 32


@dataclass(frozen=True)
class Case:
    """One family in the contract test.

    Attributes:
        build: makes the tiny pipeline.
        call: what the family's `__call__` takes beside prompt, size, steps and generators.
        off, on: its guidance arguments, off and on, and ours: (theirs, ours); no `on`: it has no guidance.
        packed: its latents are tokens.
        side: of its pictures.
        stretch: by how much its pipeline is told a larger side.
        tokens: text tokens, where the table says how many.
        prompts: four; the first two are drawn.
        parts: whether its condition has any that can be dropped.
        frames: of a clip.
        scale: pixels a latent.
        run: `run(case, pipeline, **call)`: latents of its pipeline.
        shown: how ours are compared with them.
        family: in the table, where a case is another task of one; None: the case's own name.
        edits: it takes a picture beside the noise.
        fills: that picture has a hole.
    """

    build: Any
    call: dict[str, Any] = field(default_factory=dict)
    off: tuple[dict[str, Any], dict[str, Any]] = ({"guidance_scale": 1.0}, {"guidance_scale": 1.0})
    on: tuple[dict[str, Any], dict[str, Any]] = ({"guidance_scale": 4.0}, {"guidance_scale": 4.0})
    packed: bool = False
    side: int = SIDE
    stretch: int = 1
    tokens: int | None = 24
    prompts: tuple[str, ...] = ("a red cat", "rain", "", "a")
    parts: bool = True
    frames: int = 1
    scale: int = 2
    run: Any = None
    shown: Any = field(default=lambda latents: latents)
    family: str | None = None
    edits: bool = False
    fills: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", self.run or picture_of)


def picture_of(case, pipeline, **call):
    """Latents of a pipeline that makes pictures from prompts."""
    side = case.side * case.stretch
    latents = pipeline(prompt=list(case.prompts[:2]), height=side, width=side, output_type="latent", **call).images
    latents = pipeline._unpack_latents(latents, side, side, pipeline.vae_scale_factor) if case.packed else latents
    return latents.squeeze(2) if latents.ndim == 5 else latents  # a picture of one frame


def sources(side=SIDE):
    """Two pictures that are edited."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(5)
    return [Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(2)]


def edit_of(case, pipeline, **call):
    """Latents of one that edits pictures, each with its own prompt."""
    import inspect

    import numpy as np
    import torch

    if "Qwen" in type(pipeline).__name__:
        return one_by_one(case, pipeline, **call)
    given = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) / 255 for p in sources(case.side)])
    sized = {"height": case.side, "width": case.side, "max_area": case.side**2}
    sized = {name: value for name, value in sized.items() if name in inspect.signature(pipeline.__call__).parameters}
    latents = pipeline(image=given, prompt=list(case.prompts[:2]), output_type="latent", **sized, **call).images
    return pipeline._unpack_latents(latents, *[case.side] * 2, pipeline.vae_scale_factor) if case.packed else latents


def holes(side=SIDE):
    """Two masks: a rectangle, and all but a rectangle."""
    from PIL import Image, ImageOps

    mask = Image.new("L", (side, side))
    mask.paste(255, (side // 4, side // 8, side // 2 + 1, side - 3))
    return [mask, ImageOps.invert(mask)]


def filled_of(case, pipeline, **call):
    """Latents of one that fills holes. Of what is around them ours are the most likely latents: so are these."""
    from unittest.mock import patch

    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution as Posterior

    with patch.object(Posterior, "sample", lambda posterior, generator=None: posterior.mean):
        call = {"image": sources(case.side), "mask_image": holes(case.side), "strength": 1.0, **call}
        return picture_of(case, pipeline, **call)


def one_by_one(case, pipeline, generator, **call):
    """Of one that takes one picture at a time."""
    import torch

    negative = call.pop("negative_prompt", None)
    found = [
        pipeline(
            image=picture, prompt=case.prompts[row], height=case.side, width=case.side, output_type="latent",
            generator=generator[row], negative_prompt=None if negative is None else negative[row], **call,
        ).images
        for row, picture in enumerate(sources(case.side))
    ]  # fmt: skip
    return pipeline._unpack_latents(torch.cat(found), case.side, case.side, pipeline.vae_scale_factor).squeeze(2)


def qwen_sizes(area, ratio):
    """Qwen-Image-Edit's pipelines bring pictures to sizes of their own: here to that of the case, and to half of it."""
    return (SIDE, SIDE) if area > 384**2 else (SIDE // 2, SIDE // 2)


def clip_of(case, pipeline, **call):
    """Latents of one that makes clips."""
    side, frames = case.side, case.frames
    latents = pipeline(
        prompt=list(case.prompts[:2]), height=side, width=side, num_frames=frames, output_type="latent", **call
    ).frames
    if not case.packed:
        return latents
    scale, frame_scale = pipeline.vae_spatial_compression_ratio, pipeline.vae_temporal_compression_ratio
    return pipeline._unpack_latents(latents, 1 + (frames - 1) // frame_scale, side // scale, side // scale)


def class_of(case, pipeline, **call):
    """Latents of DiT's pipeline, which has no such output: what it gives its decoder."""
    given, decode = [], pipeline.vae.decode
    pipeline.vae.decode = lambda z, *a, **k: given.append(z) or decode(z, *a, **k)
    try:
        pipeline(class_labels=[int(p) for p in case.prompts[:2]], **call)
    finally:
        del pipeline.vae.decode
    return given[0] * pipeline.vae.config.scaling_factor


def pixels_of(case, pipeline, **call):
    """What DDPM's pipeline makes, as numbers in [0, 1]."""
    import torch

    pictures = pipeline(batch_size=2, output_type="np", **call).images
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------------ tokenizers, encoders
def clip_tokenizer(length=24):
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    symbols = sorted(ByteLevel.alphabet())
    words = [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=length)


def t5_tokenizer(length=64):
    import transformers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((chr(c), -3.0) for c in range(33, 127))]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def clip_text(projected=False, act="quick_gelu", hidden=16, length=24):
    """bos and eos must be the tiny vocabulary's: with the default eos the pooled state silently is token 0's."""
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=length, bos_token_id=512, eos_token_id=513, pad_token_id=513, projection_dim=16,
        hidden_act=act,
    )  # fmt: skip
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config)


def t5_text(width=16):
    import transformers

    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=98, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu",
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )
    )  # fmt: skip


def umt5_text():
    import transformers

    return transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=98, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1,
            decoder_start_token_id=0,
        )
    )  # fmt: skip


def vae(channels=4, scaling=0.18215, shift=None, quant=True):
    """Halves the sides."""
    import diffusers

    return diffusers.AutoencoderKL(
        latent_channels=channels, sample_size=SIDE, block_out_channels=(8, 8), norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=scaling, shift_factor=shift, use_quant_conv=quant, use_post_quant_conv=quant,
    )  # fmt: skip


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


# ------------------------------------------------------------------------------------------------ the families
def stable_diffusion(prediction_type="epsilon", kind="StableDiffusionPipeline", channels=4):
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
        cross_attention_dim=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), in_channels=channels,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        **BETAS, clip_sample=False, steps_offset=1, prediction_type=prediction_type, set_alpha_to_one=False
    )
    return getattr(diffusers, kind)(
        vae=vae(), unet=unet, scheduler=scheduler, tokenizer=clip_tokenizer(), text_encoder=clip_text(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def instruct_pix2pix():
    return stable_diffusion(kind="StableDiffusionInstructPix2PixPipeline", channels=8)


def inpainting():
    return stable_diffusion(kind="StableDiffusionInpaintPipeline", channels=9)


def stable_diffusion_xl(kind="StableDiffusionXLPipeline", channels=4):
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, layers_per_block=1, block_out_channels=(16, 16), norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 2), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=16 + 6 * 8, cross_attention_dim=32, in_channels=channels,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading")
    return getattr(diffusers, kind)(
        vae=vae(scaling=0.13025), unet=unet, scheduler=scheduler, text_encoder=clip_text(), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(True, "gelu"), tokenizer_2=clip_tokenizer(), add_watermarker=False,
    )  # fmt: skip


def instruct_pix2pix_xl():
    return stable_diffusion_xl("StableDiffusionXLInstructPix2PixPipeline", 8)


def inpainting_xl():
    return stable_diffusion_xl("StableDiffusionXLInpaintPipeline", channels=9)


def stable_diffusion_3(t5=True, dual=()):
    import diffusers

    transformer = diffusers.SD3Transformer2DModel(
        sample_size=SIDE // 2, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
        pos_embed_max_size=12, dual_attention_layers=dual, qk_norm="rms_norm",
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4, 1.5305, 0.0609, quant=False), text_encoder=clip_text(True), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(True, "gelu"), tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text(32) if t5 else None, tokenizer_3=t5_tokenizer() if t5 else None,
    )  # fmt: skip


def flux(guidance=True, kind="FluxPipeline", channels=16):
    import diffusers

    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=channels, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8), guidance_embeds=guidance,
        out_channels=16,
    )  # fmt: skip
    shifting = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15} if guidance else {}
    return getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**shifting), transformer=transformer,
        vae=vae(4, 0.3611, 0.1159, quant=False), text_encoder=clip_text(), tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


def flux_kontext():
    return flux(kind="FluxKontextPipeline")


def flux_fill():
    """4 latents' channels of noise, as many of the picture, and the hole's 2 × 2 pixels, in tokens of 2 × 2."""
    return flux(kind="FluxFillPipeline", channels=4 * (4 + 4 + 2 * 2))


def byte_tokenizer(length=1024, more=()):
    """Byte level, with Qwen's chat template; stands in for Gemma's too."""
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    vocab = {symbol: i for i, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    vocab["<|endoftext|>"] = len(vocab)
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=vocab, merges=[], model_max_length=length, extra_special_tokens=["<|im_start|>", "<|im_end|>", *more]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


LANGUAGE = {
    **{"vocab_size": 259, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 256, "bos_token_id": 256, "eos_token_id": 256},
}


def language_model(kind, end="Model", **more):
    """A Gemma2 or Qwen3 of two layers."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**LANGUAGE, **more})
    return getattr(transformers, f"{kind}{end}")(config)


def mistral(layers):
    """With eyes, which nobody opens here."""
    import transformers

    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}
    config = transformers.Mistral3Config(
        text_config={**LANGUAGE, "model_type": "mistral", "num_hidden_layers": layers}, image_token_index=258,
        vision_config={**vision, "model_type": "pixtral", "image_size": 8, "patch_size": 4},
    )  # fmt: skip
    return transformers.Mistral3ForConditionalGeneration(config)


def _pixart(kind, scheduler, told):
    import diffusers

    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=24, caption_channels=16, sample_size=SIDE // 2, patch_size=2, norm_num_groups=8,
        use_additional_conditions=told,
    )  # fmt: skip
    return getattr(diffusers, kind)(
        tokenizer=t5_tokenizer(), text_encoder=t5_text(), vae=vae(scaling=0.13025), transformer=transformer,
        scheduler=scheduler,
    )  # fmt: skip


def pixart_sigma():
    import diffusers

    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    return _pixart("PixArtSigmaPipeline", scheduler, False)


def pixart_alpha(told=False):
    """`told`: as at 1024 px, where the pipeline tells sizes: it does when `sample_size` is 128."""
    import diffusers

    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    pipeline = _pixart("PixArtAlphaPipeline", scheduler, told)
    if told:
        pipeline.transformer.register_to_config(sample_size=128)
    return pipeline


def sana():
    import diffusers

    blocks = ("ResBlock", "EfficientViTBlock")
    autoencoder = diffusers.AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=blocks, decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        downsample_block_type="conv", upsample_block_type="interpolate", decoder_norm_types="rms_norm",
        decoder_act_fns="silu", scaling_factor=0.41407,
    )  # fmt: skip
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=8,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16,
        sample_size=SIDE // 2,
    )  # fmt: skip
    return diffusers.SanaPipeline(
        tokenizer=byte_tokenizer(), text_encoder=language_model("Gemma2"), vae=autoencoder, transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def lumina2():
    import diffusers

    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=SIDE // 2, patch_size=2, in_channels=4, hidden_size=32, num_layers=1, num_refiner_layers=1,
        num_attention_heads=2, num_kv_heads=1, multiple_of=16, scaling_factor=1.0, axes_dim_rope=(4, 4, 8),
        axes_lens=(300, 32, 32), cap_feat_dim=16,
    )  # fmt: skip
    return diffusers.Lumina2Pipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae(4, 0.3611, 0.1159, quant=False), text_encoder=language_model("Gemma2"), tokenizer=byte_tokenizer(),
    )  # fmt: skip


def z_image():
    import diffusers

    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=16, axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), transformer=transformer,
        vae=vae(4, 0.3611, 0.1159, quant=False), text_encoder=language_model("Qwen3"), tokenizer=byte_tokenizer(),
    )  # fmt: skip


SEEING = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def qwen_vl(tokenizer=None):
    """Qwen2.5-VL of two layers; with a tokenizer that has marks of pictures it sees them."""
    import transformers

    start, _, image, video = tokenizer.convert_tokens_to_ids(list(SEEING)) if tokenizer else (1, 2, 3, 4)
    text = {
        **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"num_key_value_heads": 2, "rope_theta": 1000000.0, "bos_token_id": 256},
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        **{"eos_token_id": 256, "vocab_size": len(tokenizer) if tokenizer else 259},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    vision |= {"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [0]} if tokenizer else {}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, hidden_size=16, vocab_size=text["vocab_size"],
        vision_start_token_id=start, vision_token_id=2, image_token_id=image, video_token_id=video,
    )  # fmt: skip
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen_processor(tokenizer):
    """Cuts pictures into patches of 4 px; 2 × 2 of them are one token."""
    import transformers

    from adapt.backbones.qwen_processor import processor_class

    looks = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    return processor_class()(looks, tokenizer)


def qwen_image(kind="QwenImagePipeline", **encoders):
    import diffusers

    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, -0.4], latents_std=[1.1, 0.9, 1.2, 0.8],
    )  # fmt: skip
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    encoders = encoders or {"text_encoder": qwen_vl(), "tokenizer": byte_tokenizer()}
    return getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True), vae=autoencoder,
        transformer=transformer, **encoders,
    )  # fmt: skip


def qwen_image_edit(kind="QwenImageEditPipeline"):
    tokenizer = byte_tokenizer(4096, SEEING)
    return qwen_image(kind, tokenizer=tokenizer, text_encoder=qwen_vl(tokenizer), processor=qwen_processor(tokenizer))


def qwen_image_edit_plus():
    return qwen_image_edit("QwenImageEditPlusPipeline")


def chroma():
    import diffusers

    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 4, 8), approximator_num_channels=8, approximator_hidden_dim=16,
        approximator_layers=1,
    )  # fmt: skip
    return diffusers.ChromaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), transformer=transformer,
        vae=vae(4, 0.3611, 0.1159, quant=False), text_encoder=t5_text(), tokenizer=t5_tokenizer(),
    )  # fmt: skip


def aura_flow():
    """Gates of random blocks are so small that nothing of the text would show: five times as large."""
    import diffusers

    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=SIDE // 2, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=32,
        pos_embed_max_size=144,
    )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        parameter.data.mul_(5 if ".norm1" in name else 1)
    return diffusers.AuraFlowPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73), transformer=transformer,
        vae=vae(scaling=0.13025), text_encoder=umt5_text(), tokenizer=t5_tokenizer(),
    )  # fmt: skip


def _flux2(kind, text, tokenizer, guidance, **more):
    import diffusers
    import torch

    autoencoder = diffusers.AutoencoderKLFlux2(
        latent_channels=4, sample_size=SIDE, block_out_channels=(8, 8), norm_num_groups=8, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    autoencoder.bn.running_mean.copy_(torch.linspace(-0.4, 0.3, 16))
    autoencoder.bn.running_var.copy_(torch.linspace(0.5, 1.5, 16))
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guidance,
    )  # fmt: skip
    return getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), vae=autoencoder,
        transformer=transformer, text_encoder=text, tokenizer=tokenizer, **more,
    )  # fmt: skip


def flux2():
    """Its pipeline reads layers 10, 20 and 30; of the system's message this one reads a few words."""
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['content'][0]['text'][-9:] if m['role'] == 'system' else "
        "m['content'][0]['text'] }}<|im_end|>{% endfor %}"
    )
    return _flux2("Flux2Pipeline", mistral(31), tokenizer, True)


def flux2_klein(distilled=False):
    """Its pipeline reads layers 9, 18 and 27."""
    text = language_model("Qwen3", "ForCausalLM", num_hidden_layers=28)
    return _flux2("Flux2KleinPipeline", text, byte_tokenizer(), False, is_distilled=distilled)


def normalised_of(case, pipeline, **call):
    """Latents as the network has them: klein's pipeline gives them ready for its decoder, dev's as tokens."""
    import torch

    side, scale = case.side, pipeline.vae_scale_factor * 2
    found = pipeline(prompt=list(case.prompts[:2]), height=side, width=side, output_type="latent", **call).images
    if found.ndim == 3:
        return found.mT.unflatten(2, (side // scale, side // scale))
    norm = pipeline.vae.bn
    std = torch.sqrt(norm.running_var.view(1, -1, 1, 1) + pipeline.vae.config.batch_norm_eps)
    return (pipeline._patchify_latents(found) - norm.running_mean.view(1, -1, 1, 1)) / std


@cache
def pieces():
    """A folder, gone when Python ends, with a file of sentencepiece that has a piece a character."""
    import string

    import sentencepiece

    folder = TemporaryDirectory()
    with (Path(folder.name) / "tokenizer.model").open("wb") as opened:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([string.printable.strip()]), model_writer=opened, model_type="char", vocab_size=200,
            character_coverage=1.0, hard_vocab_limit=False, pad_id=-1, minloglevel=3,
        )  # fmt: skip
    return folder


def chat_glm(tokenizer):
    """Its own norms are made of whatever stood in memory."""
    import torch
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel

    config = ChatGLMConfig(
        num_layers=2, padded_vocab_size=tokenizer.vocab_size, hidden_size=16, ffn_hidden_size=32, kv_channels=8,
        num_attention_heads=2, seq_length=64, add_qkv_bias=True, multi_query_attention=True, original_rope=True,
    )  # fmt: skip
    model = ChatGLMModel(config, empty_init=False)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.ones_(parameter)
    return model


def kolors():
    import diffusers
    from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

    tokenizer = ChatGLMTokenizer(f"{pieces().name}/tokenizer.model")
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, layers_per_block=1, block_out_channels=(16, 16), norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 2), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 1), encoder_hid_dim=16,
        encoder_hid_dim_type="text_proj", projection_class_embeddings_input_dim=16 + 6 * 8, cross_attention_dim=32,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.014, beta_schedule="scaled_linear", num_train_timesteps=1100, steps_offset=1,
        timestep_spacing="leading",
    )  # fmt: skip
    return diffusers.KolorsPipeline(
        vae=vae(scaling=0.13025), unet=unet, scheduler=scheduler, text_encoder=chat_glm(tokenizer), tokenizer=tokenizer
    )


def dit():
    """Its pipeline knows the null class 1000 only."""
    import diffusers

    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=SIDE // 2,
        patch_size=2, num_embeds_ada_norm=1000, norm_type="ada_norm_zero", norm_elementwise_affine=False,
        activation_fn="gelu-approximate", attention_bias=True,
    )  # fmt: skip
    return diffusers.DiTPipeline(
        transformer=transformer, vae=vae(), scheduler=diffusers.DDIMScheduler(), id2label={0: "cat", 1: "dog, puppy"}
    )


def ddpm(classes=None):
    import diffusers

    unet = diffusers.UNet2DModel(
        sample_size=SIDE, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=classes,
    )  # fmt: skip
    return diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler())


def wan(experts=1, expanded=False):
    """`expanded`: the small 2.2, whose tokens have a time each, and whose autoencoder takes 16 px for one."""
    import diffusers
    import torch

    own = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}
    own = own if expanded else {}
    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True], **own
    )  # fmt: skip
    networks = []
    for number in range(experts):
        torch.manual_seed(number)
        networks.append(
            diffusers.WanTransformer3DModel(
                patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
                text_dim=16, freq_dim=32, ffn_dim=16, num_layers=1, cross_attn_norm=True,
                qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
            )
        )  # fmt: skip
    return diffusers.WanPipeline(
        transformer=networks[0], transformer_2=networks[1] if experts == 2 else None, vae=autoencoder,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0), text_encoder=umt5_text(),
        tokenizer=t5_tokenizer(),
        boundary_ratio=0.8 if experts == 2 else None, expand_timesteps=expanded,
    )  # fmt: skip


def ltx(timed=False):
    """`timed`: as from 0.9.1 on, with a decoder that is told a time and adds noise."""
    import diffusers
    import torch

    autoencoder = diffusers.AutoencoderKLLTXVideo(
        in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4, layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False), decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(timed,) * 5, upsample_residual=(timed,) * 4, upsample_factor=(1,) * 4,
        timestep_conditioning=timed, patch_size=1, patch_size_t=1, encoder_causal=True, decoder_causal=False,
    )  # fmt: skip
    autoencoder.use_framewise_encoding = autoencoder.use_framewise_decoding = False
    autoencoder.latents_mean.copy_(torch.linspace(-0.4, 0.3, 8))
    autoencoder.latents_std.copy_(torch.linspace(0.8, 1.5, 8))
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, num_layers=1, caption_channels=16,
    )  # fmt: skip
    return diffusers.LTXPipeline(
        transformer=transformer, vae=autoencoder, text_encoder=t5_text(), tokenizer=t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
        ),
    )  # fmt: skip


def cogvideox(rotary=True, joined=None, scheduler="CogVideoXDPMScheduler"):
    """`rotary` and DPM as the large one, a table of positions and DDIM as the small one; `joined` 2 as 1.5."""
    import diffusers

    autoencoder = diffusers.AutoencoderKLCogVideoX(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 8), layers_per_block=1,
        norm_num_groups=4, down_block_types=("CogVideoXDownBlock3D",) * 3, up_block_types=("CogVideoXUpBlock3D",) * 3,
        temporal_compression_ratio=4, scaling_factor=0.7,
    )  # fmt: skip
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=16,
        text_embed_dim=16, num_layers=1, sample_width=4, sample_height=4, sample_frames=9, patch_size=2,
        patch_size_t=joined, patch_bias=joined is None, temporal_compression_ratio=4, max_text_seq_length=24,
        use_rotary_positional_embeddings=rotary,
    )  # fmt: skip
    return diffusers.CogVideoXPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5_text(), vae=autoencoder, transformer=transformer,
        scheduler=getattr(diffusers, scheduler)(
            **BETAS, clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing",
            rescale_betas_zero_snr=True, snr_shift_scale=1.0 if rotary else 3.0,
        ),
    )  # fmt: skip


def clip_by_frames_of(case, pipeline, **call):
    """Latents of one that lays them frame by frame."""
    return clip_of(case, pipeline, **call).transpose(1, 2)


def hidream():
    """Its pipeline draws one number of pixels, whatever it is asked for."""
    import diffusers
    import transformers

    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, caption_channels=[16, 16], text_emb_dim=32, num_routed_experts=4,
        num_activated_experts=2, axes_dims_rope=(4, 2, 2), max_resolution=(16, 16), llama_layers=[0, 1],
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=259, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=64, pad_token_id=256, bos_token_id=256, eos_token_id=256,
        )
    )  # fmt: skip
    return diffusers.HiDreamImagePipeline(
        transformer=transformer, vae=vae(4, 0.3611, 0.1159, quant=False),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=clip_text(True), tokenizer=clip_tokenizer(), text_encoder_2=clip_text(True, "gelu"),
        tokenizer_2=clip_tokenizer(), text_encoder_3=t5_text(), tokenizer_3=t5_tokenizer(),
        text_encoder_4=llama, tokenizer_4=byte_tokenizer(),
    )  # fmt: skip


def of_one_size(case, pipeline, **call):
    """Latents of HiDream's."""
    pipeline.default_sample_size = case.side // case.scale
    return picture_of(case, pipeline, **call)


def _kandinsky5(kind, autoencoder, seen):
    """Its modulations are zeros when they are made."""
    import diffusers
    import torch

    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16, model_dim=16, ff_dim=32,
        num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 2, 2), visual_cond=seen,
    )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        if "modulation" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return getattr(diffusers, kind)(
        transformer=transformer, vae=autoencoder, text_encoder=qwen_vl(), tokenizer=byte_tokenizer(2048),
        text_encoder_2=clip_text(length=77), tokenizer_2=clip_tokenizer(77),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def kandinsky5_image():
    return _kandinsky5("Kandinsky5T2IPipeline", vae(4, 0.3611, 0.1159, quant=False), False)


def kandinsky5():
    import diffusers

    autoencoder = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 3, up_block_types=("HunyuanVideoUpBlock3D",) * 3,
        mid_block_add_attention=False, spatial_compression_ratio=4, temporal_compression_ratio=4,
    )  # fmt: skip
    return _kandinsky5("Kandinsky5T2VPipeline", autoencoder, True)


def one_by_one_of(case, pipeline, *, generator, **call):
    """Latents of Kandinsky 5's, which in a batch tells the shorter prompts padding."""
    import torch

    if case.frames == 1:
        pipeline.vae_scale_factor_spatial, pipeline.resolutions = case.scale, [(case.side, case.side)]
    else:
        call["num_frames"] = case.frames
    call["negative_prompt"] = call.pop("negative_prompt", [None])[0]
    rows = [
        pipeline(prompt=prompt, height=case.side, width=case.side, output_type="latent", generator=own, **call)[0]
        for prompt, own in zip(case.prompts, generator, strict=False)
    ]
    found = torch.cat(rows).movedim(-1, 1)
    return found.squeeze(2) if case.frames == 1 else found


def stable_audio():
    import diffusers
    import transformers
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

    transformer = diffusers.StableAudioDiTModel(
        sample_size=8, in_channels=3, out_channels=3, num_layers=2, attention_head_dim=4,
        num_key_value_attention_heads=2, cross_attention_dim=4, time_proj_dim=8, global_states_input_dim=8,
        cross_attention_input_dim=4,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderOobleck(
        encoder_hidden_size=6, downsampling_ratios=[2, 2], decoder_channels=3, decoder_input_channels=3,
        audio_channels=2, channel_multiples=[2, 4], sampling_rate=64,
    )  # fmt: skip
    text = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=98, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1,
            decoder_start_token_id=0,
        )
    )  # fmt: skip
    return diffusers.StableAudioPipeline(
        vae=autoencoder, text_encoder=text, tokenizer=t5_tokenizer(24), transformer=transformer,
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=8, conditioning_dim=4, min_value=0, max_value=32
        ),
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(
            solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
        ),
    )  # fmt: skip


def roberta_tokenizer(length=24):
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    return transformers.RobertaTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=length)


def clap():
    """CLAP with a text side of one layer."""
    import transformers

    text = {
        **{"vocab_size": 261, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "pad_token_id": 1},
        **{"num_attention_heads": 2, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 2},
    }
    sound = {
        **{
            "spec_size": 8,
            "window_size": 4,
            "num_mel_bins": 8,
            "intermediate_size": 16,
            "patch_size": 2,
            "depths": [1, 1],
        },
        **{
            "hidden_size": 16,
            "patch_stride": 2,
            "num_attention_heads": [2, 2],
            "num_hidden_layers": 2,
            "patch_embeds_hidden_size": 8,
        },
    }
    config = transformers.ClapConfig(text_config=text, audio_config=sound, projection_dim=8)
    return transformers.ClapModel(config)


def audioldm2():
    """64 bands at 16 kHz and the vocoder's rates are the published ones."""
    import diffusers
    import transformers
    from diffusers.pipelines.audioldm2.modeling_audioldm2 import AudioLDM2ProjectionModel

    unet = diffusers.AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8, sample_size=16, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=8,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=[[None, 24, 16], [None, 24, 16]],
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=4, block_out_channels=(8, 8, 8), norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, scaling_factor=0.92,
    )  # fmt: skip
    vocoder = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=64, sampling_rate=16000, upsample_initial_channel=32, upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]],
            normalize_before=False,
        )
    )  # fmt: skip
    language = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=24, n_head=2, n_layer=1, vocab_size=32, n_positions=99, n_inner=16)
    )
    language.config.max_new_tokens = 8
    return diffusers.AudioLDM2Pipeline(
        vae=autoencoder, text_encoder=clap(), text_encoder_2=t5_text(), language_model=language, unet=unet,
        projection_model=AudioLDM2ProjectionModel(8, 16, 24), tokenizer=roberta_tokenizer(),
        tokenizer_2=t5_tokenizer(24), vocoder=vocoder,
        feature_extractor=transformers.ClapFeatureExtractor(feature_size=8, hop_length=480),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
            set_alpha_to_one=False,
        ),
    )  # fmt: skip


def sounds_one_by_one_of(case, pipeline, *, generator, **call):
    """Latents of AudioLDM 2's, whose language model counts the padding of shorter prompts."""
    import torch

    rows = [
        pipeline(prompt=[prompt], output_type="latent", generator=[own], **call).audios
        for prompt, own in zip(case.prompts, generator, strict=False)
    ]
    return torch.cat(rows)


def kandinsky22():
    import diffusers
    import transformers

    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, in_channels=4, out_channels=8, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), norm_num_groups=8,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), attention_head_dim=8,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", resnet_time_scale_shift="scale_shift", encoder_hid_dim=16,
        encoder_hid_dim_type="image_proj", addition_embed_type="image", cross_attention_dim=16,
    )  # fmt: skip
    movq = diffusers.VQModel(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), latent_channels=4,
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), layers_per_block=1, norm_num_groups=8,
        norm_type="spatial", num_vq_embeddings=12, vq_embed_dim=4,
    )  # fmt: skip
    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=12, embedding_dim=16, num_layers=1, num_embeddings=24
    )
    prior.clip_std.data.fill_(1.0)
    seen = transformers.CLIPVisionConfig(
        hidden_size=16, image_size=28, projection_dim=16, intermediate_size=16, num_attention_heads=2,
        num_hidden_layers=1, patch_size=14,
    )  # fmt: skip
    return diffusers.KandinskyV22CombinedPipeline(
        unet=unet, movq=movq, prior_prior=prior, prior_text_encoder=clip_text(True, "gelu"),
        prior_image_encoder=transformers.CLIPVisionModelWithProjection(seen), prior_tokenizer=clip_tokenizer(),
        prior_image_processor=transformers.CLIPImageProcessor(size=28, crop_size=28),
        prior_scheduler=diffusers.UnCLIPScheduler(prediction_type="sample", num_train_timesteps=1000, clip_sample_range=5),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False, set_alpha_to_one=False,
            steps_offset=1,
        ),
    )  # fmt: skip


def of_a_prior(case, pipeline, *, generator, **call):
    """Latents of Kandinsky 2.2's decoder, told what its prior draws of each prompt from noise of seed 0."""
    import torch

    pipeline.decoder_pipe.scheduler = pipeline.scheduler
    seen = [pipeline.prior_pipe([p], generator=torch.Generator().manual_seed(0)) for p in case.prompts[:2]]
    told, black = (torch.cat([getattr(s, n) for s in seen]) for n in ("image_embeds", "negative_image_embeds"))
    return pipeline.decoder_pipe(
        told, black, height=case.side, width=case.side, generator=generator, output_type="latent", **call
    ).images


def sound_of(case, pipeline, **call):
    """Latents of one that makes sounds."""
    return pipeline(prompt=list(case.prompts[:2]), output_type="latent", **call).audios


FLUX_GUIDANCE = {"guidance_scale": 3.5}
PIXART = {"use_resolution_binning": False, "clean_caption": False}
CASES = {
    "stable-diffusion": Case(stable_diffusion, tokens=None),
    "stable-diffusion-xl": Case(stable_diffusion_xl, tokens=None),
    "stable-diffusion-3": Case(stable_diffusion_3, {"max_sequence_length": 24}),
    "flux": Case(
        flux, {"max_sequence_length": 24}, packed=True,
        off=({"guidance_scale": 2.5}, {"embedded_guidance": 2.5, "guidance_scale": 1.0}),
        on=({**FLUX_GUIDANCE, "true_cfg_scale": 4.0, "negative_prompt": ""}, {"guidance_scale": 4.0}),
    ),
    **{
        name: Case(
            build, tokens=None, run=edit_of, family=family, edits=True,
            on=({"guidance_scale": 4.0, "image_guidance_scale": 1.7}, {"guidance_scale": 4.0, "image_guidance_scale": 1.7}),
        )
        for name, build, family in (
            ("instruct-pix2pix", instruct_pix2pix, "stable-diffusion"),
            ("instruct-pix2pix-xl", instruct_pix2pix_xl, "stable-diffusion-xl"),
        )
    },
    "flux-kontext": Case(
        flux_kontext, {"max_sequence_length": 24, "_auto_resize": False}, packed=True, run=edit_of, family="flux",
        off=({"guidance_scale": 2.5}, {"embedded_guidance": 2.5, "guidance_scale": 1.0}),
        on=({**FLUX_GUIDANCE, "true_cfg_scale": 4.0, "negative_prompt": ""}, {"guidance_scale": 4.0}), edits=True,
    ),
    "inpainting": Case(inpainting, tokens=None, run=filled_of, family="stable-diffusion", fills=True),
    "inpainting-xl": Case(inpainting_xl, tokens=None, run=filled_of, family="stable-diffusion-xl", fills=True),
    "flux-fill": Case(
        flux_fill, {"max_sequence_length": 24}, packed=True, run=filled_of, family="flux", fills=True, on=None,
        off=({"guidance_scale": 2.5}, {"embedded_guidance": 2.5, "guidance_scale": 1.0}),
    ),
    "pixart-alpha": Case(pixart_alpha, {**PIXART, "max_sequence_length": 24}),
    "pixart-sigma": Case(pixart_sigma, {**PIXART, "max_sequence_length": 24}),
    "sana": Case(sana, {"use_resolution_binning": False, "max_sequence_length": 32}, tokens=32),
    "lumina2": Case(lumina2, {"max_sequence_length": 256}, tokens=256, stretch=4),  # its pipeline takes the factor 8
    "z-image": Case(
        z_image, {"max_sequence_length": 64}, tokens=64, off=({"guidance_scale": 0.0}, {"guidance_scale": 1.0}),
        on=({"guidance_scale": 3.0}, {"guidance_scale": 4.0}),
    ),
    "qwen-image": Case(
        qwen_image, {"max_sequence_length": 256}, packed=True, tokens=256,
        off=({"true_cfg_scale": 1.0}, {"guidance_scale": 1.0}),
        on=({"true_cfg_scale": 4.0, "negative_prompt": ""}, {"guidance_scale": 4.0}),
    ),
    "chroma": Case(chroma, {"max_sequence_length": 24}, packed=True),
    "aura-flow": Case(aura_flow, {"max_sequence_length": 24}),
    "kolors": Case(kolors, tokens=256),  # its pipeline forgets how many it was asked for
    "flux2": Case(
        flux2, {"max_sequence_length": 48}, tokens=48, run=normalised_of, scale=4,
        off=({"guidance_scale": 2.5}, {"embedded_guidance": 2.5, "guidance_scale": 1.0}),
        on=({"guidance_scale": 9.0}, {"embedded_guidance": 9.0, "guidance_scale": 1.0}),
    ),
    "flux2-klein": Case(flux2_klein, {"max_sequence_length": 64}, tokens=64, run=normalised_of, scale=4),
    **{
        name: Case(
            build, {"max_sequence_length": 1024}, packed=True, tokens=256, run=edit_of, family="qwen-image", edits=True,
            off=({"true_cfg_scale": 1.0}, {"guidance_scale": 1.0}),
            on=({"true_cfg_scale": 4.0, "negative_prompt": ""}, {"guidance_scale": 4.0}),
        )
        for name, build in (("qwen-image-edit", qwen_image_edit), ("qwen-image-edit-plus", qwen_image_edit_plus))
    },
    "dit": Case(dit, run=class_of, prompts=("3", "7", "5", "1")),
    "ddpm": Case(
        ddpm, run=pixels_of, prompts=("", "", "", ""), parts=False, off=({}, {}), on=None, scale=1,
        shown=lambda x: (x / 2 + 0.5).clamp(0, 1),
    ),
    "flux-schnell": Case(
        lambda: flux(guidance=False), {"max_sequence_length": 24}, packed=True, family="flux",
        off=({"guidance_scale": 0.0}, {"guidance_scale": 1.0}),
        on=({"true_cfg_scale": 4.0, "negative_prompt": ""}, {"guidance_scale": 4.0}),
    ),
    "wan": Case(wan, {"max_sequence_length": 24}, run=clip_of, side=16, frames=5, scale=8),
    "wan-2.2-14b": Case(
        lambda: wan(experts=2), {"max_sequence_length": 24}, run=clip_of, side=16, frames=5, scale=8, family="wan"
    ),
    "wan-2.2-5b": Case(
        lambda: wan(expanded=True), {"max_sequence_length": 24}, run=clip_of, side=32, frames=5, scale=16, family="wan"
    ),
    "stable-audio": Case(stable_audio, run=sound_of, side=32, scale=4),
    "cogvideox": Case(
        cogvideox, {"max_sequence_length": 24}, run=clip_by_frames_of, side=16, frames=9, scale=4
    ),
    "hidream": Case(hidream, {"max_sequence_length": 24}, run=of_one_size),
    "kandinsky5-image": Case(
        kandinsky5_image, {"max_sequence_length": 256}, tokens=256, run=one_by_one_of,
        on=({"guidance_scale": 4.0, "negative_prompt": ""}, {"guidance_scale": 4.0}),
    ),
    "kandinsky5": Case(
        kandinsky5, {"max_sequence_length": 768}, tokens=768, run=one_by_one_of, side=16, frames=5, scale=4,
        on=({"guidance_scale": 4.0, "negative_prompt": ""}, {"guidance_scale": 4.0}),
    ),
    "kandinsky22": Case(kandinsky22, run=of_a_prior),
    "audioldm2": Case(audioldm2, run=sounds_one_by_one_of, side=10240, scale=640),
    "ltx-video": Case(ltx, {"max_sequence_length": 24}, run=clip_of, packed=True, frames=9, scale=4),
    "ltx-video-0.9.1": Case(
        lambda: ltx(timed=True), {"max_sequence_length": 24}, run=clip_of, packed=True, frames=9, scale=4, family="ltx-video"
    ),
}  # fmt: skip
"""By the family's name in the table, or what another task of it is called. A pipeline of the table without a case here fails
`test_every_pipeline_has_a_case`."""


def family_of(name):
    """A case's row of the table."""
    return CASES[name].family or name


def built(name, seed=0):
    """The family's tiny pipeline: always the same weights, none of them all zero, in eval mode."""
    import torch

    torch.manual_seed(seed)
    pipeline = CASES[name].build()
    pipeline.set_progress_bar_config(disable=True)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval()
            for parameter in module.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.02)
    return pipeline
