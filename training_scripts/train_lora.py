"""Trains a LoRA adapter: the same job as `adapt train`, with its parts in sight, for one process or many.

accelerate launch training_scripts/train_lora.py DATA --base icons --output DIR steps=500 rank=16
accelerate launch --multi_gpu --num_processes 4 training_scripts/train_lora.py DATA --output DIR batch_size=32
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from adapt import TrainingResult
from adapt.api.assemble import assemble
from adapt.api.machine import make_accelerator
from adapt.api.train import begin, conclude, fit, gathered, loaded, resume, writing
from adapt.cli.train import prepare  # command line > file > the data's own > the run that goes on > defaults
from adapt.errors import AdaptError
from adapt.training import folder
from adapt.training.launch import together
from adapt.training.signals import StopRequest


def parser() -> argparse.ArgumentParser:
    """The words of `adapt train`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="pictures with captions")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="`adapt train --settings` lists them")
    parser.add_argument("--base", help="icons (the default), a diffusers folder, or a Hub id")
    parser.add_argument("--output", type=Path, required=True, help="the run's folder")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    parser.add_argument("--resume", dest="existing", action="store_const", const="resume", help="go on with the run")
    parser.add_argument("--fresh", dest="existing", action="store_const", const="fresh", help="start the run over")
    parser.add_argument("--allow", action="append", default=[], metavar="NAME", help="a change that --resume accepts")
    parser.set_defaults(existing="refuse")
    return parser


def train(words: argparse.Namespace) -> TrainingResult:
    """From a folder of pictures to an adapter that is proved to work."""
    run: Path = words.output
    resolved, base = prepare(run, words.existing, words.config, words.settings, words.base, data=words.data)
    resuming = folder.check_output(run, words.existing)
    settings, pictures = gathered(words.data, resolved.settings, base, run)  # found, judged, some held out
    accelerator = make_accelerator(settings)  # device, precision, processes
    with together(accelerator.num_processes):  # when one dies, the others end with one line
        settings = fit(settings, run, resuming, base, pictures, accelerator)  # memory=fit: the measures that it takes
        settings, backbone = loaded(base, settings, pictures, accelerator)  # with its own values where none are given
        with writing(run, accelerator, words.existing):
            since = begin(run, backbone, pictures, settings, accelerator, resuming, words.allow, resolved.origins)
            trainer = assemble(run, backbone, pictures.train, pictures.held_out, settings, accelerator)
            if since:
                resume(trainer, since)  # to the newest whole checkpoint
            with StopRequest(alone=accelerator.num_processes == 1) as stop:
                trainer.run(stop, "the same command with --resume")
            return conclude(trainer)  # export, proof in diffusers, samples, card


def main() -> int:
    """One JSON object on stdout, as `adapt train --json`; errors are one line and have the same exit codes."""
    try:
        result = train(parser().parse_intermixed_args())
    except AdaptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if os.environ.get("RANK", "0") == "0":  # the other processes have the same result
        print(json.dumps(result.as_dict()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
