"""What each row of the global batch was given, and what was learned from it, through adapt's own `Trainer`.

Run by torchrun it is one of several processes: `shares.py OUTPUT BASE DATA` writes OUTPUT/float64-0.pt, float32-0.pt and
the run OUTPUT/run/run.
"""

import json
import sys
from pathlib import Path

import torch
from tiny_runs import tiny

import adapt
from adapt.api.assemble import assemble
from adapt.api.gather import gather
from adapt.api.machine import make_accelerator
from adapt.api.settle import settle
from adapt.backbones import Backbone
from adapt.lora import PlannedDropout
from adapt.training import loop, update

STEPS = 4


def settings(**changes):
    common = {"batch_size": 8, "accumulation": 1, "steps": STEPS, "targets": ("conv_out", "conv2", "to_out.0")}
    return tiny(**{**common, **changes})


def record(base, data, dtype, **changes):
    """Takes STEPS steps. Returns what the rows were given by (what, step, position), the gradient of step 0 before it is
    clipped, and the weights."""
    # oneDNN takes other convolutions for a batch of 1 than for one of 8: that alone is about 1e-6 of a float32 gradient.
    torch.backends.mkldnn.enabled = False
    try:
        return _record(base, data, dtype, **changes)
    finally:
        torch.backends.mkldnn.enabled = True


def _record(base, data, dtype, **changes):
    accelerator = make_accelerator(settings(**changes))
    backbone = Backbone.load(str(base), dtype=dtype, device=accelerator.device)
    settled = settle(settings(**changes), backbone)
    pictures = gather(data, settled)
    trainer = assemble(Path("nowhere"), backbone, pictures.train, pictures.held_out, settled, accelerator)
    backbone.denoiser.train()
    rows, gradients = {}, []
    original = {"losses": loop.row_losses, "mask": PlannedDropout._mask, "clip": update.optimizer.clip}
    predict, noised = backbone.predict, trainer.course.objective.noised
    now = []

    def note(**values):
        for what, each in values.items():
            for position, value in zip(now[-1].positions, each, strict=True):
                rows[what, now[-1].step, position] = torch.as_tensor(value).clone()

    def row_losses(course, drawn):
        now.append(drawn)
        note(item=drawn.items(), dropped=drawn.dropped(course.settings.caption_dropout))
        return original["losses"](course, drawn)

    def note_noised(x, noise, t):
        note(x=x, noise=noise, t=t)
        return noised(x, noise, t)

    def note_predict(x_t, t, condition):
        note(tokens=condition.parts["text"]["tokens"])
        return predict(x_t, t, condition)

    def mask(layer, position, row):
        drawn = original["mask"](layer, position, row)
        rows[f"mask {layer.layer}", now[-1].step, position] = drawn
        return drawn

    def clip(parameters, longest):
        gradients.append([p.grad.clone() for p in parameters])
        return original["clip"](parameters, longest)

    loop.row_losses, PlannedDropout._mask, update.optimizer.clip = row_losses, mask, clip
    backbone.predict = note_predict
    object.__setattr__(trainer.course.objective, "noised", note_noised)
    try:
        losses = [trainer.take_step() for _ in range(STEPS)]
    finally:
        loop.row_losses, PlannedDropout._mask, update.optimizer.clip = original.values()
    weights = {name: p.detach().clone() for name, p in trainer.course.injection.parameters.items()}
    return {"rows": rows, "gradient": gradients[0], "weights": weights, "losses": losses}


def main(output, base, data, accumulation="1", changes="{}"):
    told = {"accumulation": int(accumulation), **json.loads(changes)}
    torch.set_num_threads(1)
    for dtype in (torch.float64, torch.float32):
        found = record(base, data, dtype, **told)
        rank = torch.distributed.get_rank()
        torch.save(found, Path(output) / f"{str(dtype).removeprefix('torch.')}-{rank}.pt")
    run = settings(**{"steps": 6, **told})
    adapt.train(data, output=Path(output) / "run" / "run", base=str(base), settings=run)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
