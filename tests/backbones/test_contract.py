"""The contract that every family keeps: our loop is its pipeline, our targets are its scheduler's, its LoRA loads in its loader.

One row of `tiny_families.CASES` a family; what is wrong with a new one, these tests say.
"""

from dataclasses import replace

import pytest
import torch
from tiny_families import CASES, family_of, holes, pixart_alpha, sources

from adapt.adapter import Adapter, Facts
from adapt.api.classes import put_in_classes
from adapt.api.controls import put_in_control, require_place
from adapt.api.image_prompts import require_pictures
from adapt.api.network import put_in, readers, settled_network
from adapt.api.objective import make_objective
from adapt.backbones.registry import FAMILIES
from adapt.backbones.stem import stem_of
from adapt.config import TrainSettings
from adapt.data.plan import normal
from adapt.errors import SettingsError
from adapt.evaluation.proof import prove
from adapt.formats import LoraWeights
from adapt.loading import caption_counter
from adapt.lora.injection import tuned
from adapt.objectives.trigonometric import Trigonometric
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle
from adapt.types import Sizes
from conditioning import Condition

STEPS = 3

families = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def backbone(backbones, name):
    return backbones(name)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"icons"}))
def test_every_pipeline_has_a_case(backbones, family):
    """icons is Stable Diffusion's class, and proved on its own weights."""
    own = {backbones(name).pipeline_class for name in CASES if family_of(name) == family}
    alike = {"DDIMPipeline"}  # takes the place of DDPM's
    assert own == set(FAMILIES[family].pipelines) - alike


def noise(backbone, rows, stream="contract"):
    return torch.cat([normal(0, stream, 0, i, (1, *backbone.own_latents)) for i in range(rows)])


def condition_of(backbone, name, rows):
    """Of the case's prompts, and of something that is edited."""
    condition = backbone.condition(CASES[name].prompts[:rows])
    blank = backbone.blank_source(rows, *backbone.own_latents[1:]) if backbone.takes_source else {}
    drawn = {key: torch.cat([normal(0, key, 0, i, (1, *x.shape[1:])) for i in range(rows)]) for key, x in blank.items()}
    return condition.replaced({"source": drawn} if drawn else {})


def times(backbone, rows):
    return backbone.objective().times(torch.linspace(0.15, 0.85, rows, dtype=torch.float64))


# ------------------------------------------------------------------------------------------------ drawing
def theirs(backbone, case, guided):
    """Latents of the family's own pipeline, with a scheduler that nobody has moved."""
    pipeline = backbone.pipeline
    kept = pipeline.scheduler
    pipeline.scheduler = type(kept).from_config(kept.config)
    generators = [generator_of(seed) for seed in (7, 8)]
    call = {**case.call, **(case.on if guided else case.off)[0]}
    if "negative_prompt" in call:
        call["negative_prompt"] = [call["negative_prompt"]] * 2
    try:
        return case.run(case, pipeline, num_inference_steps=STEPS, generator=generators, **call)
    finally:
        pipeline.scheduler = kept


def ours(backbone, case, guided):
    asked = (case.on if guided else case.off)[1]
    given = sources(case.side) if case.edits or case.fills else (None, None)
    masks = holes(case.side) if case.fills else (None, None)
    requests = [
        Request(prompt=prompt, steps=STEPS, height=case.side, width=case.side, image=image, mask=mask, **asked)
        for prompt, image, mask in zip(case.prompts[:2], given, masks, strict=True)
    ]
    drawings = [settle(request, backbone) for request in requests]
    return case.shown(draw_latents(backbone, drawings, [generator_of(seed) for seed in (7, 8)]))


@pytest.mark.parametrize(("name", "guided"), [(n, g) for n, c in CASES.items() for g in (False, True) if c.on or not g])
def test_the_loop_equals_the_pipeline(backbone, name, guided):
    """With the family's own null and its own form of guidance."""
    expected, found = theirs(backbone, CASES[name], guided), ours(backbone, CASES[name], guided)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4
    if CASES[name].on is None:
        return
    other = ours(backbone, CASES[name], not guided)
    assert (found - other).abs().max() > 1e-3  # guidance does something, or this would prove nothing


def test_pixart_alpha_at_1024_px_is_told_sizes():
    from adapt.backbones.pixart import PixArtAlpha

    torch.manual_seed(0)
    pipeline = pixart_alpha(told=True)
    for module in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
        module.eval()
    backbone = PixArtAlpha(pipeline, "tiny")
    backbone.max_tokens, case = 24, CASES["pixart-alpha"]
    facts = backbone.condition(["a"], [Sizes((100, 100), (0, 0), (16, 32))]).facts
    assert (facts["resolution"].tolist(), facts["aspect_ratio"].tolist()) == ([[16.0, 32.0]], [[0.5]])
    for guided in (False, True):
        assert (theirs(backbone, case, guided) - ours(backbone, case, guided)).abs().max() <= 1e-4


@families
def test_media_to_latents_and_back(backbone, name):
    side = CASES[name].side
    dims = backbone.medium.dims(side, side)
    pixels = torch.rand(2, backbone.medium.channels, *dims, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = backbone.encode_media(pixels)
    assert mean.shape == std.shape == (2, *backbone.latent_shape(side, side))
    assert backbone.latent_shape(*dims) == backbone.latent_shape(side, side)
    assert backbone.own_latents == backbone.latent_shape(backbone.resolution, backbone.resolution)
    assert backbone.resolution % backbone.multiple == 0
    picture = backbone.decode(mean)
    assert picture.shape == pixels.shape
    assert bool(picture.isfinite().all())
    if not backbone.media_components:
        assert torch.equal(picture, pixels) and not std.any()
        return
    # What the decoder of the pipeline is given for these latents, and what its encoder gave: scale and shift cancel.
    given, autoencoder = [], backbone.modules[backbone.media_components[0]]
    decode = autoencoder.decode
    try:
        autoencoder.decode = lambda z, *a, **k: given.append(z) or decode(z, *a, **k)
        backbone.decode(mean)
    finally:
        del autoencoder.decode
    seen = backbone.mel(pixels[:, 0])[:, None] if hasattr(backbone, "mel") else pixels
    raw = autoencoder.encode(seen if given[0].ndim == seen.ndim else seen[:, :, None])
    raw = raw.latent_dist.mean if hasattr(raw, "latent_dist") else raw[0]
    torch.testing.assert_close(given[0].squeeze(), raw.squeeze(), atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ what is learned
@families
def test_noising_and_targets_are_the_schedulers(backbone, name):
    """A flow: `scale_noise` at a time of its own and noise - x. Diffusion: DDPM's `add_noise`, its noise or velocity."""
    from diffusers import DDPMScheduler

    from adapt.sampling import schedulers

    objective, x, epsilon = backbone.objective(), noise(backbone, 2, "x"), noise(backbone, 2)
    own = schedulers.build(None, backbone.scheduler_config)
    if objective.prediction_type == "flow":
        own.set_timesteps(10, **backbone.schedule(10, backbone.own_latents[1:]))
        t = own.timesteps[[2, 6]]
        torch.testing.assert_close(objective.noised(x, epsilon, t), own.scale_noise(x, t, epsilon))
        assert torch.equal(objective.target(x, epsilon, t), epsilon - x)
        return
    if isinstance(
        objective, Trigonometric
    ):  # its own schedulers have no noising: two of the three equations, and the third
        t = torch.tensor([0.1, 0.8])
        cos, sin = (f(t * torch.pi / 2).view(2, 1, 1) for f in (torch.cos, torch.sin))
        x_t, v = objective.noised(x, epsilon, t), objective.target(x, epsilon, t)
        torch.testing.assert_close(x_t, cos * x + sin * epsilon)
        torch.testing.assert_close(sin * x_t + cos * v, epsilon, atol=1e-5, rtol=0)
        torch.testing.assert_close(objective.clean(x_t, v, t), x, atol=1e-5, rtol=0)
        torch.testing.assert_close(objective.snr(t), (cos / sin).flatten() ** 2)
        return
    t = torch.tensor([100, 800])
    ddpm = own if "snr_shift_scale" in own.config else DDPMScheduler.from_config(own.config)
    torch.testing.assert_close(objective.noised(x, epsilon, t), ddpm.add_noise(x, epsilon, t))
    expected = epsilon if own.config.prediction_type == "epsilon" else ddpm.get_velocity(x, epsilon, t)
    torch.testing.assert_close(objective.target(x, epsilon, t), expected)


# ------------------------------------------------------------------------------------------------ conditions
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.parts])
@torch.no_grad()
def test_every_condition_matters_and_rows_stand_alone(backbone, name):
    x_t, t, condition = noise(backbone, 4), times(backbone, 4), condition_of(backbone, name, 4)
    together = backbone.predict(x_t, t, condition)
    assert together.shape == x_t.shape
    alone = [backbone.predict(x_t[i : i + 1], t[i : i + 1], condition.rows(slice(i, i + 1))) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)
    swapped = backbone.predict(x_t, t, condition.rows(torch.tensor([1, 0, 3, 2])))
    assert ((together - swapped).flatten(1).abs().amax(1) > 1e-5).all()
    null = backbone.null(4)
    told = {k: tuple(v) for k, v in condition.parts.items() if k != "source"}
    assert {k: tuple(v) for k, v in null.parts.items()} == told
    dropped = condition.drop(dict.fromkeys(null.parts, torch.tensor([True, False, False, False])), null)
    changed = backbone.predict(x_t, t, dropped) - together
    assert changed[0].abs().max() > 1e-5 and changed[1:].abs().max() <= 1e-5
    for part, tensors in condition.parts.items():
        for tensor, values in tensors.items():
            assert part == "source" or tensor in backbone.slots[part]
            if tensor == "mask":
                continue
            other = {**tensors, tensor: values + 1}
            moved = backbone.predict(x_t, t, Condition({**condition.parts, part: other}, condition.facts))
            assert (moved - together).abs().max() > 1e-5, f"{part}.{tensor} changes nothing"


@families
@torch.no_grad()
def test_every_fact_matters_and_is_never_dropped(backbone, name):
    x_t, t, condition = noise(backbone, 1), times(backbone, 1), backbone.condition(CASES[name].prompts[:1])
    assert backbone.null(1).facts.keys() == condition.facts.keys()
    together = backbone.predict(x_t, t, condition)
    for fact, values in condition.facts.items():
        moved = backbone.predict(
            x_t, t, Condition(condition.parts, {**condition.facts, fact: (values * 0.5 + 3).to(values)})
        )
        assert (moved - together).abs().max() > 1e-6, f"{fact} changes nothing"
    side = backbone.resolution
    cut = backbone.condition(CASES[name].prompts[:1], [Sizes((2 * side, 3 * side), (5, 7), (side, side))])
    dropped = cut.drop(dict.fromkeys(cut.parts, torch.tensor([True])), backbone.null(1))
    assert all(torch.equal(dropped.facts[fact], cut.facts[fact]) for fact in cut.facts)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.parts])
def test_captions_are_counted_by_the_files_as_by_the_base(folders, backbone, name):
    """`adapt check` loads no base; some bases have tokenizers that their pipelines bring."""
    count = caption_counter(folders(name))
    for caption in CASES[name].prompts:
        assert count(caption) == backbone.count_tokens(caption)


# ------------------------------------------------------------------------------------------------ LoRA
def settled(backbone, **changes):
    settings = TrainSettings(**{"rank": 2, "alpha": 4, "seed": 1, **changes})
    return settings.model_copy(update=settled_network(settings, backbone))


def loss_of(backbone, condition, rows=2):
    objective, x, epsilon = backbone.objective(), noise(backbone, rows, "x"), noise(backbone, rows)
    t = times(backbone, rows)
    prediction = backbone.predict(objective.noised(x, epsilon, t), t, condition)
    return objective.losses(prediction, objective.target(x, epsilon, t), t).mean()


@families
def test_lora_learns_everywhere_and_loads_in_the_familys_own_loader(backbone, name):
    settings = settled(backbone)
    make_objective(backbone, settings)
    condition, null = condition_of(backbone, name, 2), backbone.null(2)
    condition = condition.drop(dict.fromkeys(null.parts, torch.tensor([False, True])), null)
    network = put_in(backbone, settings)
    try:
        injection = network.parts[backbone.denoiser_name]
        assert len(dict(tuned(backbone.denoiser))) == len(injection.places) > 0
        parameters = list(injection.parameters.values())
        optimizer, losses, touched = torch.optim.Adam(parameters, 1e-2), [], set()
        for _ in range(8):
            optimizer.zero_grad()
            loss = loss_of(backbone, condition)
            loss.backward()
            touched |= {n for n, p in injection.parameters.items() if p.grad is not None and bool(p.grad.any())}
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        assert touched == set(injection.parameters)  # `Backbone.idle` has named those that could not
        weights = LoraWeights({backbone.denoiser_name: injection.layers()})
    finally:
        network.remove()
    idle = {name for name in backbone.idle if any(name.endswith(f".{end}") for end in settings.targets)}
    assert not idle & set(weights.modules[backbone.denoiser_name])
    base = {"family": backbone.family, "fingerprint": backbone.fingerprint()}
    adapter = Adapter(weights, Facts(base=base, loads_in=readers(settings, backbone)), "tiny")
    proof = prove(adapter, backbone, CASES[name].prompts[0])
    assert proof.layers == len(weights) and proof.reader == backbone.loader
    assert proof.difference <= 1e-5 < 1e-3 < proof.effect


@families
def test_checkpointing_changes_nothing(backbone, name):
    condition, network = condition_of(backbone, name, 2), put_in(backbone, settled(backbone))
    denoiser = backbone.denoiser

    def gradients():
        parameters = network.parts[backbone.denoiser_name].parameters
        for parameter in parameters.values():
            parameter.grad = None
        loss = loss_of(backbone, condition)
        loss.backward()
        return float(loss.detach()), {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None}

    try:
        plain = gradients()
        denoiser.enable_gradient_checkpointing()
        # Checkpointing works in train mode only; label dropout of a family's own must not (DiT).
        denoiser.train()
        checkpointed = gradients()
    finally:
        denoiser.disable_gradient_checkpointing()
        denoiser.eval()
        network.remove()
    assert checkpointed[0] == pytest.approx(plain[0], abs=1e-6)
    assert checkpointed[1].keys() == plain[1].keys()
    for key, value in plain[1].items():
        torch.testing.assert_close(checkpointed[1][key], value, atol=1e-6, rtol=1e-4)


@families
def test_an_adapter_changes_the_drawing_and_comes_off_again(backbone, name):
    settings = settled(backbone)
    network = put_in(backbone, settings)
    injection = network.parts[backbone.denoiser_name]
    shaken = {n: p + 0.3 * normal(0, n, 0, 0, p.shape) for n, p in injection.parameters.items()}
    weights = LoraWeights({backbone.denoiser_name: injection.layers(shaken)})
    network.remove()
    before = ours(backbone, CASES[name], False)
    with replace(Adapter(weights), name="shaken").apply(backbone):
        assert (ours(backbone, CASES[name], False) - before).abs().max() > 1e-4
    assert torch.equal(ours(backbone, CASES[name], False), before)


@families
@torch.no_grad()
def test_a_base_in_bfloat16_encodes_predicts_and_decodes(folders, backbones, name):
    """What must stay in float32 does, everything else is held in half: finite, and near the whole base's prediction."""
    from adapt.backbones import Backbone

    half, whole = Backbone.load(str(folders(name)), dtype=torch.bfloat16), backbones(name)
    assert half.dtype == torch.bfloat16
    for component in half.full_precision:
        assert next(half.modules[component].parameters()).dtype == torch.float32
    case, dtype = CASES[name], torch.bfloat16
    dims = whole.medium.dims(case.side, case.side)
    medium = torch.rand(1, whole.medium.channels, *dims, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, _ = half.encode_media(medium)
    assert bool(half.decode(mean.to(dtype)).isfinite().all())
    condition = half.condition(case.prompts[:1]).to("cpu", dtype)
    t, x_t = times(whole, 1), noise(whole, 1)
    found = half.predict(x_t.to(dtype), t, condition)
    expected = whole.predict(x_t, t, whole.condition(case.prompts[:1]))
    assert found.shape == expected.shape
    assert (found.float() - expected).norm() <= 0.1 * expected.norm()


@families
def test_classes_of_ones_own_are_null_at_first_move_the_prediction_and_learn(backbone, name):
    settings = settled(backbone).model_copy(update={"classes": True, "class_start": "null"})
    classes = put_in_classes(backbone, settings, ["finch", "owl"])
    try:
        condition, x = backbone.condition(CASES[name].prompts[:2]), noise(backbone, 2)
        t = times(backbone, 2)

        def said(*labels):
            told = classes.told(condition, labels).to(backbone.device, backbone.dtype)
            return backbone.predict(x, t, told)

        null = said(None, None)
        assert torch.equal(said("finch", "owl"), null)
        if classes.conditioner.slot == "embedding":
            assert torch.equal(null, backbone.predict(x, t, condition)), "null adds nothing yet"
        with torch.no_grad():
            classes.conditioner.table.copy_(normal(0, "table", 0, 0, classes.conditioner.table.shape))
        moved = said("finch", "owl")
        assert (moved - null).flatten(1).abs().amax(1).min() > 1e-5
        torch.testing.assert_close(said("owl", None)[1], null[1], atol=1e-5, rtol=1e-4)
        moved.square().mean().backward()
        gradient = classes.conditioner.table.grad
        assert gradient is not None and (gradient.abs().amax(1) > 0).all()
    finally:
        backbone.conditioners.clear()


def test_families_without_tokens_refuse_references(backbones):
    for name in ("dit", "ltx-video"):
        with pytest.raises(SettingsError, match="image_prompts are tokens"):
            require_pictures(backbones(name), TrainSettings(image_prompts=True))
    require_pictures(backbones("pixart-alpha"), TrainSettings(image_prompts=True))


def hints(backbone):
    """Two controls, of as many pixels as the latents stand for."""
    height, width = (n * backbone.scale_factor for n in backbone.own_latents[1:])
    return [normal(0, "hint", 0, i, (3, height, width)) for i in range(2)]


@families
def test_a_control_is_added_where_latents_come_in_or_refused(backbone, name):
    settings = settled(backbone).model_copy(update={"control": "edges"})
    if stem_of(backbone) is None:
        with pytest.raises(SettingsError, match="no first layer"):
            require_place(backbone, settings)
        return
    require_place(backbone, settings)
    control = put_in_control(backbone, settings).conditioner
    try:
        condition, x, t = backbone.condition(CASES[name].prompts[:2]), noise(backbone, 2), times(backbone, 2)
        with torch.no_grad():
            before = backbone.predict(x, t, condition)
            control.weight.copy_(normal(0, "weight", 0, 0, control.weight.shape))
            told = condition.replaced({"control": control.encode([hints(backbone)[0], None])})
            found = backbone.predict(x, t, told)
        assert (found[0] - before[0]).abs().max() > 1e-5
        assert torch.equal(found[1], before[1])
    finally:
        backbone.conditioners.clear()


@families
def test_checkpointing_changes_nothing_about_what_is_taught_beside_the_network(backbone, name):
    """Blocks are computed again in the backward pass, when nothing stands around the prediction any more."""
    settings = settled(backbone).model_copy(update={"classes": True, "control": "edges"})
    taught = [put_in_classes(backbone, settings, ["finch", "owl"])]
    taught += [put_in_control(backbone, settings)] if stem_of(backbone) else []
    network, denoiser = put_in(backbone, settled(backbone)), backbone.denoiser
    condition, x = backbone.condition(CASES[name].prompts[:2]), noise(backbone, 2)

    def gradients():
        told = condition
        for each in taught:
            raw = ["finch", "owl"] if each.conditioner.name == "class" else hints(backbone)
            told = each.told(told, raw)
            for parameter in each.parameters.values():
                parameter.grad = None
        backbone.predict(x, times(backbone, 2), told).square().mean().backward()
        return {id(p): p.grad.clone() for each in taught for p in each.parameters.values() if p.grad is not None}

    try:
        with torch.no_grad():
            table = taught[0].conditioner.table
            table.copy_(normal(0, "table", 0, 0, table.shape))
        plain = gradients()
        denoiser.enable_gradient_checkpointing()
        denoiser.train()
        checkpointed = gradients()
    finally:
        denoiser.disable_gradient_checkpointing()
        denoiser.eval()
        network.remove()
        backbone.conditioners.clear()
    assert len(plain) >= 2 and checkpointed.keys() == plain.keys()
    for key, value in plain.items():
        torch.testing.assert_close(checkpointed[key], value, atol=1e-6, rtol=1e-4)
