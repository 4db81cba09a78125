"""Tiny random pipelines of every family, made in memory, and what each one's own pipeline is called with.

Byte-level tokenizers spend a token a byte. Biases and norms that are built as zeros are filled, or an error in them could not
show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", self.run or picture_of)


def picture_of(case, pipeline, **call):
    """Latents of a pipeline that makes pictures from prompts."""
    side = case.side * case.stretch
    latents = pipeline(prompt=list(case.prompts[:2]), height=side, width=side, output_type="latent", **call).images
    latents = pipeline._unpack_latents(latents, side, side, pipeline.vae_scale_factor) if case.packed else latents
    return latents.squeeze(2) if latents.ndim == 5 else latents  # a picture of one frame


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
def stable_diffusion(prediction_type="epsilon"):
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
        cross_attention_dim=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        **BETAS, clip_sample=False, steps_offset=1, prediction_type=prediction_type, set_alpha_to_one=False
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae(), unet=unet, scheduler=scheduler, tokenizer=clip_tokenizer(), text_encoder=clip_text(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl():
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, layers_per_block=1, block_out_channels=(16, 16), norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 2), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=16 + 6 * 8, cross_attention_dim=32,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading")
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(scaling=0.13025), unet=unet, scheduler=scheduler, text_encoder=clip_text(), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(True, "gelu"), tokenizer_2=clip_tokenizer(), add_watermarker=False,
    )  # fmt: skip


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


def flux(guidance=True):
    import diffusers

    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8), guidance_embeds=guidance,
    )  # fmt: skip
    shifting = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15} if guidance else {}
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**shifting), transformer=transformer,
        vae=vae(4, 0.3611, 0.1159, quant=False), text_encoder=clip_text(), tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


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
    )  # fmt: skip


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
}  # fmt: skip
"""By the family's name in the table. A row of the table without a case here fails `test_every_family_has_a_case`."""


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
