"""Memory runs out: one line says when, how much and what to set, and nothing that was saved is lost."""

import gc
import weakref

import pytest
import torch
from tiny_runs import content, tiny

from adapt.api import assemble
from adapt.cli import main as command_line
from adapt.cli.main import main
from adapt.errors import TrainingError
from adapt.training import events, loop, shortage
from adapt.training.shortage import asked_for, measures, within_memory

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.65 GiB of which 1.06 GiB is free. "
    "Of the allocated memory 20.96 GiB is allocated by PyTorch."
)
CPU = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 5368709120 bytes."
WINDOWS = "[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 5368709120 bytes."
MPS = "MPS backend out of memory (MPS allocated: 17.00 GB, max allowed: 18.13 GB). Tried to allocate 256.00 MB on private pool."


def short(*_, **__):
    raise torch.OutOfMemoryError(CUDA)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError(CUDA), "2.50 GiB more, of 23.65 GiB"),
        (RuntimeError(CPU), "5.00 GiB more"),
        (RuntimeError(WINDOWS), "5.00 GiB more"),
        (RuntimeError(MPS), "256.00 MB more, of 18.13 GB"),
        (RuntimeError("CUDA error: out of memory"), "more than there is"),
        (MemoryError(), "more than there is"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("batch_size"), None),
    ],
)
def test_how_much_is_read_from_what_torch_says(error, told):
    assert asked_for(error) == told


def test_what_is_advised_is_not_what_is_set_already():
    assert measures(tiny(batch_size=4, accumulation=1)) == (
        "memory=fit (tries what fits), gradient_checkpointing=true, accumulation=4 or batch_size below 4"
    )
    cut_up = tiny(batch_size=4, accumulation=4, gradient_checkpointing=True)
    assert measures(cut_up) == "memory=fit (tries what fits) or a lower resolution"


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), within_memory(lambda: "now", "less"):
        raise RuntimeError("shapes do not fit")


def test_what_failed_is_let_go_of():
    held = []

    def work():
        large = torch.zeros(4)
        held.append(weakref.ref(large))
        short()

    with pytest.raises(TrainingError) as caught, within_memory(lambda: "now", "less"):
        work()
    gc.collect()
    assert held[0]() is None and caught.value.given == "2.50 GiB more, of 23.65 GiB"


@pytest.mark.parametrize("where", ["step", "preview"])
def test_a_run_says_it_in_one_line_and_goes_on_with_less(cut, captioned, tiny_base, capsys, monkeypatch, where):
    """The run stood at its checkpoint of step 4."""
    before = content(cut, "checkpoints", "snapshots")
    with monkeypatch.context() as patch:
        if where == "step":
            patch.setattr(loop, "row_losses", short)
        else:
            patch.setattr(loop.Watch, "look", short)
        words = ["train", str(captioned), "--base", str(tiny_base), "--output", str(cut), "--resume"]
        assert main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    after = 4 if where == "step" else 5
    assert f"memory ran out after step {after} of 6 (given: 2.50 GiB more, of 23.65 GiB)" in line
    assert "gradient_checkpointing=true" in line and "--resume goes on" in line
    assert content(cut, "checkpoints", "snapshots") == before and not (cut / "adapter").exists()
    (told,) = [event for event in events.read(cut) if event["event"] == "stopped"]
    assert "memory ran out" in told["reason"]
    assert main([*words, "gradient_checkpointing=true", "--allow", "gradient_checkpointing"]) == 0
    assert (cut / "adapter").is_dir()


def test_it_is_said_of_what_comes_before_step_1_too(captioned, tiny_base, tmp_path, capsys, monkeypatch):
    words = ["train", str(captioned), "--base", str(tiny_base), "--output", str(tmp_path / "run"), "steps=1"]
    monkeypatch.setattr(assemble, "encode", short)
    assert main(words) == 2
    assert "memory ran out before step 1" in capsys.readouterr().err
    monkeypatch.setattr("adapt.api.forecast.forecast", short)
    assert main([*words, "--dry-run"]) == 2
    assert "memory ran out in the steps of the forecast" in capsys.readouterr().err
    monkeypatch.setattr("adapt.adapter.Adapter.locate", short)
    assert main(["generate", "--adapter", "nowhere", "--prompt", "a"]) == 2
    err = capsys.readouterr().err
    assert "memory ran out (given: 2.50 GiB more" in err and command_line.LESS in err and "bug" not in err


def test_the_advice_can_be_followed():
    """Every setting that is named exists, so that no line sends anybody astray."""
    named = {
        word.split("=")[0]
        for word in measures(tiny(batch_size=4, accumulation=1)).replace(",", "").split()
        if "=" in word
    }
    assert named == {"memory", "gradient_checkpointing", "accumulation"} and "--allow" in shortage.UNTOUCHED
    assert named < set(type(tiny()).model_fields)
