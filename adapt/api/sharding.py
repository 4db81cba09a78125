"""A frozen denoiser cut up over the processes of a run: each holds a share of every block, and has a whole one only while it
computes with it (fully sharded data parallelism, Zhao et al. 2023, arXiv 2304.11277, by torch's `fully_shard`).

Only what is frozen is cut up. What learns is small and stays whole in every process, so that checkpoints, averages, snapshots and
proofs are those of every other run; its gradients are shared as a conditioner's are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from adapt.errors import SettingsError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.distributed.device_mesh import DeviceMesh

    from adapt.backbones import Backbone
    from adapt.training.loop import Trainer


def cut_up(backbone: Backbone, accelerator: Accelerator) -> None:
    """Puts the base on the process's device: of its denoiser a share, of the rest everything. Before anything is injected.

    Raises:
        SettingsError: there is one process, or there are several denoisers.
    """
    from torch.distributed.device_mesh import init_device_mesh

    if accelerator.num_processes == 1:
        raise SettingsError("shard cuts the base up over several processes, and there is one", given="shard=true",
                            next="--num-processes N, or quantize, offload_weights or memory=fit for a large base")  # fmt: skip
    if len(backbone.networks) > 1:
        raise SettingsError("shard does not go with a base of several denoisers, of which processes need different ones",
                            given=backbone.reference, next="leave shard out")  # fmt: skip
    backbone.remember()  # digests are of whole weights
    denoiser = backbone.modules[backbone.denoiser_name]
    for module in backbone.modules.values():
        if module is not denoiser:
            module.to(accelerator.device)
    _cut(denoiser, init_device_mesh(accelerator.device.type, (accelerator.num_processes,)))


def _cut(network: nn.Module, mesh: DeviceMesh) -> None:
    """Blocks one by one, so that a device never holds more than one whole; then what is left. Layers of another precision (norms
    that a network keeps in float32) stay whole: they are small, and pieces of one group are of one kind."""
    from torch.distributed.fsdp import fully_shard

    most = max(_kinds(network).items(), key=lambda kind: kind[1])[0]
    whole = {p for p in network.parameters() if p.dtype != most}
    blocks = set(getattr(network, "_no_split_modules", None) or ())
    found = [module for module in network.modules() if type(module).__name__ in blocks]
    for block in [*reversed(found), network]:  # those inside go first
        fully_shard(block, mesh=mesh, ignored_params=whole)


def _kinds(network: nn.Module) -> dict[torch.dtype, int]:
    """Numbers of each precision."""
    found: dict[torch.dtype, int] = {}
    for p in network.parameters():
        found[p.dtype] = found.get(p.dtype, 0) + p.numel()
    return found


def made_whole(trainer: Trainer) -> None:
    """The base that finishes the run, in the process that does it: loaded again, because the others let go of their shares."""
    from adapt.api.machine import load_base
    from adapt.api.settle import settle

    course = trainer.course
    settings = course.settings.model_copy(update={"shard": False})
    if trainer.accelerator.is_main_process:
        backbone = load_base(course.backbone.reference, settings, trainer.accelerator)
        settle(settings, backbone)
        trainer.course = replace(course, backbone=backbone)
