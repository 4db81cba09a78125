"""Several processes of one run on one machine: started together, ended together, one exit code. Imports no torch.

torchrun would start them as well, but answers every failure with exit code 1 and a traceback of its own. What the processes
find in their environment is torchrun's and Accelerate's, so a run does not know who launched it. For several machines:
`accelerate launch`.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from adapt.config import TrainSettings
from adapt.data.tables import SHARED
from adapt.errors import SettingsError, TrainingError
from adapt.progress import say
from adapt.training.requests import SIGNALS
from adapt.training.signals import CAUGHT

COMMAND = (sys.executable, "-P", "-m", "adapt")
"""What a process runs; `-P`: a folder named `datasets` where the user stands must not be taken for the library."""
LAUNCHED = "ADAPT_LAUNCHED"
"""In the environment of processes that were launched here."""
LOST = 75
"""Exit code of a process that ends because another one has: what there is to say, the launcher says."""
PATIENCE, GRACE, TICK = 10.0, 10.0, 0.05
"""Seconds until the others are asked to end after one has failed, until they are killed, and between two looks."""
TOLD_WITHIN = 5.0
"""Seconds in which a store answers."""
GOES_ON = "the same command with --resume goes on from the last checkpoint"


def require_even(settings: TrainSettings, processes: int) -> None:
    """Raises `SettingsError` when a batch cannot be shared by so many processes."""
    parts = processes * settings.accumulation
    if settings.batch_size % parts:
        raise SettingsError(
            "batch_size cannot be shared evenly",
            given=settings.batch_size,
            allowed=f"a multiple of processes × accumulation = {parts}",
        )


def require_outermost() -> None:
    """Raises `SettingsError` inside of another launcher's processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "--num-processes starts processes, and this is already one of several",
            given=f"WORLD_SIZE={os.environ['WORLD_SIZE']}",
            next="leave --num-processes out",
        )


# ---------------------------------------------------------------------------------------------------- the launcher's side
@dataclass
class Process:
    """One of them.

    Attributes:
        rank: 0 writes and speaks; the others keep what they say in `log`.
        handle: the child.
        log: standard error of the others.
    """

    rank: int
    handle: subprocess.Popen[bytes]
    log: Path

    @property
    def code(self) -> int | None:
        """Exit code, minus the signal that ended it, or None while it runs."""
        return self.handle.poll()


def launch(words: Sequence[str], processes: int) -> int:
    """Runs `adapt WORDS…` in so many processes and returns the exit code of the run.

    Control-C and SIGTERM are passed on once each: all finish the step and stop. Signals that ask for something go on too. When
    one process ends badly, the others end too, within 30 s. Should this process be killed, they stop after the step as well.

    Raises:
        TrainingError: a process was killed.
    """
    with tempfile.TemporaryDirectory(prefix="adapt-", ignore_cleanup_errors=True) as logs:
        group = [
            _start(words, rank, processes, port, Path(logs)) for port in (_free_port(),) for rank in range(processes)
        ]
        try:
            with _passing_on(group) as asked:
                ended_here = _await(group)
            return _verdict(group, asked, ended_here)
        finally:
            for process in group:
                process.handle.kill()
                process.handle.wait()


def _start(words: Sequence[str], rank: int, processes: int, port: int, logs: Path) -> Process:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores // processes)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        **os.environ,
        **{
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        },
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), LAUNCHED: "1", SHARED: str(logs)},
    }
    log = logs / f"{rank}.log"
    with log.open("wb") as file:
        handle = subprocess.Popen(
            [*COMMAND, *words], env=environment, stdin=subprocess.PIPE,
            stdout=None if rank == 0 else subprocess.DEVNULL, stderr=None if rank == 0 else file,
            start_new_session=True,  # Control-C reaches the launcher alone, which passes it on once
        )  # fmt: skip
    return Process(rank, handle, log)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _passing_on(group: Sequence[Process]) -> Iterator[list[int]]:
    """Signals to this process go to the others inside the `with`: a stop to all, a request ("save now") to the first, whom
    the others follow. Yields the stops that came."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        stop = number in CAUGHT
        if stop:
            asked.append(number)
        for process in group if stop else group[:1]:
            if process.code is None:
                process.handle.send_signal(number)

    requests = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    caught = (*CAUGHT, *requests) if threading.current_thread() is threading.main_thread() else ()
    old = {number: signal.signal(number, pass_on) for number in caught}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _await(group: Sequence[Process]) -> set[int]:
    """Until all have ended; after a failure the others have `PATIENCE` and then `GRACE` seconds. Returns the ranks of those
    that had to be ended from here, whose exit codes say nothing."""
    failed, told = 0.0, set[int]()
    while running := [process for process in group if process.code is None]:
        if not failed and any(process.code for process in group):
            failed = time.monotonic()
        waited = time.monotonic() - failed if failed else 0.0
        if waited > PATIENCE and not told:
            told = {process.rank for process in running}
            for process in running:
                process.handle.terminate()
        if waited > PATIENCE + GRACE:
            for process in running:
                process.handle.kill()
        time.sleep(TICK)
    return told


def _verdict(group: Sequence[Process], asked: Sequence[int], ended_here: set[int]) -> int:
    """The exit code of the run: what the main process says of itself, else what ended the others."""
    codes = {process.rank: process.code or 0 for process in group if process.rank not in ended_here}
    killed = [rank for rank, code in codes.items() if code < 0]
    spoken = [rank for rank, code in codes.items() if code > 0 and code != LOST]  # these have said why
    if not any(codes.values()):
        return 0
    if asked and killed and not spoken:
        return 128 + asked[0]  # before step 1: nothing to save
    if spoken:
        first = group[spoken[0]]
        if first.rank:
            _repeat(first)
        return codes[first.rank]
    if killed:
        name = signal.Signals(-codes[killed[0]]).name
        why = ", perhaps by the system for want of memory" if name == "SIGKILL" else ""
        raise TrainingError(f"process {killed[0]} of {len(group)} was ended by {name}{why}", next=GOES_ON)
    raise TrainingError("the processes of the run have lost each other", next=GOES_ON)


def _repeat(process: Process) -> None:
    """What a process other than the first said at its end: one line, or all of a traceback."""
    lines = process.log.read_text("utf-8", "replace").splitlines()
    for line in lines if process.code == 101 else lines[-1:]:
        say(line)


# ---------------------------------------------------------------------------------------------------- the processes' side
def launched() -> int:
    """How many processes the launcher has started, this one among them; 0 when there is none."""
    return int(os.environ["WORLD_SIZE"]) if LAUNCHED in os.environ else 0


def follow_launcher() -> None:
    """Stops after the step when the launcher is gone: then standard input, which it holds, comes to its end."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when Python ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    if launched():
        threading.Thread(target=wait, daemon=True).start()


@contextmanager
def together(processes: int) -> Iterator[None]:
    """What torch says when another process is gone becomes one line of one process, or none where the launcher says it.

    Raises:
        TrainingError: another process of the run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if processes == 1 or not _of_a_peer(error):
            raise
        _hear_no_launcher()
        code = LOST if launched() or not _first_to_tell() else TrainingError.exit_code
        atexit.register(_leave, code)
        if code == LOST:
            raise SystemExit(code) from error
        raise TrainingError("another process of this run has ended", next=GOES_ON) from error


def _of_a_peer(error: RuntimeError) -> bool:
    import torch

    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words)


def _hear_no_launcher() -> None:
    """This process is ending; a launcher's SIGTERM shall not come before it has said why."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _leave(code: int) -> None:
    """Without Python's own end, in which torch waits for what other processes still owe, as long as the group's timeout: so that
    they hear of it, too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _first_to_tell() -> bool:
    """Whether no other process that is left has said so yet: they ask torch's store, which outlives them under torchrun."""
    from datetime import timedelta

    from torch import distributed

    group = distributed.group.WORLD
    if group is None:
        return True
    try:
        store = group.get_group_store()
        store.set_timeout(timedelta(seconds=TOLD_WITHIN))
        return int(store.add("adapt/told", 1)) == 1
    except RuntimeError:  # it was the one that is gone: better twice than never
        return True
