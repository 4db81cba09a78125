"""One save, spoilt at every one of its system calls: killed, cut short, no room, a broken disk. A whole checkpoint is always
there, under no name is a torn one, and the next save is as good as ever."""

import os
import shutil

import pytest
import torch
from syscalls import POSSIBLE, Spoil, traced

from adapt import files
from adapt.errors import RunError
from adapt.training import checkpoint, folder
from adapt.training.checkpoint import State
from adapt.training.optimizer.state import OptimizerState

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="the tracer knows Linux on x86-64 only")

REFUSED = 2
WRITING = ("create", "write", "fsync", "rename", "mkdir", "unlink", "rmdir", "ftruncate")
"""Calls that a full disk can answer so."""


def state(step):
    """A resume state whose contents tell its step."""
    tensors = {f"{name}.{k}": torch.full((40, 8), float(step + k)) for name in ("a", "b") for k in range(3)}
    return State(step, tensors, tensors, OptimizerState(tensors, {"step": step}), [], {})


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A run with the checkpoints of steps 2 and 4, and a damaged one of step 6, which is written again."""
    run = tmp_path_factory.mktemp("before") / "run"
    for step in (2, 4, 6):
        checkpoint.save(run, state(step))
        shutil.copytree(run / "checkpoints", run / "kept", dirs_exist_ok=True)
    shutil.rmtree(run / "checkpoints")
    (run / "kept").rename(run / "checkpoints")
    (run / "checkpoints" / "step-000006" / "state.json").write_text("{}")
    return run


@pytest.fixture
def spoilt(before, tmp_path):
    """`spoilt(step, spoil)`: the save of a step into a fresh copy of the run; its folder, exit code and calls."""
    number = iter(range(100_000))

    def run(step, spoil=Spoil()):  # noqa: B008
        place = shutil.copytree(before, tmp_path / f"{next(number)}")

        def work():
            try:
                checkpoint.save(place, state(step))
            except RunError:
                return REFUSED
            return 0

        return place, *traced(work, spoil)

    return run


def assert_nothing_lost(place, step, code):
    """What the next run finds: a whole checkpoint, the new one when the save says so; and it can save."""
    with folder.claimed(place):  # sweeps
        assert not list(place.rglob(f"{files.TEMPORARY}*"))
        found = checkpoint.newest(place)
        assert found.step in ((step,) if code == 0 else (4, step))
        for name, tensor in state(found.step).parameters.items():
            assert torch.equal(found.parameters[name], tensor) and torch.equal(found.optimizer.tensors[name], tensor)
        checkpoint.save(place, state(8))
        assert checkpoint.newest(place).step == 8
        whole = [path for path in checkpoint.states(place) if files.damage(path) is None]
        assert len(whole) >= 1 and len(checkpoint.states(place)) <= 3
    shutil.rmtree(place)


def each(calls, every):
    """A spoil for every n-th call that can be spoilt so; `every` says n for each way."""
    fits = {"ENOSPC": WRITING, "cut": ("write",), "short": ("write",)}
    for how, n in every.items():
        places = [at for at, name in enumerate(calls, 1) if name in fits.get(how, (name,))]
        yield from (Spoil(how, at) for at in places[::n])


def tried(spoilt, step, every):
    """Spoils the save of a step; how many of each kind, and how the saves ended."""
    _, code, calls = spoilt(step)
    assert code == 0 and {"create", "write", "fsync", "rename", "mkdir"} <= set(calls), calls
    told = {}
    for spoil in each(calls, every):
        place, code, _ = spoilt(step, spoil)
        assert code in ((-9,) if spoil.how in ("kill", "cut") else (0, REFUSED)), (spoil, code, calls[spoil.at - 1])
        if spoil.how == "short":
            assert code == 0, spoil
        if code == 0:
            assert checkpoint.step_of(checkpoint.states(place)[-1]) >= step
        assert_nothing_lost(place, step, code)
        told[spoil.how, code] = told.get((spoil.how, code), 0) + 1
    return told


def test_a_save_spoilt_at_some_of_its_system_calls(spoilt):
    """The slow test takes them all."""
    told = tried(spoilt, 7, {"kill": 12, "cut": 1, "short": 2, "ENOSPC": 4, "EIO": 12})
    assert told["kill", -9] >= 12 and told["ENOSPC", REFUSED] >= 5 and told["EIO", REFUSED] >= 6


@pytest.mark.slow
@pytest.mark.parametrize("step", [6, 7], ids=["over a damaged one", "a new one"])
def test_a_save_spoilt_at_every_system_call(spoilt, step):
    told = tried(spoilt, step, dict.fromkeys(("kill", "cut", "short", "ENOSPC", "EIO"), 1))
    print(f"step {step}: {told}")
    assert (
        told["kill", -9] >= 100
        and told["cut", -9] >= 4
        and told["ENOSPC", REFUSED] >= 20
        and told["EIO", REFUSED] >= 50
    )


def test_all_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """What power loss spares is what was synced: at the rename, every file as it is and every folder; then the rename too."""
    synced, renamed = {}, []
    sync, rename = files.sync, os.rename

    def synced_as(path):
        synced[str(path)] = path.read_bytes() if path.is_file() else sorted(p.name for p in path.iterdir())
        sync(path)

    def named(source, target, **options):
        if str(target).endswith("step-000003"):
            for path in (*source.rglob("*"), source):
                assert synced[str(path)] == (
                    path.read_bytes() if path.is_file() else sorted(p.name for p in path.iterdir())
                )
            synced.clear()
            renamed.append(target)
        return rename(source, target, **options)

    monkeypatch.setattr(files, "sync", synced_as)
    monkeypatch.setattr(os, "rename", named)
    checkpoint.save(tmp_path, state(3))
    assert len(renamed) == 1 and str(tmp_path / "checkpoints") in synced
