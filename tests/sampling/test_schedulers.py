"""The table of schedulers: what users type is found, what cannot work is refused."""

import subprocess
import sys

import pytest
import torch

from adapt.errors import SettingsError
from adapt.sampling import schedulers
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle
from adapt.sampling.stepper import Stepper

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


@pytest.mark.parametrize("name", [n for n, s in schedulers.SHORT.items() if s.serves != schedulers.FLOW])
def test_every_short_name_takes_steps_on_a_diffusion_model(icons, name):
    scheduler = schedulers.build(name, icons.scheduler_config)
    assert type(scheduler).__name__ == schedulers.SHORT[name].class_name
    x = torch.ones(1, 4, 2, 2)
    stepper = Stepper(scheduler, 4, [generator_of(0)], torch.device("cpu"))
    for t in stepper.times:
        x = stepper.step(0.1 * stepper.scaled(x, t), t, x)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("name", [n for n, s in schedulers.SHORT.items() if s.serves != schedulers.DIFFUSION])
def test_every_flow_name_takes_steps_on_a_flow_model(name):
    stepper = Stepper(schedulers.build(name, FLOW), 4, [generator_of(0)], torch.device("cpu"))
    x = torch.ones(1, 4, 2, 2)
    for t in stepper.times:
        x = stepper.step(0.1 * stepper.scaled(x, t), t, x)
    assert torch.isfinite(x).all()


def test_multistep_schedulers_take_over_the_shift_of_a_flow_model():
    assert schedulers.build("dpm++2m", FLOW).config.flow_shift == 3.0


@pytest.mark.parametrize(("name", "found"), [("DPM++ 2M", "dpm++2m"), (" Euler_A", "euler_a"), ("PNDMScheduler",) * 2])
def test_capitals_blanks_and_class_names_are_understood(name, found):
    assert schedulers.find(name).name == found


def test_no_name_is_the_pipelines_own_class_as_configured(icons):
    built = schedulers.build(None, icons.scheduler_config)
    assert type(built) is type(icons.pipeline.scheduler)
    assert dict(built.config) == dict(icons.pipeline.scheduler.config)


def test_an_unknown_name_is_told_the_nearest_and_all_others():
    with pytest.raises(SettingsError, match=r"given: eular_a.*dpm\+\+2m_karras.*did you mean euler_a"):
        schedulers.find("eular_a")


@pytest.mark.parametrize(("name", "config"), [("flow_euler", None), ("euler", FLOW), ("EulerDiscreteScheduler", FLOW)])
def test_a_scheduler_for_another_kind_of_model_is_refused(icons, name, config):
    with pytest.raises(SettingsError, match="cannot be drawn with this scheduler"):
        schedulers.build(name, config or icons.scheduler_config)


def test_a_scheduler_that_cannot_make_so_many_steps_says_so(icons):
    with pytest.raises(SettingsError, match="cannot make so many steps"):
        Stepper(schedulers.build("lcm", icons.scheduler_config), 60, [generator_of(0)], torch.device("cpu"))


def test_what_the_command_line_needs_imports_no_torch():
    names = ("request", "schedulers", "prompts", "png", "pictures", "preflight")
    imports = ", ".join(f"adapt.sampling.{name}" for name in names)
    code = f"import sys, {imports}; print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_part_of_the_way_begins_at_the_schedulers_own_index(icons):
    # Times may repeat (Karras spacing): a scheduler that looked its index up by time would begin at the wrong one.
    stepper = Stepper(schedulers.build("heun", icons.scheduler_config), 6, [generator_of(0)], torch.device("cpu"))
    times = stepper.times_from(0.5)
    assert stepper.scheduler.begin_index == 6
    assert torch.equal(times, stepper.times[6:])


# ---------------------------------------------------------------------------------------------- from pure noise
CAPABLE = [n for n, s in schedulers.SHORT.items() if s.class_name in schedulers.FROM_PURE_NOISE]


@pytest.mark.parametrize("name", [None, *CAPABLE])
def test_an_adapter_of_zero_terminal_snr_is_drawn_from_pure_noise(tiny, name):
    config = tiny("v_prediction").scheduler_config
    scheduler = schedulers.build(name, config, zero_terminal_snr=True)
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6 < float(schedulers.build(name, config).alphas_cumprod[-1])
    stepper = Stepper(scheduler, 4, [generator_of(0)], torch.device("cpu"))
    assert int(stepper.times[0]) == 999
    x = torch.ones(1, 4, 2, 2)
    for t in stepper.times:
        x = stepper.step(0.1 * stepper.scaled(x, t), t, x)
    assert torch.isfinite(x).all()


def test_a_scheduler_that_cannot_begin_in_pure_noise_is_refused_or_replaced(tiny):
    backbone = tiny("v_prediction")
    config = {**backbone.scheduler_config, "_class_name": "PNDMScheduler"}
    assert type(schedulers.build(None, config, zero_terminal_snr=True)).__name__ == "DDIMScheduler"
    assert len(CAPABLE) >= 10 and "heun" not in CAPABLE
    with pytest.raises(SettingsError, match=r"cannot begin in pure noise .*heun.*ddim.*unipc"):
        settle(Request(prompt="", scheduler="heun"), backbone, {"zero_terminal_snr": True})
    assert settle(Request(prompt="", scheduler="ddim"), backbone, {"zero_terminal_snr": True}).zero_terminal_snr
