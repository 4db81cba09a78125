"""A backbone of your own on data that are no pictures: time series. Learns sines, is adapted to square waves; half a minute.

python examples/10_your_own_family.py --steps 150
"""

import argparse

import diffusers
import torch

from adapt.backbones import FAMILIES, Backbone, Family
from adapt.data.plan import Plan
from adapt.lora import inject
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle
from conditioning import Condition

ROW = Family("series", "time series", "", {"DDPMPipeline": "series"}, sample_size=32)


class Series(Backbone):
    """One channel of 32 values: x is (B, 1, 1, 32). The network is a UNet over four equal rows."""

    family, denoiser_name, media_components, lora_targets = "series", "unet", (), ("conv1", "conv2")
    scale_factor, latent_channels, multiple, guidance_scale = 1, 1, 1, 1.0
    encode_text = lambda self, captions: {}  # noqa: E731 - it is told nothing

    def predict(self, x_t, t, condition):  # noqa: ANN001, ANN201
        return self.denoiser(x_t.expand(-1, -1, 4, -1), t, return_dict=False)[0].mean(2, keepdim=True)


def losses(backbone: Backbone, step: int, square: bool, rows: int = 64) -> torch.Tensor:
    """The objective's (rows,) on sines of random phase or their signs, at times and noise that the Plan draws."""
    x = torch.sin(2 * torch.pi * (torch.arange(32) / 16 + torch.rand(rows, 1, 1, 1, generator=generator_of(step))))
    x, objective, drawn = x.sign() if square else x, backbone.objective(), Plan(0, rows, rows).rows(step, range(rows))
    t, noise = objective.times(drawn.quantiles()), drawn.noise(x.shape[1:])
    x_t, nothing = objective.noised(x, noise, t), Condition()
    return objective.losses(backbone.predict(x_t, t, nothing), objective.target(x, noise, t), t)


def learn(backbone: Backbone, parameters: list[torch.Tensor], steps: int, square: bool) -> None:
    """So many steps of Adam, each on waves of its own."""
    optimizer = torch.optim.Adam(parameters, 5e-3)
    for step in range(steps):
        optimizer.zero_grad()
        losses(backbone, step, square).mean().backward()
        optimizer.step()


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="of training, and as many of adapting")
    return parser


def main() -> None:
    """Prints how much lower the held-out loss is, and how square what is drawn."""
    steps = parser().parse_args().steps
    torch.manual_seed(0)
    FAMILIES["series"] = ROW
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = diffusers.UNet2DModel(32, 1, 1, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, **kinds)
    backbone = Series(diffusers.DDPMPipeline(unet, diffusers.DDIMScheduler(clip_sample=False)), "series")
    learn(backbone, list(unet.requires_grad_(True).parameters()), steps, square=False)
    injection = inject(unet.requires_grad_(False), rank=4, alpha=4, dropout=0.0, targets=backbone.lora_targets, seed=0)
    before = losses(backbone, 10**6, True, 256).detach()
    learn(backbone, list(injection.parameters.values()), steps, square=True)
    gain = before - losses(backbone, 10**6, True, 256).detach()
    print(
        f"held-out loss lower by {gain.mean():.3f}: {gain.mean() / (gain.std() / len(gain) ** 0.5):.1f} standard errors"
    )
    drawings = [settle(Request(prompt="", steps=20, height=1, width=32), backbone)] * 16
    drawn = draw_latents(backbone, drawings, [generator_of(seed) for seed in range(16)])
    print(f"mean of |x|: {drawn.abs().mean():.2f} (sines 0.64, square waves 1)")


if __name__ == "__main__":
    main()
