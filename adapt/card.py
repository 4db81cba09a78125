"""The model card: what the Hub shows, rendered from the adapter's facts. Nothing private goes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt.adapter import Facts
from adapt.formats import FILE_NAME
from adapt.formats.peft_folder import FOLDER, WEIGHTS_NAME

TEMPLATE = Path(__file__).with_name("card_template.md")
KINDS = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr"}
"""As they are written."""


def render(
    name: str,
    facts: Facts,
    *,
    pipeline_class: str,
    proof: Mapping[str, Any],
    samples: Sequence[tuple[str, str]] = (),
) -> str:
    """The text of `README.md`, with the Hub's front matter.

    Args:
        name: of the adapter.
        pipeline_class: of diffusers.
        proof: `layers`, `difference`, `effect`, `reader`: diffusers, or peft for kinds that its file cannot hold.
        samples: (relative file, prompt or "") of each sample.
    """
    import jinja2

    reference = facts.base.get("reference")
    public = reference if reference and "/" in reference else None
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    text: str = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        header=_header(facts, public, samples, proof["reader"]),
        name=name,
        folder=name,
        base=public or reference or "a local base",
        base_link=f"https://huggingface.co/{public}" if public else "#how-it-was-trained",
        base_code=f'"{public}"' if public else "path_of_the_base",
        pipeline_class=pipeline_class,
        weights_name=FILE_NAME if proof["reader"] == "diffusers" else f"{FOLDER}/{WEIGHTS_NAME}",
        kind=KINDS[facts.training.get("kind", "lora")],
        component=next(iter(facts.lora), "unet"),
        trigger=facts.trigger,
        prompt=next((prompt for _, prompt in samples if prompt), facts.trigger or "…"),
        pictures=facts.training["pictures"],
        training=[(key.replace("_", " "), value) for key, value in facts.training.items() if key != "held_out"],
        held_out=facts.training.get("held_out"),
        anchor_above=facts.training.get("anchor_above"),
        proof=proof,
        **facts.recommended,
    )
    return text


def _header(facts: Facts, public: str | None, samples: Sequence[tuple[str, str]], reader: str) -> str:
    """The front matter (YAML between dashes). The Hub offers its LoRA widget and snippet only for what diffusers loads."""
    import yaml

    kind = ["lora", "template:sd-lora"] if reader == "diffusers" else ["peft", str(facts.training["kind"])]
    tags = ["text-to-image", "diffusers", "diffusers-training", *kind, str(facts.base["family"]), "adapt"]
    widget = [{"text": prompt, "output": {"url": file}} for file, prompt in samples if prompt]
    values: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image", "tags": tags}
    if public:
        values |= {"base_model": public, "base_model_relation": "adapter"}
    if facts.trigger:
        values["instance_prompt"] = facts.trigger
    if widget:
        values["widget"] = widget
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"
