"""A run whose adapter fails its proof: what was written stays for inspection, under a name that nothing takes for the adapter."""

from dataclasses import replace

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


def test_the_file_for_uis_meets_diffusers_too(tmp_path, pictures, make_tiny, monkeypatch, capsys):
    """A writer and a reader with the same lie: only a fresh pipeline notices, and the run is not lost for it."""
    from adapt.formats import keys, kohya

    base = tmp_path / "base"
    make_tiny(text_width=768).save_pretrained(base)
    words = ["train", str(pictures), "--base", str(base), *SETTINGS, "learning_rate=0.05"]
    assert main([*words, "--output", str(tmp_path / "fine")]) == 0
    fine = tmp_path / "fine" / "adapter"
    assert (fine / "kohya" / "fine.safetensors").is_file() and "ComfyUI" in Adapter.read_facts(fine).loads_in
    said, layer_from = kohya.said_inside, keys.layer_from
    monkeypatch.setattr(kohya, "said_inside", lambda layer: _times(said(layer), 50.0))
    monkeypatch.setattr("adapt.formats.placing.layer_from", lambda *given: _times(layer_from(*given), 1 / 50))
    assert main([*words, "--output", str(tmp_path / "lie")]) == 0
    assert "no file for UIs: diffusers draws something else" in capsys.readouterr().err
    lie = tmp_path / "lie" / "adapter"
    assert {p.name for p in (lie / "kohya").iterdir()} >= {"lie.safetensors.refused", "lie.json.refused"}
    assert not list((lie / "kohya").glob("*.safetensors")) and "ComfyUI" not in Adapter.read_facts(lie).loads_in


def _times(layer, factor):
    return replace(layer, alpha=layer.alpha * factor)
