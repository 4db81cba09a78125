"""What a run is computed with: device, processes, precision, and what may leave the GPU meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import nn

from adapt.api.kernels import uncompile
from adapt.api.offload import send_away
from adapt.api.pairs import teaches_edits
from adapt.api.quantised import quantise, require_fitting
from adapt.api.sharding import cut_up
from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.config.network import SPLITS
from adapt.errors import SettingsError
from adapt.formats.layer import Layer
from adapt.loading import held_in, own_precision, told_of
from adapt.progress import say
from adapt.source import bundled, source
from adapt.training.launch import require_even
from adapt.training.optimizer import rehearse
from adapt.training.validation import Preview

PATIENCE = timedelta(hours=6)
"""For which processes wait for one that exports or draws. One that dies is noticed long before: gloo's connections close at once,
and where NCCL only waits, launchers (ours, torchrun's, Accelerate's) end the others of a machine within 30 s, and srun's
`--kill-on-bad-exit` those of other machines."""
Modules = Mapping[str, Mapping[str, Layer]]
"""Layers by component and name."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """Device, precision and processes, as `adapt train --num-processes`, `accelerate launch`, torchrun or the machine says.

    Raises:
        SettingsError: what this machine cannot do; an uneven share of the batch; an optimizer that cannot be used here.
    """
    if settings.precision == "fp16" and not torch.accelerator.is_available():
        raise SettingsError("precision=fp16 needs a GPU", next="leave precision out on a CPU, or try bf16")
    require_whole_networks(os.environ)
    gpus, local = torch.accelerator.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if 0 < gpus < local:
        raise SettingsError("there are more processes than GPUs", given=local, allowed=gpus)
    AcceleratorState._reset_state()  # a run before this one, in the same Python, may have had another precision
    # Accelerate joins processes on CPUs only when it is told so: without it, each would train for itself.
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        cpu=not torch.accelerator.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    require_even(settings, accelerator.num_processes)
    if accelerator.num_processes > 1:
        require_alone(settings, accelerator.num_processes)
    rehearse(settings, accelerator.device)
    return accelerator


SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "PARALLELISM_CONFIG_TP_SIZE": "tensor parallelism",
}
"""What Accelerate's launcher says of a configuration that cuts networks up."""


def require_whole_networks(environment: Mapping[str, str]) -> None:
    """Raises `SettingsError` where a launcher asks for networks cut up over processes, or for what learns: DeepSpeed's engine and
    Accelerate's FSDP also own the step and its checkpoints, and a LoRA's exact resume, averages and proofs hold whole tensors."""
    off = {key: ("", "false", "no", "0", *("1" if key.endswith("_SIZE") else "")) for key in SHARDING}
    asked = [name for key, name in SHARDING.items() if environment.get(key, "").lower() not in off[key]]
    if asked:
        raise SettingsError(
            "adapt does not take networks that a launcher cuts up over processes: it cuts up the frozen base itself",
            given=", ".join(asked),
            next=_instead(environment),
        )


def _instead(environment: Mapping[str, str]) -> str:
    """What does the same here."""
    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
    plain = "plain processes (recipes/several_gpus.yaml): what ZeRO-1 and 2 share is small of a LoRA"
    large = "shard=true (recipes/sharded.yaml), or quantize or memory=fit"
    return f"{plain if stage in ('0', '1', '2') else large}; training_scripts/README.md has the table"


def require_alone(settings: TrainSettings, processes: int) -> None:
    """Raises `SettingsError` for what several processes cannot do."""
    given = f"{processes} processes"
    if settings.fused_backward:
        reason = "fused_backward applies a gradient before other processes have added theirs"
        raise SettingsError(reason, given=given, next="fused_backward=false")
    if settings.offload_weights:
        reason = "offload_weights has a network on two devices, which data parallelism does not take"
        raise SettingsError(reason, given=given, next="offload_weights=0, or quantize")


def held(reference: str, settings: TrainSettings, device: str) -> TrainSettings:
    """The settings with what the base is held in: under `auto` as its weights are, where that goes with `precision` and `init`;
    else float32."""
    if settings.base_precision != "auto":
        return settings
    where = source(reference)
    own, mixed = held_in(where, device), settings.precision
    fits = own in ("fp32", mixed) or (own, mixed) == ("bf16", "no")
    chosen = own if fits and settings.init not in SPLITS else "fp32"
    if reference not in bundled() and (told := told_of(own_precision(where), chosen)):
        say(f"{told}; base_precision says otherwise")
    return settings.model_copy(update={"base_precision": chosen})


def load_base(reference: str, settings: TrainSettings, accelerator: Accelerator) -> Backbone:
    """The base in `base_precision`, on this process's device, its denoiser in few bits if `quantize` or its files say so.

    Raises:
        SettingsError: what `quantize` or `shard` needs is not there, or cannot do it here; what does not go with a base in few
            bits.
    """
    settings = held(reference, settings, accelerator.device.type)
    away = settings.offload_weights > 0 or settings.shard
    device = torch.device("cpu") if away else accelerator.device
    backbone = Backbone.load(reference, dtype=DTYPES[settings.base_precision], device=device)
    backbone.editing = backbone.entry.edits_too and teaches_edits(settings)
    require_fitting(settings, backbone)
    if settings.shard:
        cut_up(backbone, accelerator)
    elif away:
        send_away(backbone, settings.offload_weights, accelerator.device)
    if settings.quantize != "none":
        quantise(backbone, settings.quantize)
    return backbone


def in_full(backbone: Backbone) -> Backbone:
    """The base in float32, for proofs: in half precision, rounding alone would tell a good adapter from itself."""
    half = torch.finfo(backbone.dtype).bits < 32 or backbone.quantised is not None
    return Backbone.load(backbone.reference, device=backbone.device) if half else backbone


def in_precision(modules: Modules, precision: str) -> Modules:
    """An adapter's layers as they are saved.

    Raises:
        SettingsError: numbers that fp16 cannot hold.
    """
    if precision == "fp32":
        return modules
    cast = {
        part: {name: layer.to(DTYPES[precision]) for name, layer in layers.items()} for part, layers in modules.items()
    }
    wrong = [name for layers in cast.values() for name, layer in layers.items() if layer.fault()]
    if wrong:
        raise SettingsError(
            f"{precision} cannot hold the numbers of {len(wrong)} layers",
            given=f"save_precision={precision}, {wrong[0]}",
            next="resume with save_precision=bf16 or fp32",
        )
    return cast


# ---------------------------------------------------------------------------------------------------- what rests
def take_off(backbone: Backbone, accelerator: Accelerator) -> None:
    """What the run has put around the denoiser is gone: compiled code, autocast (which Accelerate leaves in `forward`), the
    wrapper of several processes. The encoders are back."""
    Resting(backbone).wake()
    for network, own in zip(backbone.networks, backbone.denoisers.values(), strict=True):
        uncompile(network)
        bare = accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        assert bare is own, "the wrapper holds the base's own network"
    backbone.wrapped = None


class Resting:
    """Text encoders and VAE, whose work is cached before step 1. On a GPU they wait in the machine's memory and come back for
    the moment of a preview. What is trained stays; on a CPU there is nothing to gain.

    Args:
        backbone: whose.
        away: where they rest.
        but: components that this one has nothing to do with.
    """

    def __init__(self, backbone: Backbone, away: str = "cpu", but: Sequence[str] = ()) -> None:
        self.backbone, self.away, self.but = backbone, torch.device(away), but

    def modules(self) -> Sequence[nn.Module]:
        """All networks but the denoisers and what is trained."""
        kept = () if self.backbone.experts else tuple(self.backbone.denoisers)  # an expert that is not taught may rest
        others = (m for name, m in self.backbone.modules.items() if name not in kept and name not in self.but)
        return [m for m in others if not any(p.requires_grad for p in m.parameters())]

    def rest(self) -> None:
        """Sends them away."""
        if self.backbone.device.type != self.away.type:
            from diffusers.training_utils import free_memory

            for module in self.modules():
                module.to(self.away)
            free_memory()

    def wake(self) -> None:
        """Brings them back."""
        for module in self.modules():
            module.to(self.backbone.device)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """They are there inside the `with`."""
        self.wake()
        try:
            yield
        finally:
            self.rest()

    def around(self, preview: Preview) -> Preview:
        """The same preview; they are there while it draws."""

        def drawn(step: int) -> Sequence[str]:
            with self.awake():
                return preview(step)

        return drawn


def drawing_with(backbone: Backbone, settings: TrainSettings) -> Resting:
    """What comes back for a preview: not text encoders, unless they are asked anew because something in them is trained."""
    return Resting(backbone, but=() if settings.hears_itself else backbone.text_components)
