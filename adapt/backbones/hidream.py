"""HiDream-I1: a flow transformer of two streams, then one, with sparse experts and four text encoders (Cai et al. 2025, arXiv
2505.22705)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapt.backbones.base import Backbone
from adapt.errors import BackboneError, SettingsError
from adapt.quiet import quiet_libraries
from conditioning import Condition, Part


class HiDream(Backbone):
    """T5's tokens, the states of all of Llama's layers (each block of the network is told one), and both CLIPs' pooled states.
    The network predicts the negative of the velocity."""

    family: ClassVar[str] = "hidream"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out"),
        *("attn1.to_q_t", "attn1.to_k_t", "attn1.to_v_t", "attn1.to_out_t"),
    )
    time_sampling: ClassVar[str] = "logit_normal"
    guidance_scale: ClassVar[float] = 5.0
    sampling_steps: ClassVar[int] = 50

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        module: Any
        for module in self.modules.get(self.denoiser_name, torch.nn.Module()).modules():
            if hasattr(module, "moe_infer"):
                module.moe_infer = partial(mixed, module)
                module._force_inference_output = True  # one way of mixing, whether it is trained or not

    def require_size(self, height: int, width: int) -> None:
        """Pictures that are no squares are padded to the most tokens that the network knows."""
        rows, columns = self.config["max_resolution"]
        most = rows * columns * self.scale_factor**2
        if height != width and height * width > most:
            raise SettingsError("the base has no room for pictures of this size", given=f"{width}x{height}",
                                allowed=f"up to {most} pixels, or squares")  # fmt: skip

    def encode_text(self, captions: Sequence[str]) -> Part:
        if self.pipeline.text_encoder_4 is None:
            raise BackboneError(
                "the base lacks its fourth text encoder, Llama 3.1 8B Instruct, which is published apart",
                given=self.reference, next="save it with one: docs/families.md, Bases in two parts",
            )  # fmt: skip
        with quiet_libraries():
            tokens, _, llama, _, pooled, _ = self.pipeline.encode_prompt(
                list(captions), device=self.device, do_classifier_free_guidance=False,
                max_sequence_length=self.max_tokens,
            )  # fmt: skip
        return {
            "tokens": tokens,
            "llama": llama.transpose(0, 1),
            "pooled": pooled,
        }  # (B, L, D), (B, layers, L, D), (B, P)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        text, network, side = condition.parts["text"], self.modules[self.denoiser_name], self.entry.patch
        tokens, counted, _, places = network.patchify(x_t)  # type: ignore[operator]
        said: Tensor = self.denoiser(
            hidden_states=tokens, timesteps=t, encoder_hidden_states_t5=self.whole_tokens_of(condition),
            encoder_hidden_states_llama3=text["llama"].transpose(0, 1), pooled_embeds=text["pooled"], img_ids=places,
            img_sizes=[(x_t.shape[-2] // side, x_t.shape[-1] // side)] * len(x_t),  # numbers: no value has to be waited for
            hidden_states_masks=tokens.new_ones(tokens.shape[:2]) if counted is None else counted, return_dict=False,
        )[0]  # fmt: skip
        return -(said if said.shape == x_t.shape else unpatched(said, x_t))


def unpatched(said: Tensor, like: Tensor) -> Tensor:
    """What the network says in train mode: tokens (B, C, L, p²), of which those beyond the picture are padding."""
    (height, width), side = like.shape[-2:], int(said.shape[-1] ** 0.5)
    rows, columns = height // side, width // side
    tokens = said[:, :, : rows * columns].reshape(len(said), -1, rows, columns, side, side)
    return tokens.permute(0, 1, 2, 4, 3, 5).reshape(like.shape)


def mixed(layer: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What the chosen experts say of each token, weighted and added. diffusers' own lets no gradient through.

    Each expert adds to a token once at most, so that the sum has one order.

    Args:
        layer: holds `experts`, of which each token has chosen `num_activated_experts`.
        x: (N, D).
        chosen: numbers of experts, (N · k,).
        weights: (N · k, 1).
    """
    found = torch.zeros_like(x)
    for number, expert in enumerate(layer.experts):
        places = _places(chosen, number, len(layer.experts))
        tokens = places // layer.num_activated_experts
        said = expert(x[tokens]) * weights[places]
        found = found.index_add(0, tokens, said.to(found.dtype))
    return found


def _places(chosen: Tensor, number: int, experts: int) -> Tensor:
    """Where an expert was chosen; without values (meta), an even share."""
    if chosen.device.type == "meta":
        return chosen[: len(chosen) // experts]
    return (chosen == number).nonzero().flatten()
