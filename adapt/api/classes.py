"""The classes of a run: judged before step 1, put in, or grown from an adapter that has some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adapt.config import TrainSettings
from adapt.data import Picture
from adapt.data.captions import caption_of_label
from adapt.data.wording import listed
from adapt.errors import AdapterError, DataError

if TYPE_CHECKING:  # pictures are judged before torch is imported
    from torch import Tensor

    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.lora.grown import Fixed
    from adapt.lora.taught import Taught
    from conditioning import ClassConditioner


# ------------------------------------------------------------------------------------------------ without torch
def labels_of(pictures: Sequence[Picture]) -> list[str]:
    """The classes of what is taught, sorted."""
    return sorted({picture.label for picture in pictures if picture.label and not picture.prior})


def with_classes(
    train: Sequence[Picture], held_out: Sequence[Picture], settings: TrainSettings
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """Pictures to be taught by class: captions that only say the class again are left out, because the class says it.

    Raises:
        DataError: a picture without a class, fewer than two classes, a held-out picture of a class that is not taught, or a
            class that `grow_from` has already.
    """
    if not settings.classes:
        return tuple(train), tuple(held_out)
    if without := [p.name for p in (*train, *held_out) if not p.label and not p.prior]:
        raise DataError("classes=true, and pictures have no class", given=listed(without),
                        next="put them into folders named after their classes, or give them a column label")  # fmt: skip
    labels = labels_of(train)
    if len(labels) < 2 and settings.grow_from is None:
        raise DataError("classes=true, and all pictures are of one class", given=listed(labels), allowed="two or more",
                        next="put the pictures into folders named after their classes, or leave classes out")  # fmt: skip
    if strange := sorted(set(labels_of(held_out)) - set(labels)):
        raise DataError("held-out pictures are of classes that are not taught", given=listed(strange),
                        next="more pictures of these classes, validation=0, or another seed")  # fmt: skip
    _require_new(labels, settings)
    return tuple(map(_bare, train)), tuple(map(_bare, held_out))


def leaving_some(pictures: Sequence[Picture], held_out: Sequence[Picture]) -> tuple[Picture, ...]:
    """The held-out pictures without those of a class that would have no other picture left: they are taught instead."""
    aside = {picture.name for picture in held_out}
    left = {picture.label for picture in pictures if picture.name not in aside}
    return tuple(picture for picture in held_out if picture.label in left)


def _bare(picture: Picture) -> Picture:
    if picture.label is None or picture.prior:
        return picture
    said = caption_of_label(picture.label)
    return replace(picture, captions=tuple(caption for caption in picture.captions if caption != said))


def _require_new(labels: Sequence[str], settings: TrainSettings) -> None:
    from adapt.adapter import Adapter

    if settings.grow_from is None:
        return
    known = Adapter.labels_of(settings.grow_from)
    if not known:
        raise AdapterError("grow_from has no classes to add others to", given=settings.grow_from,
                           next="an adapter that was trained with classes=true")  # fmt: skip
    if both := [label for label in labels if label in known]:
        raise DataError("classes are there already: a class that grows is a new one", given=listed(both),
                        next="rename the folder; or take the old one out: adapt classes ADAPTER --remove NAME")  # fmt: skip


def balanced(pictures: Sequence[Picture], repeats: Sequence[float]) -> list[float]:
    """Repeats with which every class comes equally often, and all together as often as before; pictures without a class, and
    those of the prior, keep theirs."""
    weights = Counter[str]()
    for picture, count in zip(pictures, repeats, strict=True):
        if picture.label and not picture.prior:
            weights[picture.label] += count  # type: ignore[assignment]  # counts may be broken
    share = sum(weights.values()) / max(len(weights), 1)
    return [
        count * share / weights[picture.label] if picture.label and not picture.prior else count
        for picture, count in zip(pictures, repeats, strict=True)
    ]


# ------------------------------------------------------------------------------------------------ with torch
def put_in_classes(
    backbone: Backbone,
    settings: TrainSettings,
    labels: Sequence[str],
    known: ClassConditioner | None = None,
    own: Mapping[str, Tensor] | None = None,
) -> Taught | None:
    """The classes at their start; the backbone draws with them. None where no classes are taught.

    Args:
        known: classes that others are added to.
        own: what these change in layers, at its start (`own_layers`).

    Raises:
        SettingsError: the family has no place for them.
    """
    from adapt.backbones.class_slot import slot_of
    from adapt.lora.taught import teach
    from conditioning import ClassConditioner

    if not settings.classes:
        return None
    if known is None:
        slot = slot_of(backbone, settings.class_tokens)
        start = starts_of(backbone, labels, slot.empty, settings)
        conditioner = ClassConditioner.new(
            labels, slot.empty, slot=slot.kind, spread=slot.spread, seed=settings.seed % 2**63, start=start
        )
    else:
        before = slot_of(backbone, len(known.empty)).empty  # what null was before it was learned
        conditioner = known.grown(labels, starts_of(backbone, labels, before, settings), own)
    backbone.conditioners["class"] = conditioner
    return teach(conditioner, settings.class_learning_rate, ("table", "start"), backbone.device)


def starts_of(backbone: Backbone, labels: Sequence[str], empty: Tensor, settings: TrainSettings) -> Tensor | None:
    """What the text encoder makes of each class's name, relative to null (K, n · D): the states after the first, over again where
    they are fewer than tokens. None: classes start as null."""
    import torch

    if settings.class_start == "null" or empty.ndim == 1:
        return None
    found = []
    for label in labels:
        part = backbone.condition([caption_of_label(label)]).parts[backbone.caption_part]
        states = part["tokens"][0].float().cpu()
        said = (states[part["mask"][0].bool().cpu()] if "mask" in part else states)[1:]
        said = said if len(said) else states
        found.append((said[[k % len(said) for k in range(len(empty))]] - empty).flatten())
    return torch.stack(found)


def grown(path: str, backbone: Backbone) -> Adapter:
    """The class adapter that learns further classes.

    Raises:
        AdapterError: not there, made for another base, without classes, or with parts that this run could not leave alone.
    """
    from adapt.adapter import Adapter

    adapter = Adapter.load(path)
    adapter.check(backbone)
    if adapter.classes is None:
        raise AdapterError("grow_from has no classes to add others to", given=path)
    if "tlora" in adapter.weights.kinds:
        raise AdapterError(
            "a T-LoRA cannot be grown: in the weights it is at one time, and a batch is at several", given=path
        )
    beside = {*adapter.weights.modules, *adapter.words, *adapter.conditioners}
    if strange := sorted(beside - {backbone.denoiser_name, "class"}):
        raise AdapterError("grow_from has more than a denoiser's layers and classes, which cannot be grown yet",
                           given=", ".join(strange))  # fmt: skip
    return adapter


def own_layers(
    adapter: Adapter, backbone: Backbone, labels: Sequence[str], settings: TrainSettings
) -> dict[str, Tensor]:
    """What each further class changes in the layers that the grown adapter changes, at its start: nothing yet. Empty with
    class_rank=0."""
    import torch

    from adapt.backbones.own_layers import changeable
    from adapt.data.plan import even

    network, found = backbone.modules[backbone.denoiser_name], dict[str, torch.Tensor]()
    for name in sorted(adapter.weights.modules[backbone.denoiser_name]) if settings.class_rank else ():
        layer = network.get_submodule(name)
        if not changeable(layer):
            continue
        weight = layer.get_parameter("weight")
        shape = (settings.class_rank, *weight.shape[1:])
        bound = weight[0].numel() ** -0.5
        for number, label in enumerate(labels):
            start = even(settings.seed, f"class {label} {name}", 0, 0, shape)
            found[f"{number}.{name}.down"] = ((2 * start - 1) * bound).float()
            found[f"{number}.{name}.up"] = torch.zeros(len(weight), settings.class_rank)
    return found


def put_on(adapter: Adapter, backbone: Backbone, classes: ClassConditioner) -> Fixed:
    """The grown adapter's layers, on the denoiser and not to be changed; its classes are taught anew beside them.

    Args:
        classes: that are taught, and change these layers for their rows.
    """
    from adapt.backbones.own_layers import put_on as change
    from adapt.lora.grown import Fixed, FixedConfig

    applied, name = replace(adapter, conditioners={}).apply(backbone), backbone.denoiser_name
    applied.then.append(change(backbone, classes))
    config = FixedConfig(adapter.facts.lora.get(name, {}))
    return Fixed(backbone.denoiser, applied, adapter.weights.modules[name], config)


def require_slot(backbone: Backbone, settings: TrainSettings) -> None:
    """Raises `SettingsError` for a family that has no place for classes."""
    from adapt.backbones.class_slot import slot_of

    if settings.classes and settings.grow_from is None:
        slot_of(backbone, settings.class_tokens)
