"""`--num-processes`: processes that start together and end together, with one exit code and one voice.

The supervisor is tested with small children of a few lines, the real command in the slow tests at the end.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from tiny_runs import TINY, content

from adapt.cli.main import main
from adapt.config import TrainSettings
from adapt.errors import SettingsError, TrainingError
from adapt.training import checkpoint, launch
from adapt.training.signals import StopRequest

SCRIPTS = Path(__file__).parents[2] / "training_scripts"
SAY = "import os, sys, time, signal; rank = os.environ['RANK']; "


@pytest.fixture
def children(monkeypatch):
    """`children(code)`: what each process runs; quick to lose patience."""
    monkeypatch.setattr(launch, "PATIENCE", 0.5)
    monkeypatch.setattr(launch, "GRACE", 0.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def run(code, processes=2, words=()):
        monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", SAY + code))
        return launch.launch(words, processes)

    return run


def test_what_processes_find_is_what_torchrun_gives_them(children, tmp_path):
    code = f"import json; json.dump(dict(os.environ), open(f'{tmp_path}/' + rank, 'w')); print(sys.argv[1:])"
    assert children(code, 3, ["train", "a b"]) == 0
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [e["RANK"] for e in found] == [e["LOCAL_RANK"] for e in found] == ["0", "1", "2"]
    assert {(e["WORLD_SIZE"], e["LOCAL_WORLD_SIZE"], e["MASTER_ADDR"]) for e in found} == {("3", "3", "127.0.0.1")}
    assert len({e["MASTER_PORT"] for e in found}) == 1 and 0 < int(found[0]["MASTER_PORT"]) < 65536
    assert all(int(e["OMP_NUM_THREADS"]) >= 1 for e in found)


def test_only_the_first_speaks(children, capfd):
    assert children("print('out', rank); print('err', rank, file=sys.stderr)", 3) == 0
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


@pytest.mark.parametrize("code", [2, 4, 101, 130, 143])
def test_the_exit_code_is_the_first_ones_own(children, code):
    """Each process finds the same fault; the first says it."""
    assert children(f"sys.exit({code})") == code


def test_a_fault_of_another_process_is_repeated_in_one_line(children, capfd):
    code = "rank == '1' and (print('noise\\nerror: no such picture', file=sys.stderr), sys.exit(2)); time.sleep(60)"
    began = time.monotonic()
    assert children(code) == 2
    assert time.monotonic() - began < 10
    assert capfd.readouterr().err == "error: no such picture\n"


def test_a_bug_in_another_process_keeps_its_traceback(children, capfd):
    code = f"rank == '1' and (print('Traceback\\n  x\\nthis is a bug', file=sys.stderr), sys.exit(101)); sys.exit({launch.LOST})"
    assert children(code) == 101
    assert capfd.readouterr().err == "Traceback\n  x\nthis is a bug\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others_with_one_line(children, capfd, rank):
    """Also when the others hear nothing of it, and do not listen to SIGTERM."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(TrainingError, match=f"process {rank} of 3 was ended by SIGKILL.*--resume") as ended:
        children(f"rank == '{rank}' and os.kill(os.getpid(), 9); {deaf}", 3)
    assert time.monotonic() - began < 10 and ended.value.exit_code == 2
    assert capfd.readouterr() == ("", "") and psutil.Process().children() == []


def test_processes_that_lost_another_say_nothing(children):
    with pytest.raises(TrainingError, match="process 1 of 2 was ended by SIGKILL"):
        children(f"rank == '1' and os.kill(os.getpid(), 9); time.sleep(0.3); sys.exit({launch.LOST})")
    with pytest.raises(TrainingError, match="lost each other"):
        children(f"sys.exit({launch.LOST})")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_once(children, tmp_path, number):
    """Control-C twice would end a run at once: once pressed, each process hears it once."""
    code = (
        "heard = []; [signal.signal(n, lambda n, f: heard.append(n)) for n in (2, 15)]; "
        f"open(f'{tmp_path}/ready' + rank, 'w'); [time.sleep(0.05) for _ in range(12)]; "
        f"open(f'{tmp_path}/' + rank, 'w').write(str(heard)); sys.exit(128 + heard[0] if heard else 0)"
    )

    def press():
        while not all((tmp_path / f"ready{rank}").exists() for rank in range(2)):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGINT)  # a shell that starts tests in the background has them ignore it
    threading.Thread(target=press).start()
    assert children(code) == 128 + number
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == [f"[{int(number)}]"] * 2
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_request_by_signal_reaches_the_first_process(children, tmp_path, number):
    """The others follow it (`agreed`); asked twice, a run would save twice."""
    code = (
        "heard = []; [signal.signal(n, lambda n, f: heard.append(n)) for n in (10, 12)]; "
        f"open(f'{tmp_path}/ready' + rank, 'w'); [time.sleep(0.05) for _ in range(12)]; "
        f"open(f'{tmp_path}/' + rank, 'w').write(str(heard))"
    )

    def ask():
        wait_until(lambda: all((tmp_path / f"ready{rank}").exists() for rank in range(2)))
        os.kill(os.getpid(), number)

    threading.Thread(target=ask).start()
    assert children(code) == 0
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == [f"[{int(number)}]", "[]"]


def test_stopped_before_anything_began(children):
    """Nobody has installed a handler yet: the signal ends them, and that is no failure."""
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    assert children("time.sleep(60)") == 128 + signal.SIGTERM


def test_when_the_launcher_dies_the_processes_stop(tmp_path):
    """Standard input, which the launcher holds, comes to its end: each process gets the signal that finishes the step."""
    code = (
        SAY + "from adapt.training.launch import follow_launcher; follow_launcher(); "
        f"signal.signal(15, lambda n, f: (open(f'{tmp_path}/stopped' + rank, 'w'), sys.exit(0))); "
        f"open(f'{tmp_path}/ready' + rank, 'w'); time.sleep(60)"
    )
    command = f"launch.COMMAND = (sys.executable, '-c', {code!r}); launch.launch([], 2)"
    parent = f"import sys; from adapt.training import launch; {command}"
    running = subprocess.Popen([sys.executable, "-c", parent])
    wait_until(lambda: all((tmp_path / f"ready{rank}").exists() for rank in range(2)))
    running.kill()
    running.wait()
    wait_until(lambda: all((tmp_path / f"stopped{rank}").exists() for rank in range(2)))


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------- in the processes
@pytest.fixture
def ends(monkeypatch):
    """A process that has lost another does not hear SIGTERM any more and ends at once; this one shall not. Yields the codes."""
    before, codes = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(launch.atexit, "register", lambda leave, code: codes.append(code))
    yield codes
    signal.signal(signal.SIGTERM, before)


def test_what_torch_says_of_a_lost_process(monkeypatch, ends):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3456")
    with pytest.raises(TrainingError, match="another process of this run has ended"), launch.together(2):
        raise lost
    with pytest.raises(RuntimeError, match="closed by peer"), launch.together(1):
        raise lost
    with pytest.raises(RuntimeError, match="shapes"), launch.together(2):
        raise RuntimeError("shapes do not match")
    monkeypatch.setenv(launch.LAUNCHED, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended, launch.together(2):
        raise lost
    assert ended.value.code == launch.LOST and launch.launched() == 2


def test_of_the_processes_that_are_left_one_says_it(ends):
    """They ask torch's store who is the first; a store that is gone leaves each to say it."""
    from torch import distributed

    lost = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3456")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(TrainingError, match="another process"), launch.together(2):
            raise lost
        for _ in range(2):
            with pytest.raises(SystemExit) as ended, launch.together(3):
                raise lost
            assert ended.value.code == launch.LOST
    finally:
        distributed.destroy_process_group()
    with pytest.raises(TrainingError, match="another process"), launch.together(2):
        raise lost
    assert ends == [2, launch.LOST, launch.LOST, 2]  # none waits for what others owe


def test_the_launchers_signal_does_not_come_before_the_reason(ends):
    """When one process dies, torchrun sends the others SIGTERM within 0.1 s."""
    lost = RuntimeError("Connection closed by peer")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(TrainingError), launch.together(2), StopRequest(alone=False):
        os.kill(os.getpid(), signal.SIGTERM)
        raise lost
    os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(RuntimeError), StopRequest():
        raise lost
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # alone, everything is as it was


def test_shares_that_are_not_even(pictures, tiny_base, tmp_path, capsys, monkeypatch):
    """Said before a process starts, and before torch is imported."""
    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("nothing may start"))
    words = ["train", str(pictures), "--base", str(tiny_base), "--output", str(tmp_path / "a")]
    assert main([*words, "--num-processes", "3", "batch_size=8"]) == 2
    assert "a multiple of processes × accumulation = 3" in capsys.readouterr().err
    assert main([*words, "--num-processes", "0"]) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*words, "--num-processes", "2"]) == 2
    assert "already one of several" in capsys.readouterr().err.splitlines()[-1]
    for processes, accumulation in ((2, 4), (8, 1), (1, 8)):
        launch.require_even(TrainSettings(batch_size=8, accumulation=accumulation), processes)
    with pytest.raises(SettingsError):
        launch.require_even(TrainSettings(batch_size=8, accumulation=4), 4)


def test_the_processes_get_the_whole_command(pictures, tiny_base, tmp_path, monkeypatch):
    """Everything but --num-processes, which would start them again."""
    seen = []
    monkeypatch.setattr(launch, "launch", lambda words, processes: seen.append((list(words), processes)) or 143)
    (tmp_path / "s.yaml").write_text("rank: 4\n")
    words = [str(pictures), "steps=3", "previews=[a fox]", "--base", str(tiny_base), "--output", str(tmp_path / "a"),
             "--config", str(tmp_path / "s.yaml"), "--allow", "rank", "--allow", "seed"]  # fmt: skip
    assert main(["train", *words, "--num-processes", "2", "--fresh", "--json"]) == 143
    assert seen == [(["train", *words, "--fresh", "--json"], 2)]


# ---------------------------------------------------------------------------------------------- the real command
def command(data, base, folder, *more):
    settings = {**TINY, "steps": 10_000, "batch_size": 4, "validation": 0.25}
    words = [*(f"{name}={json.dumps(value)}" for name, value in settings.items()), *more]
    arguments = ["train", data, "--base", base, "--output", folder, "--num-processes", "2", *words]
    return subprocess.Popen(
        [sys.executable, "-m", "adapt", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def steps_of(folder):
    path = folder / "events.jsonl"
    return path.read_text().count('"event": "step"') if path.is_file() else 0


@pytest.mark.slow
def test_two_processes_stop_after_the_step_and_go_on(captioned, tiny_base, tmp_path):
    run = tmp_path / "run"
    first = command(captioned, tiny_base, run)
    wait_until(lambda: steps_of(run) >= 3, 300)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 130 and out == ""
    step = checkpoint.newest(run).step
    assert steps_of(run) == step
    line = err.splitlines()[-1]
    assert line.startswith(f"error: stopped after step {step} of 10000") and "--num-processes 2" in line
    second = command(captioned, tiny_base, run, "--resume", "--allow", "steps", f"steps={step + 2}", "--json")
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert json.loads(out)["steps"] == step + 2 and out.count("\n") == 1
    assert err.count("resuming at step") == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_within_30_seconds(captioned, tiny_base, tmp_path, rank):
    run = tmp_path / "run"
    running = command(captioned, tiny_base, run, "save_every=2")
    wait_until(lambda: steps_of(run) >= 5, 300)
    children = {int(c.environ()["RANK"]): c for c in psutil.Process(running.pid).children()}
    children[rank].kill()
    began = time.monotonic()
    out, err = running.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert running.returncode == 2 and out == ""
    errors = [line for line in err.splitlines() if "rror" in line]
    assert len(errors) == 1 and f"process {rank} of 2 was ended by SIGKILL" in errors[0]
    assert "Traceback" not in err and not any(c.is_running() for c in children.values())
    assert checkpoint.newest(run).step >= 2 and content(run, "checkpoints")


LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"],
    "accelerate": [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "3",
        "--main_process_port",
        "0",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "rank"), [("torchrun", 0), ("torchrun", 1), ("accelerate", 2)])
def test_other_launchers_processes_end_with_one_line_of_ours(captioned, tiny_base, tmp_path, launcher, rank):
    """torchrun and Accelerate add a summary of their own: of two processes that are left, one says what to do."""
    run, script = tmp_path / "run", SCRIPTS / "train_lora.py"
    settings = {**TINY, "steps": 10_000, "batch_size": 6, "validation": 0.25, "save_every": 2}
    words = [
        script,
        captioned,
        "--base",
        tiny_base,
        "--output",
        run,
        *(f"{k}={json.dumps(v)}" for k, v in settings.items()),
    ]
    running = subprocess.Popen(
        [sys.executable, *LAUNCHERS[launcher], *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    wait_until(lambda: steps_of(run) >= 5 or running.poll() is not None, 300)
    assert running.poll() is None, running.communicate()[1]
    below = [c for c in psutil.Process(running.pid).children(recursive=True) if str(script) in c.cmdline()]
    children = {int(c.environ()["RANK"]): c for c in below}
    children[rank].kill()
    began = time.monotonic()
    out, err = running.communicate(timeout=60)
    assert time.monotonic() - began < 30 and running.returncode != 0 and out == ""
    ours = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(ours) == 1 and "another process of this run has ended" in ours[0] and "--resume" in ours[0], err
    assert len(children) == 3 and not any(c.is_running() and c.status() != "zombie" for c in children.values())
    assert checkpoint.newest(run).step >= 2
