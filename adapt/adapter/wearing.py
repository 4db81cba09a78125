"""An adapter on a base: put on its weights, fitted to layers that are missing, loaded by diffusers into a fresh pipeline."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.errors import AdapterError
from adapt.formats import FILE_NAME, LoraWeights
from adapt.formats.experts import LOW_FILE, LOW_NAME, SECOND
from adapt.formats.peft_folder import FOLDER, folders

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from adapt.adapter.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.lora import Applied
    from conditioning import ClassConditioner


def put_on(adapter: Adapter, backbone: Backbone, scale: float) -> Applied:
    """See `Adapter.apply`."""
    from adapt.backbones.beside import Beside
    from adapt.lora import Applied
    from adapt.lora.by_time import Following, at_share
    from adapt.lora.words import Words

    adapter.check(backbone)
    both = set(adapter.conditioners) & set(backbone.conditioners)
    if scale and both:
        raise AdapterError("another adapter with such a conditioner is on this base already", given=", ".join(sorted(both)),
                           allowed="one at a time", next="adapt classes A --merge B" if "class" in both else None)  # fmt: skip
    for conditioner in adapter.conditioners.values() if scale else ():
        if isinstance(conditioner, Beside):
            conditioner.put_on(backbone)
    applied = Applied(backbone.modules, at_share(adapter.layers(), 0.0), scale)
    if "tlora" in adapter.weights.kinds:
        following = Following(applied, adapter.layers(), backbone.objective().share, 0.0)
        applied.then.append(backbone.listen(following))
    if adapter.words:
        try:
            applied.then.append(Words(backbone.pipeline, adapter.words).remove)
        except BaseException:
            applied.unload()
            raise
    if scale:  # at 0 it is nothing
        for part, conditioner in adapter.conditioners.items():
            backbone.conditioners[part] = conditioner
            applied.then.append(partial(backbone.conditioners.pop, part))
        if adapter.classes is not None:
            applied.then.append(_own_layers(backbone, adapter.classes, scale, applied))
    return applied


def _own_layers(backbone: Backbone, classes: ClassConditioner, scale: float, applied: Applied) -> Callable[[], None]:
    """Puts on the layers that are classes' own; what takes them off again.

    Raises:
        AdapterError: made for another base; all of it is off again then.
    """
    from adapt.backbones.own_layers import put_on

    try:
        return put_on(backbone, classes, scale)
    except ValueError as error:
        applied.unload()
        raise AdapterError(f"the adapter was made for another base: {error}") from error


def fitting(adapter: Adapter, backbone: Backbone, allow_missing: Sequence[str]) -> Adapter:
    """See `Adapter.fitting`."""
    from adapt.lora.applied import has_layer

    names = list(adapter.layers())
    if strange := [name for name in allow_missing if not fnmatch.filter(names, name)]:
        raise AdapterError("--allow-missing: the adapter has no such layer", given=strange[0], allowed=names[0] + " …")
    missing = [name for name in names if not has_layer(backbone.modules, name)]
    allowed = {name for pattern in allow_missing for name in fnmatch.filter(missing, pattern)}
    if refused := [name for name in missing if name not in allowed]:
        raise AdapterError(
            f"the adapter was made for another base: it has no layer for {len(refused)} of {len(names)}",
            given=refused[0],
            next=f"--allow-missing '{refused[0].partition('.')[0]}.*' draws without them",
        )
    kept = {
        c: {name: layer for name, layer in layers.items() if f"{c}.{name}" not in allowed}
        for c, layers in adapter.weights.modules.items()
    }
    return replace(
        adapter, weights=LoraWeights({c: found for c, found in kept.items() if found}, adapter.weights.metadata)
    )


def in_pipeline(adapter: Adapter, backbone: Backbone) -> DiffusionPipeline:
    """See `Adapter.to_diffusers`."""
    from adapt.loading import plain
    from adapt.lora.text_encoders import inner
    from adapt.lora.through_peft import load_by_peft, require_taken
    from adapt.lora.words import say_to
    from adapt.quiet import quiet_libraries

    adapter.check(backbone)
    if adapter.loader != "peft" and backbone.loader == "peft":  # a bare file, of a family whose pipeline has no loader
        return replace(adapter, facts=replace(adapter.facts, loads_in=("adapt", "peft"))).to_diffusers(backbone)
    pipeline = plain(backbone)
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        adapter.save(folder)
        if adapter.loader == "diffusers":
            _load(pipeline, Path(folder))
        else:
            for name, inside in folders(Path(folder) / FOLDER, adapter.weights).items():
                load_by_peft(inner(getattr(pipeline, name)), inside)
        for word, found in adapter.words.items():
            say_to(pipeline, word, found, Path(folder))
    for name, layers in adapter.weights.modules.items():
        module = inner(getattr(pipeline, name))
        module.requires_grad_(False).eval()
        require_taken(module, layers, name, adapter.loader)
    return pipeline


def _load(pipeline: Any, folder: Path) -> None:
    """What the card tells users to do, for the files that are there."""
    if (folder / FILE_NAME).is_file():
        pipeline.load_lora_weights(str(folder), weight_name=FILE_NAME, use_safetensors=True)
    if (folder / LOW_FILE).is_file():
        pipeline.load_lora_weights(
            str(folder / SECOND), weight_name=LOW_NAME, use_safetensors=True, load_into_transformer_2=True
        )
