"""A run whose adapter fails its proof: what was written stays for inspection, under a name that nothing takes for the adapter."""

import pytest

from adapt.adapter import Adapter
from adapt.cli.main import main
from adapt.errors import AdapterError
from adapt.formats import FILE_NAME

SETTINGS = ["steps=1", "batch_size=2", "rank=1", "sampling_steps=1", "trigger=zqx"]


def test_nothing_of_it_is_deleted_and_the_run_can_be_resumed(tmp_path, pictures, tiny_base, monkeypatch, capsys):
    run = tmp_path / "run"
    words = ["train", str(pictures), "--base", str(tiny_base), "--output", str(run)]
    with monkeypatch.context() as patch:
        patch.setattr("adapt.evaluation.proof.TOLERANCE", -1.0)
        for resume in ([], ["--resume"]):
            assert main([*words, *(resume or SETTINGS)]) == 2
    told = capsys.readouterr().err.strip()
    told = told.splitlines()[-1]
    assert "failed its proof" in told and "draws something else" in told and "adapter.refused-2" in told
    kept = run / "adapter.refused"
    assert (kept / FILE_NAME).is_file() and (kept / "adapter.json").is_file() and not (run / "adapter").exists()
    assert (run / "adapter.refused-2" / FILE_NAME).is_file() and not list(run.glob(".tmp-*"))
    with pytest.raises(AdapterError, match="holds no adapter"):
        Adapter.load(run)
    assert Adapter.load(kept).trigger == "zqx" and list((run / "snapshots").iterdir())
    assert main([*words, "--resume"]) == 0
    assert (run / "adapter" / FILE_NAME).read_bytes() == (kept / FILE_NAME).read_bytes()
