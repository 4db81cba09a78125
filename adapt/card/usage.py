"""How an adapter is used, as code that runs as printed: what the card's snippet, the notebook and their tests share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapt.adapter import Facts
from adapt.backbones.registry import free_guidance_of
from adapt.formats import FILE_NAME
from adapt.formats.experts import LOW_FILE, LOW_NAME, SECOND
from adapt.formats.peft_folder import FOLDER, WEIGHTS_NAME
from adapt.formats.readers import LOADER

TASKS = {
    **dict.fromkeys(("Img2Img", "Kontext", "Edit", "Pix2Pix", "Inpaint", "Fill"), "image-to-image"),
    **dict.fromkeys(("ImageToVideo", "StableVideoDiffusion"), "image-to-video"),
    **dict.fromkeys(("Video", "Wan", "LTX", "CogVideoX", "AnimateDiff", "Mochi"), "text-to-video"),
    **dict.fromkeys(("Audio", "MusicLDM"), "text-to-audio"),
    **dict.fromkeys(("DiTPipeline", "DDPM", "DDIMPipeline"), "unconditional-image-generation"),
}
"""Part of a pipeline's class name → the Hub's task; the first that fits. All others draw from text."""
FILLING = ("Inpaint", "Fill")
"""Parts of the class names of pipelines that are given a picture and a mask."""
COMPONENT = "unet"
FROM_PURE_NOISE = """pipeline.scheduler = type(pipeline.scheduler).from_config(
    pipeline.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
)  # it was trained with a noise schedule that ends in pure noise"""
GENERIC = "DiffusionPipeline"
"""diffusers finds the class of a pipeline itself; for adapters that do not say it."""


@dataclass(frozen=True)
class Usage:
    """Attributes:
    address: where the adapter is: a folder or `user/name`.
    pipeline: diffusers' class.
    reference: of the base, or None where nobody else knows it.
    files: its `revision` and `variant`, where they were asked for.
    kind: `lora`, `dora`, `loha`, `lokr`.
    components: the networks that it changes.
    by_diffusers: whether `load_lora_weights` takes it; else peft does.
    words: new words, as the facts have them.
    sample: a picture of the card: `prompt`, `seed`, `steps` …; what the snippet draws.
    zero_terminal_snr: whether it is drawn from pure noise.
    labels: the classes that it draws; with some, the code is adapt's, because no pipeline takes classes.
        edits: whether it was taught edits on a base that also draws from words alone.
    """

    address: str
    pipeline: str
    reference: str | None
    kind: str
    components: tuple[str, ...]
    by_diffusers: bool = True
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sample: Mapping[str, Any] = field(default_factory=dict)
    zero_terminal_snr: bool = False
    labels: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    edits: bool = False

    @property
    def task(self) -> str:
        """The Hub's name for what is done with it."""
        return "image-to-image" if self.edits else task_of(self.pipeline)

    @property
    def peft_folders(self) -> dict[str, str]:
        """Component → where its weights are, inside the adapter's folder."""
        several = len(self.components) > 1
        return {name: f"{FOLDER}/{name}" if several else FOLDER for name in self.components}

    @property
    def hub_base(self) -> str | None:
        """The base's Hub id, if it has one."""
        return self.reference if self.reference and "/" in self.reference else None

    @property
    def weights_files(self) -> tuple[str, ...]:
        """Those that diffusers loads: of two experts, each has one."""
        first = () if self.components == (SECOND,) else (FILE_NAME,)
        return (*first, LOW_FILE) if SECOND in self.components else first

    @property
    def weights_name(self) -> str:
        if self.by_diffusers:
            return "`, `".join(self.weights_files)
        return "`, `".join(f"{inside}/{WEIGHTS_NAME}" for inside in self.peft_folders.values())

    @property
    def by_adapt(self) -> bool:
        """Whether no library draws with it."""
        return LOADER[self.kind] == "adapt"

    @property
    def in_python(self) -> bool:
        """Whether the snippet is adapt's: diffusers cannot do all of it."""
        return bool(self.labels) or self.by_adapt

    @property
    def imports(self) -> str:
        if self.in_python:
            return "import adapt"
        lines = ["import torch"]
        if self.reference and not self.hub_base:
            lines.append("from adapt.loading import bundled  # the base comes with the package adapt-diffusion")
        lines.append(f"from diffusers import {self.pipeline}")
        lines += ["from diffusers.utils import load_image"] if self.given else []
        lines += [] if self.by_diffusers else ["from peft import PeftModel"]
        return "\n".join(lines)

    @property
    def load(self) -> str:
        """Makes `pipeline`, with the adapter in it; for adapt, `base` and `adapter`."""
        if self.in_python:
            reference = self.reference or "folder-of-the-base"
            return f'base = adapt.Backbone.load("{reference}")\nadapter = adapt.Adapter.load("{self.address}")'
        asked = "".join(f', {name}="{value}"' for name, value in self.files.items())
        made = f"pipeline = {self.pipeline}.from_pretrained({self.base}{asked}, use_safetensors=True)"
        return "\n".join([made, *([FROM_PURE_NOISE] if self.zero_terminal_snr else []), self.put_in])

    @property
    def base(self) -> str:
        if self.reference and not self.hub_base:
            return f'bundled()["{self.reference}"]'
        return f'"{self.hub_base}"' if self.hub_base else '"folder-of-the-base"'

    @property
    def put_in(self) -> str:
        return "\n".join([self.put_weights_in, *(self._say(word, told) for word, told in self.words.items())])

    def _say(self, word: str, told: Mapping[str, Any]) -> str:
        """Teaches the pipeline a new word."""
        folder, _, file = str(told["file"]).rpartition("/")
        if len(told["encoders"]) > 1:
            return (
                f"# {word}: {told['file']} has an embedding for each of {', '.join(told['encoders'])}; adapt loads both"
            )
        return f'pipeline.load_textual_inversion("{self.address}", subfolder="{folder}", weight_name="{file}")'

    @property
    def put_weights_in(self) -> str:
        if self.by_diffusers:
            return "\n".join(map(self._put_in, self.weights_files))
        lines = [
            f'PeftModel.from_pretrained(pipeline.{name}, "{self.address}", subfolder="{inside}")'
            for name, inside in self.peft_folders.items()
        ]
        return "\n".join([f"{lines[0]}  # puts its layers into the pipeline's network", *lines[1:]])

    def _put_in(self, file: str) -> str:
        """Has diffusers load one file."""
        if file == FILE_NAME:
            return f'pipeline.load_lora_weights("{self.address}", weight_name="{FILE_NAME}", adapter_name="it")'
        return (
            f'pipeline.load_lora_weights(\n    "{self.address}", subfolder="{SECOND}", weight_name="{LOW_NAME}",\n'
            '    load_into_transformer_2=True, adapter_name="it",\n)  # the expert of low noise'
        )

    @property
    def draw(self) -> str:
        """Draws the sample as `picture`, from the same seed."""
        sample = self.sample
        if self.labels:
            said = f"prompt={_text(str(sample.get('prompt') or ''))}, class_name={_text(self.label)}{self._beside}"
            return f"picture = adapt.generate(base, adapters=[adapter], {said}, seed={sample.get('seed', 0)})[0]"
        if self.by_adapt:
            seed = sample.get("seed", 0)
            said = f"prompt={_text(self.prompt)}{self._beside}"
            return f"picture = adapt.generate(base, {said}, adapters=[adapter], seed={seed})[0]"
        return "\n".join(["picture = pipeline(", *(f"    {line}," for line in self._arguments()), ").images[0]"])

    def _arguments(self) -> Iterator[str]:
        """What the pipeline is called with."""
        sample, free = self.sample, free_guidance_of(self.pipeline)
        # Pipelines do not agree on which comes first, the prompt or a picture.
        yield f"prompt={_text(self.prompt)}" if self.given else _text(self.prompt)
        yield from (f"{name}=load_image({_text(file)})" for name, file in self.given.items())
        needed = free != "guidance_scale" and (sample.get("guidance_scale") or 1) > 1  # or it is off
        if sample.get("negative_prompt") or needed:
            yield f"negative_prompt={_text(sample.get('negative_prompt') or '')}"
        for name, ours in (("num_inference_steps", "steps"), (free, "guidance_scale"),
                           ("width", "width"), ("height", "height")):  # fmt: skip
            if sample.get(ours) is not None:
                yield f"{name}={sample[ours]}"
        yield f'generator=torch.Generator("cpu").manual_seed({sample.get("seed", 0)})'

    @property
    def _beside(self) -> str:
        """The same for adapt's own call."""
        return "".join(f", {name.removesuffix('_image')}={_text(file)}" for name, file in self.given.items())

    @property
    def prompt(self) -> str:
        return str(self.sample.get("prompt") or "a picture")

    @property
    def label(self) -> str:
        """The class of the sample, else the first one."""
        return str(self.sample.get("class") or next(iter(self.labels), ""))

    @property
    def asked(self) -> str:
        """What the command line is told to draw."""
        words = f"--class {_quoted(self.label)}" if self.labels else f"--prompt {self.shell_prompt}"
        return words + self.files_asked

    @property
    def files_asked(self) -> str:
        """The options of what is given beside words."""
        return "".join(f" --{name.removesuffix('_image')} {file}" for name, file in self.given.items())

    @property
    def given(self) -> dict[str, str]:
        """What the pipeline is given beside words: its argument → a file that the reader has."""
        if any(part in self.pipeline for part in FILLING):
            return {"image": "picture.png", "mask_image": "mask.png"}
        return {"image": "picture.png"} if self.task == "image-to-image" else {}

    @property
    def shell_prompt(self) -> str:
        """The prompt as one word for a shell."""
        return _quoted(self.prompt)


def _quoted(text: str) -> str:
    """One word for a shell, in double quotes, which every system's shell knows."""
    return '"' + re.sub(r'([\\"$`])', r"\\\1", " ".join(text.split())) + '"'


def cell(value: object) -> str:
    """A value in a table's cell, where a line ends and a bar separates."""
    return " ".join(str(value).split()).replace("|", "\\|")


def usage_of(facts: Facts, address: str) -> Usage:
    """What the facts say; of samples the first that diffusers draws with the base's own scheduler."""
    told = shown(facts)
    plain = [s for s in told if not s.get("scheduler")]
    advice = {"prompt": facts.trigger, **{k: facts.recommended.get(k) for k in ("steps", "guidance_scale")}}
    return Usage(
        address=address,
        pipeline=facts.base.get("pipeline") or GENERIC,
        reference=facts.base.get("reference"),
        files={name: value for name in ("revision", "variant") if (value := facts.base.get(name))},
        kind=(kind := str(facts.training.get("kind") or "lora")),
        components=tuple(facts.lora) or (COMPONENT,),
        words=facts.words,
        by_diffusers=LOADER[kind] == "diffusers" and "peft" not in facts.loads_in,
        sample=next(iter(plain or told), advice),
        zero_terminal_snr=bool(facts.recommended.get("zero_terminal_snr")),
        labels=tuple(facts.conditioning.get("class", {}).get("labels", ())),
        edits=bool(facts.training.get("edits")),
    )


def shown(facts: Facts) -> list[Mapping[str, Any]]:
    """The samples whose prompts are told. Those with the trigger come first: pages take the first one's prompt for their own
    snippet."""
    told = [sample for sample in facts.samples if sample.get("prompt") or sample.get("class")]
    word = (facts.trigger or "").lower()
    return sorted(told, key=lambda sample: word not in str(sample["prompt"]).lower())


def task_of(pipeline: str) -> str:
    """The Hub's name for what a pipeline does, from diffusers' class."""
    return next((task for part, task in TASKS.items() if part in pipeline), "text-to-image")


def _text(value: str) -> str:
    """As a Python literal in double quotes."""
    import json

    return json.dumps(value, ensure_ascii=False)
