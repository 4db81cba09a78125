"""The proof after export: a file is only called an adapter once a fresh diffusers pipeline has taken it and agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapt.adapter import Adapter
from adapt.backbones import Backbone
from adapt.backbones.sources import PART as SOURCE
from adapt.data.plan import normal
from adapt.errors import AdapterError
from adapt.formats import LoraWeights
from adapt.formats.dialects import dialect_of
from adapt.formats.experts import SECOND, is_wan
from adapt.formats.opening import check_file
from adapt.formats.placing import is_flux
from adapt.lora.by_time import Clock, at_share, listening
from adapt.lora.text_encoders import inner

TOLERANCE = 1e-3
BY_DIFFUSERS, FLUX_BY_DIFFUSERS = ("diffusers", "kohya", "dotted"), ("comfyui", "xlabs")
"""Dialects that `load_lora_weights` converts by itself; the second ones for Flux only."""
FLUX_WIDTH = 3072
"""Of Flux.1, at which diffusers' maps cut fused weights."""
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Proof:
    """Attributes:
    layers: adapter layers that the library took; all of them.
    difference: largest difference between our prediction and its own, over three times; in units of the prediction.
    effect: largest difference that the adapter makes to the base's prediction.
    reader: the library that took them: diffusers, or peft for what diffusers cannot.
    """

    layers: int
    difference: float
    effect: float
    reader: str = "diffusers"

    def line(self, whose: str = "") -> str:
        """What was seen, in a line; `whose`: a remark on what was taken."""
        return (
            f"{self.reader} takes all {self.layers} layers{whose}; predictions differ by {self.difference:.1e} at most"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def prove(adapter: Adapter, backbone: Backbone, prompt: str = "") -> Proof:
    """Loads the adapter with diffusers' own loader (LoHa, LoKr: peft's), and compares predictions with ours.

    Raises:
        AdapterError: it did not take every layer, or predicts something else; the file is left for inspection.
    """
    if adapter.loader == "adapt":
        return _by_time(adapter, backbone, prompt)
    return _agreement(adapter, backbone, adapter.to_diffusers(backbone), adapter.loader, prompt)


def _by_time(adapter: Adapter, backbone: Backbone, prompt: str) -> Proof:
    """A T-LoRA, of which no library knows: it is given the LoRA with all components, and each row's are left out behind A, as in
    training; ours are the weights of each time."""
    whole = {c: at_share(layers, 0.0) for c, layers in adapter.weights.modules.items()}
    facts = replace(adapter.facts, lora={}, loads_in=("adapt", backbone.loader))
    pipeline = replace(adapter, weights=LoraWeights(whole), facts=facts).to_diffusers(backbone)
    clock = Clock(backbone.objective().share)
    for component, layers in adapter.weights.modules.items():
        listening(inner(getattr(pipeline, component)), layers, clock)
    return _agreement(adapter, backbone, pipeline, f"{backbone.loader}, components left out by time", prompt, clock)


def prove_file(path: Path, adapter: Adapter, backbone: Backbone, prompt: str = "") -> Proof:
    """The same for a bare file of any dialect: diffusers is given the file as it is where it reads the dialect itself; else what
    was read from it is saved in diffusers' or peft's own names first.

    Args:
        adapter: what was read from the file.

    Raises:
        AdapterError: as `prove`.
    """
    if not reads(path, adapter):
        return prove(adapter, backbone, prompt)
    from adapt.loading import plain
    from adapt.lora.through_peft import require_layers
    from adapt.quiet import quiet_libraries

    pipeline = plain(backbone)
    try:
        with quiet_libraries():
            pipeline.load_lora_weights(path.parent, weight_name=path.name, use_safetensors=True, **_into(adapter))
    except (ValueError, KeyError, RuntimeError, TypeError, AssertionError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise AdapterError(f"diffusers does not take the file: {told[:200]}", given=path) from error
    for name, layers in adapter.weights.modules.items():
        module = inner(getattr(pipeline, name))
        module.requires_grad_(False).eval()
        require_layers(module, layers, name, "diffusers")
    return _agreement(adapter, backbone, pipeline, "diffusers", prompt)


def prove_word(path: Path, word: str, found: Mapping[str, Tensor], backbone: Backbone) -> Proof:
    """The same for the embedding of a new word: diffusers' `load_textual_inversion` takes the file, every vector bit for bit, and
    predictions for a prompt of the word are ours.

    Raises:
        AdapterError: it did not, or the base takes no such word.
    """
    from adapt.loading import plain
    from adapt.lora.words import embedding_of, names_of, say_from, tokenizer_of
    from adapt.quiet import quiet_libraries

    pipeline = plain(backbone)
    adapter = Adapter(LoraWeights({}), words={word: found})
    try:
        with quiet_libraries():
            say_from(path, pipeline, word, found)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise AdapterError(f"diffusers does not take the file: {told[:200]}", given=path) from error
    for component, tensor in found.items():
        table = embedding_of(pipeline, component).weight
        numbers = tokenizer_of(pipeline, component).convert_tokens_to_ids(names_of(word, len(tensor)))
        if not torch.equal(table[numbers].float(), tensor.to(table.dtype).float()):
            raise AdapterError(f"diffusers has other numbers for {word}", given=component)
    proof = _agreement(adapter, backbone, pipeline, "diffusers", "")
    return replace(proof, layers=sum(map(len, found.values())))


def prove_merged(folder: Path, backbone: Backbone, before: Sequence[Tensor], layers: int, prompt: str = "") -> Proof:
    """A pipeline's folder, loaded anew by diffusers: its weights are those of the base here, in which adapters now are, bit for
    bit, and its predictions are the same.

    Args:
        before: predictions of the base without them.
        layers: how many layers they change.

    Raises:
        AdapterError: it holds or predicts something else.
    """
    from adapt.loading import load_pipeline
    from adapt.source import source

    pipeline = load_pipeline(source(str(folder)), backbone.pipeline_class, backbone.dtype).to(backbone.device)
    fresh = _set_like(type(backbone)(pipeline, str(folder)), backbone)
    if other := [name for c in backbone.modules for name in _unlike(c, backbone.modules[c], fresh.modules[c])]:
        raise AdapterError(f"diffusers has other numbers in {len(other)} tensors of the merged base", given=other[0])
    ours, theirs = predictions(backbone, prompt), predictions(fresh, prompt)
    return _judged(_largest(ours, theirs), _largest(ours, before), layers, "diffusers")


def _unlike(component: str, ours: torch.nn.Module, theirs: torch.nn.Module) -> list[str]:
    """Tensors of the same type that are not equal, and those that are missing."""
    found = theirs.state_dict()
    return [
        f"{component}.{name}"
        for name, tensor in ours.state_dict().items()
        if name not in found or (found[name].dtype == tensor.dtype and not torch.equal(found[name], tensor))
    ]


def _into(adapter: Adapter) -> dict[str, bool]:
    """What diffusers is told of a file of the second expert."""
    return {"load_into_transformer_2": True} if set(adapter.weights.modules) == {SECOND} else {}


def reads(path: Path, adapter: Adapter) -> bool:
    """Whether diffusers reads the file's dialect itself: the models' own names it knows of Flux and Wan, and kohya's of UNets; of
    Wan, it wants every linear layer in those; its maps of Flux have the published width in them."""
    names = check_file(path)
    dialect, component = dialect_of(names, path).name, set(adapter.weights.modules) - {"text_encoder", "text_encoder_2"}
    if adapter.weights.kinds != {"lora"} or any("joint_blocks" in name for name in names):
        return False
    if dialect != "diffusers" and is_flux(names) and not _as_published(adapter):
        return False
    if is_wan(adapter.weights):
        return dialect in ("diffusers", "comfyui") and len(component) == 1
    return dialect in BY_DIFFUSERS or (dialect in FLUX_BY_DIFFUSERS and component == {"transformer"})


def _as_published(adapter: Adapter) -> bool:
    """Whether a denoiser's layers have Flux.1's width."""
    return any(FLUX_WIDTH in layer.size for layer in adapter.weights.modules.get("transformer", {}).values())


def _agreement(
    adapter: Adapter, backbone: Backbone, pipeline: Any, reader: str, prompt: str, clock: Clock | None = None
) -> Proof:
    prompt = " ".join([*adapter.words, prompt])
    other = _set_like(type(backbone)(pipeline, backbone.reference), backbone)
    if clock is not None:
        other.listen(clock)
    theirs = predictions(other, prompt)
    plain = predictions(backbone, prompt)
    with adapter.apply(backbone):
        ours = predictions(backbone, prompt)
    return _judged(_largest(ours, theirs), _largest(ours, plain), len(adapter.weights), reader)


def _set_like(other: Backbone, backbone: Backbone) -> Backbone:
    """With what was asked of the other."""
    other.max_tokens, other.frames, other.fps = backbone.max_tokens, backbone.frames, backbone.fps
    other.editing = backbone.editing
    return other


def _judged(difference: float, effect: float, layers: int, reader: str) -> Proof:
    if not difference <= TOLERANCE * max(1.0, effect):
        raise AdapterError(
            f"{reader} draws something else with the exported adapter",
            given=f"difference {difference:.2g}, effect of the adapter {effect:.2g}",
            allowed=TOLERANCE,
        )
    return Proof(layers, difference, effect, reader)


@torch.no_grad()
def predictions(backbone: Backbone, prompt: str) -> list[Tensor]:
    """Predictions at fixed noise and three times, each (1, C, *dims)."""
    objective, condition = backbone.objective(), backbone.condition([prompt])
    shape = backbone.own_latents
    blank = backbone.blank_source(1, *shape[1:]) if backbone.takes_source else {}
    given = {name: normal(0, f"proof {name}", 0, 0, x.shape).to(x) for name, x in blank.items()}
    condition = condition.replaced({SOURCE: given} if given else {})
    x_t = normal(0, "proof", 0, 0, (1, *shape)).to(backbone.device, backbone.dtype)
    times = [objective.times(torch.tensor([q])).to(backbone.device) for q in QUANTILES]
    return [backbone.predict(x_t, t, condition) for t in (*times, *_of_others(backbone, times))]


def _of_others(backbone: Backbone, times: Sequence[Tensor]) -> list[Tensor]:
    """A time (1,) of each expert that predicts none of these."""
    objective = backbone.objective()
    every = [objective.times(torch.tensor([k / 200])).to(backbone.device) for k in range(1, 200)]
    idle = [
        expert.component
        for expert in backbone.experts.values()
        if not any(backbone.takes(expert.component, t).any() for t in times)
    ]
    return [next(t for t in every if backbone.takes(name, t).any()) for name in idle]


def _largest(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))
