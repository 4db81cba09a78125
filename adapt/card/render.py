"""`README.md` of an adapter: front matter as the Hub reads it, and the text below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapt.adapter import Facts
from adapt.card.stamp import stamped
from adapt.card.usage import Usage, cell, shown, usage_of
from adapt.licences import Licence

TEMPLATE = Path(__file__).with_name("template.md")
KINDS = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT", "boft": "BOFT", "vera": "VeRA",
         "tlora": "T-LoRA"}  # fmt: skip
"""As they are written."""
GALLERY = 8
"""The Hub's gallery shows four to eight pictures well."""
TABLE = ("pictures", "steps", "chosen_step", "weights", "batch_size", "resolution", "kind", "rank", "alpha", "optimizer",
         "learning_rate", "seed", "anchor_above", "assistant")  # fmt: skip
"""What the table of the training tells, in this order, where it is known."""


def render(name: str, facts: Facts, *, address: str | None = None) -> str:
    """The text of `README.md`, stamped (`is_untouched`).

    Args:
        name: of the adapter: the page's title.
        address: where the code that it shows finds the adapter: a folder or `user/name`; None: a folder called `name`.
    """
    import jinja2
    from huggingface_hub import ModelCard

    usage = usage_of(facts, address or name)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["cell"] = cell
    training = facts.training
    text = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        header=front_matter(facts, usage),
        name=name,
        usage=usage,
        kind=KINDS.get(usage.kind, usage.kind),
        trigger=facts.trigger,
        recommended=recommended(facts),
        distilled=facts.distilled.get("guidance_scale"),
        chosen=chosen(facts),
        training=[(key.replace("_", " "), training[key]) for key in TABLE if training.get(key) is not None],
        held_out=training.get("held_out"),
        anchor_above=training.get("anchor_above"),
        data=description(facts),
        proof=facts.proof,
        licence=licence_of(facts),
        own_licence=bool(facts.data.get("adapter")),
        versions=facts.versions,
        loads_in=facts.loads_in,
    )
    return stamped(str(ModelCard(text)))


def front_matter(facts: Facts, usage: Usage) -> str:
    """YAML between dashes. The Hub offers its LoRA widget and snippet only for what diffusers loads."""
    from huggingface_hub import ModelCardData

    licence = licence_of(facts)
    widget = [
        {"text": sample.get("prompt") or sample["class"], "output": {"url": sample["file"]}} for sample in shown(facts)
    ]
    said = licence.as_dict() if licence else {}
    data = ModelCardData(
        license=said.get("license"),
        license_name=said.get("license_name"),
        license_link=said.get("license_link"),
        library_name="diffusers" if usage.by_diffusers else "adapt",
        pipeline_tag=usage.task,
        tags=_tags(facts, usage),
        base_model=usage.hub_base,
        base_model_relation="adapter" if usage.hub_base else None,
        instance_prompt=facts.trigger,
        widget=widget[:GALLERY] or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _tags(facts: Facts, usage: Usage) -> list[str]:
    family = facts.base.get("family")
    kind = (
        ["diffusers", "diffusers-training", "lora", "template:sd-lora"]
        if usage.by_diffusers
        else [*([] if usage.by_adapt else ["peft"]), usage.kind]
    )
    return [usage.task, *kind, *([family] if family else []), "adapt"]


def licence_of(facts: Facts) -> Licence | None:
    """The adapter's: what was said for it, else its base's."""
    return Licence.of(facts.data.get("adapter", {})) or Licence.of(facts.base)


def recommended(facts: Facts) -> Mapping[str, Any]:
    """Scale, guidance, steps; what is not recorded is said so."""
    return {name: facts.recommended.get(name, "not recorded") for name in ("scale", "guidance_scale", "steps")}


def chosen(facts: Facts) -> str | None:
    """What the recommended settings rest on, where a sweep has chosen them; None: nothing that is known."""
    known = {name: value for name, value in facts.sweep.items() if isinstance(value, int | float)}
    if not {"settings", "pictures", "references"} <= set(known):
        return None
    text = f"Chosen among {known['settings']} settings by drawing {known['pictures']} pictures with each"
    if {"style", "style_error"} <= set(known):
        text += f", against {known['references']} reference pictures: style {known['style']:.2f} ± {known['style_error']:.2f}"
        text += ", where 0 is the base and 1 the reference"
    return text + "."


def description(facts: Facts) -> Mapping[str, Any]:
    """What is told of the pictures: how many, of how many classes, from where, under which licence. Never a name or a caption."""
    data = facts.data
    return {
        "pictures": data.get("pictures", facts.training.get("pictures")),
        "classes": data.get("classes"),
        "licence": data.get("license"),
        "source": data.get("source"),
    }
