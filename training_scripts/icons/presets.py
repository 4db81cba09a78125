"""The two sizes of `icons`: `cpu` is what two cores train in an evening or two, `gpu` in under an hour."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention


@dataclass(frozen=True)
class Preset:
    """Pixels a side; channels of the autoencoder by level (f8) and its latents; channels of the denoiser; batches."""

    size: int
    autoencoder: tuple[int, int, int, int]
    latents: int
    denoiser: tuple[int, ...]
    picture_batch: int
    latent_batch: int


PRESETS = {
    "cpu": Preset(64, (16, 32, 64, 96), 12, (96, 192), 12, 12),
    "gpu": Preset(128, (32, 64, 128, 128), 8, (96, 192, 256), 64, 512),
}


def build_autoencoder(preset: Preset) -> AutoencoderKL:
    """Few channels at full resolution, where most of the cost is; no attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=preset.autoencoder,
        layers_per_block=1,
        latent_channels=preset.latents,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=preset.size,
    )


def build_denoiser(preset: Preset) -> UNet2DConditionModel:
    """Heads of 32 channels, cross-attention to MiniLM's 384 at every level."""
    levels = len(preset.denoiser)
    return UNet2DConditionModel(
        sample_size=preset.size // 8,
        in_channels=preset.latents,
        out_channels=preset.latents,
        block_out_channels=preset.denoiser,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=384,
        attention_head_dim=tuple(c // 32 for c in preset.denoiser),  # diffusers reads this as the number of heads
        norm_num_groups=32,
    )


def build_scheduler() -> DDIMScheduler:
    """v-prediction down to zero signal: backgrounds become really white (Lin et al. 2023, arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


@dataclass(frozen=True)
class Machine:
    """Where a training runs: the device, and bf16 beside fp32 weights on a GPU."""

    device: torch.device
    compiled: bool

    @property
    def mixed(self) -> torch.autocast:
        """bf16 on a GPU and on CPUs with AMX tiles; nothing elsewhere, where it is slower than fp32."""
        fast = self.device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.autocast(self.device.type, torch.bfloat16, enabled=fast)


class FloatAttention:
    """Attention in fp32 inside a bf16 step: on a CPU the backward pass of bf16 attention is ten times slower."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens (B, L, D), of a condition (B, S, 384) or their own -> (B, L, D). The mask is not used by this model."""
        others = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, x in ((attn.to_q, hidden_states), (attn.to_k, others), (attn.to_v, others))
        )
        with torch.autocast("cpu", enabled=False):
            seen = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
        out: torch.Tensor = attn.to_out[0](seen.transpose(1, 2).flatten(2))
        return out


def machine(threads: int, compiled: bool) -> Machine:
    """The GPU if there is one, else so many threads of the CPU."""
    torch.set_num_threads(threads)
    return Machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"), compiled)
