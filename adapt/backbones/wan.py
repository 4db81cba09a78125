"""Wan 2.1 and 2.2: clips by a flow transformer, with one network or two experts (Wan Team 2025, arXiv 2503.20314)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from adapt.backbones.base import Backbone
from adapt.backbones.by_channel import ByChannel
from adapt.backbones.held import Expert
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class Wan(ByChannel, Backbone):
    """Wan 2.2 has two experts: `transformer` for times from `boundary_ratio` on, `transformer_2` below. Rows of one batch go each
    to the expert of its time. The small 2.2 (5B) is told a time for every token (`expand_timesteps`)."""

    family: ClassVar[str] = "wan"
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 5.0
    sampling_steps: ClassVar[int] = 50
    full_precision: ClassVar[tuple[str, ...]] = ("vae",)

    @property
    def scale_factor(self) -> int:
        return int(self.pipeline.vae_scale_factor_spatial)

    @property
    def frame_scale(self) -> int:
        return int(self.pipeline.vae_scale_factor_temporal)

    @property
    def latent_channels(self) -> int:
        return int(self.pipeline.vae.config.z_dim)

    @property
    def boundary(self) -> float | None:
        """Time (in the scheduler's unit) from which the first expert predicts; None: there is one for all."""
        ratio = self.pipeline.config.boundary_ratio
        return None if ratio is None else float(ratio) * float(self.scheduler_config["num_train_timesteps"])

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        names = ["transformer", *(["transformer_2"] if self.boundary is not None else [])]
        return {name: self.modules[name] for name in names}

    @property
    def experts(self) -> Mapping[str, Expert]:
        if self.boundary is None:
            return {}
        ratio = float(self.pipeline.config.boundary_ratio)
        return {"high_noise": Expert("transformer", ratio, 1.0), "low_noise": Expert("transformer_2", 0.0, ratio)}

    @property
    def device(self) -> torch.device:
        """Where the experts are: one that is not taught may rest in the machine's memory."""
        known = [self.modules[e.component] for e in self.experts.values() if e.component in self.modules]
        there = [next(network.parameters()).device for network in known]
        return next((device for device in there if device.type != "cpu"), super().device)

    def takes(self, name: str, t: Tensor) -> Tensor:
        if self.boundary is None:
            return super().takes(name, t)
        return t >= self.boundary if name == "transformer" else t < self.boundary

    def encode_text(self, captions: Sequence[str]) -> Part:
        with quiet_libraries():
            tokens, _ = self.pipeline.encode_prompt(
                list(captions), do_classifier_free_guidance=False, max_sequence_length=self.max_tokens,
                device=self.device,
            )  # fmt: skip
        return {"tokens": tokens}  # (B, L, D), zeros behind the caption's end

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        tokens = self.whole_tokens_of(condition)
        owned = zip(self.networks, (self.takes(name, t).nonzero().flatten() for name in self.denoisers), strict=True)
        shares = [(network, rows) for network, rows in owned if len(rows)]
        if len(shares) == 1:
            return self._by(shares[0][0], x_t, t, tokens)
        found = torch.cat([self._by(network, x_t[rows], t[rows], tokens[rows]) for network, rows in shares])
        return found[torch.cat([rows for _, rows in shares]).argsort()]

    def _by(self, network: nn.Module, x_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        t = self._of_tokens(x_t, t) if self.pipeline.config.expand_timesteps else t
        prediction: Tensor = network(hidden_states=x_t, timestep=t, encoder_hidden_states=tokens, return_dict=False)[0]
        return prediction

    def _of_tokens(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The time of each token (B, L): from words alone, they all are at the same."""
        *_, frames, height, width = x_t.shape
        places = frames * (height // self.entry.patch) * (width // self.entry.patch)
        return t[:, None].expand(-1, places)
