"""Runs of milliseconds a step: their settings, what they leave, and children that are forked after the imports."""

import contextlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import adapt
from adapt import files
from adapt.errors import AdaptError
from adapt.training import checkpoint

TINY = {
    **{"steps": 6, "batch_size": 2, "accumulation": 2, "rank": 2, "warmup": 2, "learning_rate": 1e-2, "seed": 3},
    **{"validation": 0.25, "validate_every": 3, "validation_times": 2, "save_every": 2, "preview_every": 1000},
    **{"dropout": 0.1, "flip": 0.5, "caption_dropout": 0.3, "schedule": "cosine", "ema": 0.9},
    **{"previews": ("a picture",), "guidance_scale": 1.0, "sampling_steps": 1, "targets": ("to_q", "to_out.0")},
}
"""Everything that could go wrong at a resume is on: average, both dropouts, flips, captions, validation, accumulation."""


def tiny(**changes):
    """Settings of a tiny run."""
    return adapt.TrainSettings(**{**TINY, **changes})


def content(folder, *parts):
    """Relative name → bytes of every file below `folder/part` (all of `folder` without parts)."""
    roots = [Path(folder) / part for part in parts] or [Path(folder)]
    files = [p for root in roots for p in sorted(root.rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


RESULTS = ("adapter", "snapshots", "checkpoints")
"""What must be the same bytes, however often a run was interrupted."""


def in_child(work, log):
    """Runs `work()` in a forked child, which starts with all imports done, and returns its process id. It ends with
    the exit code of the command line; what it says goes to the file `log`."""
    child = os.fork()
    if child:
        return child
    code = 101
    try:
        with Path(log).open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = file, file
            try:
                work()
                code = 0
            except AdaptError as error:
                print("error:", error, flush=True)
                code = error.exit_code
            except BaseException:
                with contextlib.suppress(Exception):
                    traceback.print_exc()
    finally:
        os._exit(code)


def ended(child):
    """Waits for a child: its exit code, or minus the signal that ended it. One that hangs is killed."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


def die_at(number):
    """This process kills itself just before the `number`-th sync, rename or removal of a folder."""
    left = number

    def counted(call):
        def instead(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return instead

    files.sync = counted(files.sync)
    Path.rename, Path.replace = counted(Path.rename), counted(Path.replace)
    checkpoint.shutil.rmtree = counted(checkpoint.shutil.rmtree)
