"""What a run is computed with: precision of base and file, compiled blocks, attention, encoders that rest."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import content, tiny

import adapt
from adapt.api.kernels import tune
from adapt.api.machine import Resting, drawing_with, in_precision, make_accelerator, take_off
from adapt.backbones import Backbone
from adapt.backbones.stable_diffusion import StableDiffusion
from adapt.errors import SettingsError
from adapt.formats import Pair
from adapt.training import events

CPU = torch.device("cpu")


def weights(run):
    return load_file(run / "adapter" / "pytorch_lora_weights.safetensors")


# ---------------------------------------------------------------------------------------------- numbers
@pytest.mark.parametrize("save_precision", ["bf16", "fp16"])
def test_the_file_is_the_rounded_one(train, whole, finished, save_precision):
    """Training is not touched: the same snapshots, and each number of the file is the full one, rounded."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[save_precision]
    train(finished, settings=tiny(save_precision=save_precision), existing="resume")
    full, half = weights(whole.folder), weights(finished)
    assert full.keys() == half.keys()
    assert all(half[name].dtype == dtype and half[name].equal(full[name].to(dtype)) for name in full)
    assert content(finished, "snapshots", "checkpoints") == content(whole.folder, "snapshots", "checkpoints")


def test_numbers_that_fp16_cannot_hold_are_never_saved():
    layer = Pair(torch.full((2, 2), 1e5), torch.ones(2, 2), 2.0)
    with pytest.raises(SettingsError, match="fp16 cannot hold"):
        in_precision({"unet": {"to_q": layer}}, "fp16")
    in_precision({"unet": {"to_q": layer}}, "bf16")


@pytest.mark.parametrize(("base", "mixed"), [("bf16", "no"), ("bf16", "bf16"), ("fp32", "bf16")])
def test_lora_is_float32_whatever_the_base_is(train, tmp_path, base, mixed, whole):
    run = train(tmp_path / "run", base_precision=base, precision=mixed).folder
    saved = load_file(run / "checkpoints" / "step-000006" / "adapter.safetensors")
    assert {x.dtype for x in saved.values()} == {torch.float32}
    full = load_file(whole.folder / "checkpoints" / "step-000006" / "adapter.safetensors")
    apart = max(float((saved[name] - full[name]).abs().max()) for name in full)
    moved = max(float(x.abs().max()) for name, x in full.items() if ".lora_B." in name)
    assert 0 < apart < moved  # not the same, but the same course
    assert list(events.losses(run).values()) == pytest.approx(list(whole.history.values()), rel=0.03)


def test_float16_on_a_cpu_is_refused(train, tmp_path):
    with pytest.raises(SettingsError, match="needs a GPU"):
        train(tmp_path / "run", precision="fp16")


def test_a_base_in_half_precision_is_in_half_precision_but_for_what_its_family_says(tiny_base, monkeypatch):
    half = Backbone.load(str(tiny_base), dtype=torch.bfloat16)
    assert {m.dtype for m in half.modules.values()} == {torch.bfloat16}
    monkeypatch.setattr(StableDiffusion, "full_precision", ("vae",))
    safe = Backbone.load(str(tiny_base), dtype=torch.bfloat16)
    assert {name: m.dtype for name, m in safe.modules.items()} == {
        "vae": torch.float32, "unet": torch.bfloat16, "text_encoder": torch.bfloat16}  # fmt: skip
    pixels = torch.zeros(1, 3, 16, 16)
    assert safe.encode_media(pixels)[0].dtype == torch.float32
    assert safe.decode(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16)).dtype == torch.float32
    wide = Backbone.load(str(tiny_base), dtype=torch.float64)
    assert {m.dtype for m in wide.modules.values()} == {torch.float64}


# ---------------------------------------------------------------------------------------------- the denoiser's kernels
def test_an_unknown_attention_backend_names_the_nearest(tiny_base):
    unet = Backbone.load(str(tiny_base)).denoiser
    with pytest.raises(SettingsError, match=r"did you mean native\?"):
        tune(unet, adapt.TrainSettings(attention="natve"), CPU)
    with pytest.raises(SettingsError, match="no such attention backend"):
        tune(unet, adapt.TrainSettings(attention="flash_hub"), CPU)  # downloads code
    with pytest.raises(SettingsError, match="no such switch"):
        tune(unet, adapt.TrainSettings(attention="flex"), CPU)
    with pytest.raises(SettingsError, match="cannot be used here"):
        tune(unet, adapt.TrainSettings(attention="xformers"), CPU)
    for name in ("auto", "native", "sdpa"):
        tune(unet, adapt.TrainSettings(attention=name), CPU)


def test_a_backend_reaches_every_attention_layer_that_can_switch():
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    tune(model, adapt.TrainSettings(attention="_native_math"), CPU)
    found = {str(m.processor._attention_backend.value) for m in model.modules() if hasattr(m, "processor")}
    assert found == {"_native_math"}
    model.reset_attention_backend()


@pytest.fixture
def compiled_by(monkeypatch):
    """`compiled_by(backend)`: blocks are traced and run by it, without generated code, which takes a minute and more. Returns
    the names of the blocks."""

    def use(backend):
        blocks = []

        def instead(self, **options):
            blocks.append(type(self).__name__)
            self._compiled_call_impl = torch.compile(self._call_impl, backend=backend, **options)

        monkeypatch.setattr(torch.nn.Module, "compile", instead)
        return blocks

    return use


def test_compiled_blocks_are_the_repeated_ones_and_give_the_same(tiny_base, compiled_by):
    """Names, weights and numbers are as before."""
    blocks = compiled_by("eager")
    backbone = Backbone.load(str(tiny_base))
    unet = backbone.denoiser
    names = list(unet.state_dict())
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    plain = unet(x, torch.tensor([3, 500]), text).sample
    tune(unet, adapt.TrainSettings(compile=True), CPU)
    assert set(blocks) == {"BasicTransformerBlock"} and len(blocks) == 4
    assert list(unet.state_dict()) == names
    torch.testing.assert_close(unet(x, torch.tensor([3, 500]), text).sample, plain)
    take_off(backbone, make_accelerator(adapt.TrainSettings()))
    assert all(module._compiled_call_impl is None for module in unet.modules())
    assert unet(x, torch.tensor([3, 500]), text).sample.equal(plain)


class Wrong(torch.autograd.Function):
    """The right value, and a gradient that is a tenth too long: what a compiler's mistake looks like."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return 1.1 * gradient


def test_a_compiler_that_errs_is_found_before_step_1(train, tmp_path, monkeypatch):
    """No loss would show it: predictions are right. LoRA's B begins at zero, which would hide it too."""

    def instead(self):
        self._compiled_call_impl = lambda *a, **k: Wrong.apply(self._call_impl(*a, **k))

    monkeypatch.setattr(torch.nn.Module, "compile", instead)
    with pytest.raises(SettingsError, match=r"other gradients than plain ones.*relative distance 0\.\d"):
        train(tmp_path / "run", compile=True, dropout=0.0)


def test_a_run_with_compiled_blocks_is_the_run(train, tmp_path, compiled_by):
    """Also through measurements with the adapter switched off, previews in eval mode and the proof."""
    blocks = compiled_by("eager")
    first, second = (train(tmp_path / f"{c}" / "run", dropout=0.0, compile=c, anchor_above=0.5) for c in (False, True))
    assert len(blocks) == 4
    assert list(second.history.values()) == pytest.approx(list(first.history.values()), rel=1e-5)
    kept = [load_file(r.folder / "checkpoints" / "step-000006" / "adapter.safetensors") for r in (first, second)]
    assert all(torch.allclose(kept[0][name], kept[1][name], rtol=1e-3, atol=1e-5) for name in kept[0])


def test_without_a_compiler_it_is_said_before_step_1(tiny_base, monkeypatch):
    monkeypatch.setattr("adapt.api.kernels.shutil.which", lambda _: None)
    with pytest.raises(SettingsError, match=r"needs a C\+\+ compiler"):
        tune(Backbone.load(str(tiny_base)).denoiser, adapt.TrainSettings(compile=True), CPU)


@pytest.mark.slow
def test_a_run_of_generated_code_is_the_run_or_is_refused(train, tmp_path):
    """Plain gradient descent, because Adam makes a whole step of a gradient that is nothing but rounding."""
    plain_descent = {
        "optimizer": "torch.optim.SGD",
        "learning_rate": 1.0,
        "ema": 0.0,
        "dropout": 0.0,
        "validation": None,
    }
    first = train(tmp_path / "plain" / "run", steps=3, **plain_descent)
    try:
        second = train(tmp_path / "compiled" / "run", steps=3, compile=True, **plain_descent)
    except SettingsError as refused:
        assert "other gradients than plain ones" in refused.message  # torch 2.13 on CPUs
        return
    assert list(second.history.values()) == pytest.approx(list(first.history.values()), rel=1e-4)
    for name, expected in weights(first.folder).items():
        torch.testing.assert_close(weights(second.folder)[name], expected, rtol=1e-2, atol=1e-6)


# ---------------------------------------------------------------------------------------------- encoders that rest
def test_no_step_and_no_measurement_needs_an_encoder(captioned, tiny_base, tmp_path, whole):
    """They are taken away for good before step 1 ("meta" holds no numbers), and no byte of what is learned changes."""
    from adapt.api.assemble import assemble
    from adapt.api.gather import gather
    from adapt.api.settle import settle

    settings = tiny(preview_every=1000)
    accelerator = make_accelerator(settings)
    backbone = Backbone.load(str(tiny_base))
    settings = settle(settings, backbone)
    pictures = gather(captioned, settings)
    (tmp_path / "run").mkdir()
    trainer = assemble(tmp_path / "run", backbone, pictures.train, pictures.held_out, settings, accelerator)
    resting = Resting(backbone, "meta")
    assert len(resting.modules()) == 2
    resting.rest()
    assert backbone.modules["vae"].device.type == backbone.modules["text_encoder"].device.type == "meta"
    backbone.denoiser.train()
    for _ in range(4):
        trainer.take_step()
        trainer.watch.look(trainer.step)
    found = trainer.course.injection.parameters
    expected = load_file(whole.folder / "checkpoints" / "step-000004" / "adapter.safetensors")
    assert all(p.detach().equal(expected[name]) for name, p in found.items())


def test_a_preview_needs_the_autoencoder_alone(captioned, tiny_base, tmp_path):
    """What prompts say is encoded before step 1: text encoders are gone for good ("meta" holds no numbers) when it draws."""
    from adapt.api.assemble import assemble
    from adapt.api.gather import gather
    from adapt.api.settle import settle

    found = []
    for name in ("there", "gone"):
        backbone = Backbone.load(str(tiny_base))
        settings, accelerator = (
            settle(tiny(previews=("a fox", "a hut"), guidance_scale=3.0), backbone),
            make_accelerator(tiny()),
        )
        pictures, run = gather(captioned, settings), tmp_path / name
        run.mkdir()
        trainer = assemble(run, backbone, pictures.train, pictures.held_out, settings, accelerator)
        assert drawing_with(backbone, settings).modules() == [backbone.modules["vae"]]
        if name == "gone":
            Resting(backbone, "meta", but=("vae",)).rest()
            assert backbone.modules["text_encoder"].device.type == "meta"
        assert trainer.preview(1) == ["a fox", "a hut"]
        found.append([path.read_bytes() for path in sorted((run / "previews").rglob("*.png"))])
    assert found[0] == found[1] and len(found[0]) == 2


def test_where_encoders_are_trained_all_come_back(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    assert len(drawing_with(backbone, tiny(train_text_encoder=True)).modules()) == 2


def test_encoders_come_back_for_a_preview(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    resting, seen = Resting(backbone), []
    backbone.modules["vae"].to(torch.float32)

    class Elsewhere(Resting):
        def rest(self):
            seen.append("rest")

        def wake(self):
            seen.append("wake")

    preview = Elsewhere(backbone).around(lambda step: seen.append(step) or ["a fox"])
    assert preview(7) == ["a fox"] and seen == ["wake", 7, "rest"]
    with pytest.raises(RuntimeError):
        Elsewhere(backbone).around(lambda step: (_ for _ in ()).throw(RuntimeError))(8)
    assert seen[-1] == "rest"
    resting.rest()  # on a CPU there is nothing to gain: nothing moves
    assert all(m.device.type == "cpu" for m in backbone.modules.values())


def test_what_is_trained_does_not_rest(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    next(backbone.modules["text_encoder"].parameters()).requires_grad_(True)
    assert Resting(backbone).modules() == [backbone.modules["vae"]]
