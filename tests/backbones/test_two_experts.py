"""Wan 2.2's two experts: one run teaches both, each at its own times; two files, which diffusers takes, and one adapter."""

import json
import re

import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import load_file
from tiny_families import CASES, wan

from adapt.adapter import Adapter
from adapt.api.network import put_in
from adapt.api.settle import settle
from adapt.backbones import Backbone
from adapt.cli.main import main
from adapt.config import TrainSettings
from adapt.errors import SettingsError

SETTINGS = ["steps=2", "batch_size=4", "rank=2", "validation=0.25", "validation_times=2", "sampling_steps=2",
            "validate_every=2", "save_every=1", "frames=1", "fps=8", "time_sampling=uniform"]  # fmt: skip
HIGH, LOW = "pytorch_lora_weights.safetensors", "transformer_2/low_noise.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-experts")
    torch.manual_seed(0)
    wan(experts=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(base):
    return Backbone.load(str(base))


def settled(backbone, **changes):
    settings = TrainSettings(**{"rank": 2, "seed": 1, "frames": 5, **changes})
    return settle(settings, backbone)


def rows(backbone, count=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, *backbone.own_latents, generator=generator)
    return x, torch.tensor([900.0, 100.0, 850.0, 300.0][:count]), backbone.condition(CASES["wan"].prompts[:count])


def test_rows_of_one_batch_go_each_to_the_expert_of_its_time(backbone):
    x, t, condition = rows(backbone)
    together = backbone.predict(x, t, condition)
    for i in range(4):
        alone = backbone.predict(x[i : i + 1], t[i : i + 1], condition.rows(slice(i, i + 1)))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
    assert [backbone.takes(name, t).tolist() for name in backbone.denoisers] == [
        [True, False, True, False], [False, True, False, True],
    ]  # fmt: skip
    assert backbone.takes("transformer", torch.tensor([800.0])).all()  # the boundary itself is the noisy one's


@pytest.mark.parametrize("kind", ["lora", "tlora"])
def test_each_expert_learns_from_its_own_rows_and_drops_what_their_positions_say(backbone, kind):
    """Gradients of a batch are those of its rows one by one, dropout and checkpointing included."""
    network = put_in(backbone, settled(backbone, kind=kind, dropout=0.5))
    x, t, condition = rows(backbone)
    try:
        with torch.no_grad():
            for number, parameter in enumerate(network.parameters.values()):
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        for module in backbone.networks:
            module.train()
            module.enable_gradient_checkpointing()

        def gradients(pieces):
            for parameter in network.parameters.values():
                parameter.grad = None
            for piece in pieces:
                network.move(3, piece)
                backbone.predict(x[piece], t[piece], condition.rows(torch.tensor(piece))).square().sum().backward()
            return {n: p.grad for n, p in network.parameters.items()}

        together, alone = gradients([[0, 1, 2, 3]]), gradients([[0], [1], [2], [3]])
        high = gradients([[0, 2]])
        for name, gradient in together.items():
            torch.testing.assert_close(gradient, alone[name], atol=1e-4, rtol=1e-3)
            assert (high[name] is None) == name.startswith("transformer_2:")
    finally:
        for module in backbone.networks:
            module.disable_gradient_checkpointing()
            module.eval()
        network.remove()
    assert not backbone.listeners


def test_one_expert_alone_is_taught_at_its_times(backbone):
    low = settled(backbone, experts="low_noise")
    assert (low.time_low, low.time_high) == (0, pytest.approx(0.8, abs=1e-5)) and low.time_high < 0.8
    high = settled(backbone, experts="high_noise", time_high=0.9)
    assert 0.8 < high.time_low < 0.80001 and high.time_high == 0.9
    assert settle(high, backbone) == high  # a resumed run comes to the same
    network = put_in(backbone, low)
    assert list(network.parts) == ["transformer_2"] and not network.encoders
    network.remove()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_low": 0.85}, "the low_noise expert predicts no time"),
        ({"experts": "high_noise", "time_high": 0.5}, "the high_noise expert predicts no time"),
    ],
)
def test_an_expert_without_times_is_refused(backbone, changes, said):
    with pytest.raises(SettingsError, match=said):
        settled(backbone, **changes)


def test_an_expert_that_is_not_taught_rests(backbone):
    from adapt.api.machine import Resting

    for experts, resting in {"both": [], "high_noise": ["transformer_2"], "low_noise": ["transformer"]}.items():
        network = put_in(backbone, settled(backbone, experts=experts))
        found = Resting(backbone).modules()
        assert [name for name, module in backbone.denoisers.items() if module in found] == resting
        network.remove()


def test_captions_are_encoded_without_the_experts(base, backbone):
    alone = Backbone.load(str(base), without=("transformer", "transformer_2"))
    assert "transformer_2" not in alone.modules and alone.device.type == "cpu"
    for name, part in alone.condition(["a"]).parts["text"].items():
        assert torch.equal(part, backbone.condition(["a"]).parts["text"][name])


def test_the_forecast_counts_both(base, clips, capsys):
    trained = {}
    for experts in ("both", "low_noise"):
        words = ["train", str(clips), "--base", str(base), *SETTINGS, f"experts={experts}", "--dry-run", "--json"]
        assert main(words) == 0
        trained[experts] = json.loads(capsys.readouterr().out)["forecast"]["trainable"]
    assert trained["both"] == 2 * trained["low_noise"] > 0


def test_one_network_has_no_experts(backbones):
    with pytest.raises(SettingsError, match="one network for all times"):
        settled(backbones("wan"), experts="low_noise")


@pytest.fixture(scope="module")
def run(base, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert main(["train", str(clips), "--base", str(base), "--output", str(folder), *SETTINGS]) == 0
    return folder


def test_a_run_teaches_both_and_writes_a_file_for_each(run, base):
    adapter, facts = run / "adapter", json.loads((run / "adapter/adapter.json").read_text())
    for name in (HIGH, LOW):
        tensors = load_file(adapter / name)
        assert all(key.startswith("transformer.") for key in tensors)  # the prefix that diffusers' loader wants
        assert any(bool(x.any()) for key, x in tensors.items() if "lora_B" in key)
    assert facts["proof"]["reader"] == "diffusers" and set(facts["lora"]) == {"transformer", "transformer_2"}
    loaded = Adapter.load(run)
    assert set(loaded.weights.modules) == {"transformer", "transformer_2"}
    assert facts["proof"]["layers"] == len(loaded.weights) and facts["proof"]["effect"] > 0
    assert "load_into_transformer_2=True" in (adapter / "README.md").read_text()
    again = Adapter.load(adapter / LOW)  # by either file
    assert again.weights.equals(loaded.weights) and again.digest == loaded.digest


def test_it_is_drawn_with_and_comes_off_without_a_trace(run, backbone):
    before = {n: p.clone() for n, m in backbone.denoisers.items() for n, p in m.named_parameters(prefix=n)}
    x, t, condition = rows(backbone)
    with torch.no_grad():
        plain = backbone.predict(x, t, condition)
        with Adapter.load(run).apply(backbone, 5.0):
            moved = (backbone.predict(x, t, condition) - plain).flatten(1).abs().amax(1)
    assert (moved > 0).all()
    after = {n: p for n, m in backbone.denoisers.items() for n, p in m.named_parameters(prefix=n)}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_stopped_run_goes_on_to_the_same_bytes(run, base, clips, tmp_path):
    from adapt.training import checkpoint

    half = tmp_path / "half"
    asked = ["train", str(clips), "--base", str(base), "--output", str(half)]
    assert main([*asked, *SETTINGS]) == 0
    newest = checkpoint.states(half)[-1]
    for path in (half / "adapter").rglob("*.safetensors"):
        path.unlink()
    import shutil

    shutil.rmtree(newest)
    assert main([*asked, "--resume"]) == 0
    for name in (HIGH, LOW):
        assert (half / "adapter" / name).read_bytes() == (run / "adapter" / name).read_bytes()


# ------------------------------------------------------------------------------------------------ other programs, other commands
@pytest.mark.parametrize("format", ["comfyui", "kohya", "diffusers"])
def test_other_programs_get_a_file_for_each_expert(run, base, format, tmp_path, monkeypatch, capsys):
    """Both are proved in a fresh pipeline, in their own places; what is read from them is what was trained."""
    monkeypatch.chdir(tmp_path)
    assert (
        main(["export", str(run), "--format", format, "--output", "style.safetensors", "--base", str(base), "--json"])
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert list(told["files"]) == ["style_high_noise.safetensors", "style_low_noise.safetensors"]
    for proof in told["files"].values():
        assert proof["difference"] < 1e-5 < proof["effect"]
    own, found = Adapter.load(run).weights.modules, {}
    for file in told["files"]:
        found |= Adapter.load(file).weights.modules
        names = {key.split(".")[0] for key in load_file(file)}
        start = {"comfyui": "diffusion_model", "kohya": "lora_unet_", "diffusers": "transformer"}[format]
        assert all(name.startswith(start) for name in names)
    assert {c: set(layers) for c, layers in found.items()} == {c: set(layers) for c, layers in own.items()}
    for component, layers in own.items():
        for name, layer in layers.items():
            torch.testing.assert_close(found[component][name].delta(), layer.delta(), atol=1e-8, rtol=1e-5)
    assert main(["export", str(run), "--format", format, "--output", "style.safetensors", "--no-proof"]) == 2
    assert "there already" in capsys.readouterr().err


def test_commands_take_it_as_one(run, base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["components"] == {"transformer": 8, "transformer_2": 8}
    assert main(["verify", str(run), "--base", str(base)]) == 0
    assert main(["merge", f"{run}:0.5", f"{run}:0.5", "--output", "merged"]) == 0
    assert main(["resize", str(run), "--rank", "1", "--output", "small"]) == 0
    for made in ("merged", "small"):
        assert (tmp_path / made / HIGH).is_file() and (tmp_path / made / LOW).is_file()
        assert main(["verify", made, "--base", str(base)]) == 0
    capsys.readouterr()
    drawn = {}
    for name, adapters in {"none": [], "both": [str(run)], "merged": ["merged"]}.items():
        asked = [word for adapter in adapters for word in ("--adapter", f"{adapter}:900")]
        words = [
            "generate",
            "--prompt",
            "a",
            "--steps",
            "4",
            "--frames",
            "5",
            "--base",
            str(base),
            "--device",
            "cpu",
            *asked,
        ]
        assert main([*words, "--output", f"{name}.gif"]) == 0
        drawn[name] = (tmp_path / f"{name}.gif").read_bytes()
    assert drawn["none"] != drawn["both"]
    assert main(["merge", f"{run}:900", "--into-base", "--base", str(base), "--output", "whole"]) == 0
    words[words.index("--base") + 1] = "whole"
    words = words[: words.index("--adapter")]
    assert main([*words, "--output", "whole.gif"]) == 0
    with Image.open("whole.gif") as merged, Image.open("both.gif") as beside:
        frames = [
            [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(clip)] for clip in (merged, beside)
        ]
    assert frames[0] == frames[1] and len(frames[0]) == 5


def test_what_is_pushed_has_both(run):
    from adapt.hub.parcel import LAYOUT

    assert LAYOUT.fullmatch(LOW) and LAYOUT.fullmatch(HIGH)


def test_one_expert_alone_is_one_file(base, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = ["experts=low_noise", "steps=1", *SETTINGS[1:]]
    assert main(["train", str(clips), "--base", str(base), "--output", "low", *settings, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"experts +low_noise", told) and re.search(r"time_high +0\.7999", told)
    assert main(["train", str(clips), "--base", str(base), "--output", "low", *settings]) == 0
    assert (tmp_path / "low/adapter" / LOW).is_file() and not (tmp_path / "low/adapter" / HIGH).exists()
    loaded = Adapter.load("low")
    assert set(loaded.weights.modules) == {"transformer_2"} and loaded.facts.proof["effect"] > 0
    assert 'weight_name="pytorch_lora_weights' not in (tmp_path / "low/adapter/README.md").read_text()
    assert main(["verify", "low", "--base", str(base)]) == 0
    # the other one in a run of its own, and both in one adapter
    assert (
        main(["train", str(clips), "--base", str(base), "--output", "high", "experts=high_noise", *settings[1:]]) == 0
    )
    assert main(["merge", "high", "low", "--output", "both"]) == 0
    whole, high = Adapter.load("both").layers(), Adapter.load("high").layers()
    assert whole.keys() == high.keys() | loaded.layers().keys()
    for name, layer in {**high, **loaded.layers()}.items():
        torch.testing.assert_close(whole[name].delta(), layer.delta(), atol=1e-7, rtol=1e-5)
    assert main(["verify", "both", "--base", str(base)]) == 0


def test_every_layer_has_a_name_of_the_models_own(backbone):
    from adapt.formats.names.wan import WAN

    linear = [n for n, m in backbone.denoiser.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv3d)]
    found = {name: WAN.of_module(name) for name in linear}
    assert linear and all(found.values())
    for name, (native, _) in found.items():
        assert WAN.of_native(native.name) == WAN.of_native(native.name.replace(".", "_"), underscored=True) == native
        assert native.modules == (name,)


@pytest.mark.slow
def test_two_processes_teach_the_same_as_one(base, clips, tmp_path):
    """Of two rows of a process, one or both may belong to one expert: the other has no gradient there, and one elsewhere."""
    import os
    import subprocess
    import sys

    settings = ["steps=4", *SETTINGS[1:], "validation=0", "preview_every=9"]
    for number in (1, 2):
        words = ["train", str(clips), "--base", str(base), "--output", str(tmp_path / str(number)), *settings]
        done = subprocess.run(
            [sys.executable, "-m", "adapt", *words, "--num-processes", str(number)], capture_output=True, text=True,
            timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (Adapter.load(tmp_path / str(number)).layers() for number in (1, 2))
    assert one.keys() == two.keys()
    for name, layer in one.items():
        torch.testing.assert_close(two[name].down, layer.down, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(two[name].up, layer.up, atol=1e-5, rtol=1e-4)
