"""Every family that adapt knows, in one table. Imports no torch: what stands here is known before anything is loaded.

A new family is one file beside this one and one row below.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapt.medium import Kind

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone

SOURCED = ("edit",)
"""Tasks of bases that edit the picture that they are given: the part `source`."""
CONTRACT = "contract only"
PROVED = "proved"


@dataclass(frozen=True)
class Refusal:
    """A variant that can be drawn with and cannot be trained.

    Attributes:
        variant: what it is called.
        why: the reason, as the end of a sentence.
        marks: (component, key of its configuration) → the value that tells it; a missing key is False. `pipeline` stands for the
            pipeline's own, in `model_index.json`.
        assisted: it is trained where the user gives an adapter that undoes its distillation (`assistant`).
        steps: that it draws in.
    """

    variant: str
    why: str
    marks: Mapping[tuple[str, str], Any]
    assisted: bool = False
    steps: int | None = None

    @property
    def reason(self) -> str:
        """Why it cannot be trained, and with what it could."""
        return (
            f"{self.why}, or give assistant=PATH, a LoRA that undoes the distillation meanwhile"
            if self.assisted
            else self.why
        )

    def fits(self, configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether a base with these configurations, by component, is one."""
        return _marked(self.marks, configs)


@dataclass(frozen=True)
class Pace:
    """A variant that makes other clips.

    Attributes:
        frames, fps: of them, by default.
        marks: as in `Refusal`.
    """

    frames: int
    fps: float
    marks: Mapping[tuple[str, str], Any]


@dataclass(frozen=True)
class Model:
    """One of a family's models, where other programs tell them apart.

    Attributes:
        name: what an adapter of it says; `formats/spec.py` has theirs.
        marks: as in `Refusal`.
    """

    name: str
    marks: Mapping[tuple[str, str], Any]


SCHNELL: Mapping[tuple[str, str], Any] = {
    ("transformer", "guidance_embeds"): False,
    ("scheduler", "use_dynamic_shifting"): False,
}
"""Flux.1 schnell; its undistilled relatives shift as dev does."""


def _marked(marks: Mapping[tuple[str, str], Any], configs: Mapping[str, Mapping[str, Any]]) -> bool:
    return all((configs.get(name, {}).get(key) or False) == value for (name, key), value in marks.items())


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        name: what it is called in `adapter.json` and on the command line.
        title: what people call it.
        where: module and class, below `adapt.backbones`.
        pipelines: diffusers' pipeline class → what is done with it (`text-to-image`, `inpainting`, `class`, `sound` …).
        state: of proof (docs/proof-states.md).
        licence: of the usual checkpoints; what the user must look up is said, nothing is decided here.
        marks: component → its class, where another family has the same pipeline. Rows with marks go first.
        patch: latents a side that the denoiser joins into one token: sides are multiples of `patch` latents.
        sample_size: latents a side of the family's own pictures, where the denoiser's configuration says none, or another.
        tokenizer: the one whose cut is felt, where there are several.
        max_tokens: text tokens that a caption is padded or cut to; None: as the tokenizer says.
        kohya: text encoders that kohya's format holds LoRA of; None: no program that reads it is written for this family.
        refused: variants that are not trained.
        models: those of other programs' names; the first that fits.
        medium: what it makes.
        frames, fps: of the clips that it makes by default.
        paces: variants that make others.
        free_guidance: what its pipelines call the scale of classifier-free guidance.
        edits_too: a plain base also edits the picture that it is given, if it is given one.
        weighs: prompts take weights, blends and any length: its `readers`.
    """

    name: str
    title: str
    where: str
    pipelines: Mapping[str, str]
    state: str = CONTRACT
    licence: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)
    patch: int = 1
    sample_size: int | None = None
    tokenizer: str = "tokenizer"
    max_tokens: int | None = None
    kohya: tuple[str, ...] | None = None
    refused: tuple[Refusal, ...] = ()
    models: tuple[Model, ...] = ()
    medium: Kind = "picture"
    frames: int = 1
    fps: float = 24.0
    paces: tuple[Pace, ...] = ()
    weighs: bool = False
    edits_too: bool = False
    free_guidance: str = "guidance_scale"

    def pace(self, configs: Mapping[str, Mapping[str, Any]]) -> tuple[int, float]:
        """Frames, and how many a second, of the clips that a base with these configurations, by component, makes by default."""
        own = next((pace for pace in self.paces if _marked(pace.marks, configs)), None)
        return (own.frames, own.fps) if own else (self.frames, self.fps)

    def load(self) -> type[Backbone]:
        """The family's class."""
        module, _, name = self.where.partition(":")
        found: type[Backbone] = getattr(importlib.import_module(f"adapt.backbones.{module}"), name)
        return found

    def fits(self, index: Mapping[str, Any]) -> bool:
        """Whether a `model_index.json` is one of this family."""
        if index.get("_class_name") not in self.pipelines:
            return False
        return all(_class_of(index, component) == name for component, name in self.marks.items())


def refusal_of(family: Family, configs: Mapping[str, Mapping[str, Any]]) -> Refusal | None:
    """Why a base with these configurations, by component, cannot be trained; None: it can."""
    return next((refusal for refusal in family.refused if refusal.fits(configs)), None)


def model_of(family: Family, configs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Which of its models a base with these configurations, by component, is; None: other programs do not ask."""
    return next((model.name for model in family.models if _marked(model.marks, configs)), None)


def _class_of(index: Mapping[str, Any], component: str) -> str | None:
    entry = index.get(component)
    return entry[1] if isinstance(entry, list | tuple) and len(entry) == 2 else None


FAMILIES: dict[str, Family] = {
    row.name: row
    for row in (
        Family(
            "icons", "icons (bundled)", "icons:Icons",
            {
                "StableDiffusionPipeline": "text-to-image", "StableDiffusionInstructPix2PixPipeline": "edit",
                "StableDiffusionInpaintPipeline": "inpainting",
            },
            PROVED, "Apache-2.0", {"text_encoder": "BertModel"}, weighs=True,
        ),
        Family(
            "stable-diffusion", "Stable Diffusion 1.x, 2.x", "stable_diffusion:StableDiffusion",
            {
                "StableDiffusionPipeline": "text-to-image", "StableDiffusionInstructPix2PixPipeline": "edit",
                "StableDiffusionInpaintPipeline": "inpainting",
            },
            licence="CreativeML OpenRAIL-M: with use restrictions",
            kohya=("text_encoder",), weighs=True,
        ),
        Family(
            "stable-diffusion-xl", "Stable Diffusion XL", "stable_diffusion_xl:StableDiffusionXL",
            {
                **{"StableDiffusionXLPipeline": "text-to-image", "StableDiffusionXLInpaintPipeline": "inpainting"},
                **{"StableDiffusionXLInstructPix2PixPipeline": "edit"},
            },
            licence="CreativeML OpenRAIL++-M: with use restrictions",
            kohya=("text_encoder", "text_encoder_2"), weighs=True,
        ),
        Family(
            "stable-diffusion-3", "Stable Diffusion 3, 3.5", "stable_diffusion_3:StableDiffusion3",
            {"StableDiffusion3Pipeline": "text-to-image"}, patch=2, tokenizer="tokenizer_3", max_tokens=256,
            licence="Stability AI Community Licence: gated, commercial use limited by revenue",
            kohya=("text_encoder", "text_encoder_2", "text_encoder_3"),
            models=(
                Model("3.5 large", {("transformer", "qk_norm"): "rms_norm", ("transformer", "dual_attention_layers"): False}),
                Model("3.5 medium", {("transformer", "qk_norm"): "rms_norm"}),
                Model("3 medium", {}),
            ),
        ),
        Family(
            "flux", "Flux.1", "flux:Flux", {
                "FluxPipeline": "text-to-image", "FluxKontextPipeline": "edit", "FluxFillPipeline": "inpainting",
            }, patch=2, sample_size=128, tokenizer="tokenizer_2", max_tokens=512, free_guidance="true_cfg_scale",
            licence="dev: FLUX.1 dev Non-Commercial Licence, gated; schnell: Apache-2.0",
            kohya=("text_encoder", "text_encoder_2"), models=(Model("schnell", SCHNELL), Model("dev", {})),
            refused=(
                Refusal(
                    "schnell",
                    "it is distilled to a few steps, which training undoes; adapters of Flux.1 dev work on it: train on dev",
                    SCHNELL,
                    assisted=True, steps=4,
                ),
            ),
        ),
        Family(
            "pixart-alpha", "PixArt-α", "pixart:PixArtAlpha", {"PixArtAlphaPipeline": "text-to-image"}, patch=2,
            max_tokens=120, licence="CreativeML OpenRAIL++-M: with use restrictions",
        ),
        Family(
            "pixart-sigma", "PixArt-Σ", "pixart:PixArtSigma", {"PixArtSigmaPipeline": "text-to-image"}, patch=2,
            max_tokens=300, licence="CreativeML OpenRAIL++-M: with use restrictions",
        ),
        Family(
            "sana", "Sana", "sana:Sana", {"SanaPipeline": "text-to-image"}, max_tokens=300,
            licence="differs by checkpoint; Gemma, its text encoder, has terms of its own",
        ),
        Family(
            "lumina2", "Lumina-Image 2.0", "lumina2:Lumina2", {"Lumina2Pipeline": "text-to-image"}, patch=2,
            max_tokens=256, licence="Apache-2.0; Gemma, its text encoder, has terms of its own",
        ),
        Family(
            "z-image", "Z-Image", "z_image:ZImage", {"ZImagePipeline": "text-to-image"}, patch=2, sample_size=128,
            max_tokens=512, licence="Apache-2.0",
        ),
        Family(
            "qwen-image", "Qwen-Image", "qwen_image:QwenImage", {
                **{"QwenImagePipeline": "text-to-image", "QwenImageEditPipeline": "edit"},
                **{"QwenImageEditPlusPipeline": "edit"},
            }, patch=2, sample_size=128, max_tokens=512, licence="Apache-2.0", free_guidance="true_cfg_scale",
        ),
        Family(
            "chroma", "Chroma", "chroma:Chroma", {"ChromaPipeline": "text-to-image"}, patch=2, sample_size=128,
            max_tokens=512, licence="Apache-2.0",
        ),
        Family(
            "aura-flow", "AuraFlow", "aura_flow:AuraFlow", {"AuraFlowPipeline": "text-to-image"}, patch=2,
            sample_size=128, max_tokens=256, licence="Apache-2.0",
        ),
        Family(
            "kolors", "Kolors", "kolors:Kolors", {"KolorsPipeline": "text-to-image"}, max_tokens=256,
            licence="Apache-2.0 for the code; the weights have terms of their own, commercial use by registration: look them up",
        ),
        Family(
            "flux2", "Flux.2 dev", "flux2:Flux2", {"Flux2Pipeline": "text-to-image"}, sample_size=64, max_tokens=512,
            edits_too=True,
            licence="FLUX.2 dev Non-Commercial Licence, gated",
        ),
        Family(
            "flux2-klein", "Flux.2 klein", "flux2:Flux2Klein", {"Flux2KleinPipeline": "text-to-image"}, sample_size=64,
            max_tokens=512, edits_too=True, licence="4B: Apache-2.0; 9B: FLUX Non-Commercial Licence, gated",
            refused=(
                Refusal(
                    "klein, distilled",
                    "it is distilled to a few steps, which training undoes; train on its undistilled sister, Flux.2 klein base",
                    {("pipeline", "is_distilled"): True},
                    assisted=True, steps=4,
                ),
            ),
        ),
        Family(
            "dit", "DiT", "dit:DiT", {"DiTPipeline": "class"}, patch=2,
            licence="CC-BY-NC 4.0: not for commercial use",
        ),
        Family(
            "ddpm", "DDPM, DDIM (pixel space)", "ddpm:DDPM", {"DDPMPipeline": "class", "DDIMPipeline": "class"},
            licence="Apache-2.0 (google/ddpm-*); others say their own",
        ),
        Family(
            "wan", "Wan 2.1, 2.2", "wan:Wan", {"WanPipeline": "video"}, patch=2, sample_size=60,
            max_tokens=512, medium="video", frames=81, fps=16.0, licence="Apache-2.0", kohya=(),
        ),
        Family(
            "ltx-video", "LTX-Video 0.9 to 0.9.1", "ltx:LTXVideo", {"LTXPipeline": "video"}, sample_size=16, max_tokens=128,
            medium="video", frames=161, fps=25.0, licence="LTX-Video Open Weights Licence: look it up",
        ),
        Family(
            "cogvideox", "CogVideoX", "cogvideox:CogVideoX", {"CogVideoXPipeline": "video"}, patch=2,
            max_tokens=226, medium="video", frames=49, fps=8.0,
            paces=(Pace(81, 16.0, {("transformer", "patch_size_t"): 2}),),
            licence="2B: Apache-2.0; 5B and 1.5: the CogVideoX Licence, look it up",
        ),
        Family(
            "hidream", "HiDream-I1", "hidream:HiDream", {"HiDreamImagePipeline": "text-to-image"}, patch=2,
            sample_size=128, tokenizer="tokenizer_3", max_tokens=128,
            licence="MIT; Llama 3.1, its fourth text encoder, has a licence of its own, gated",
            refused=(
                Refusal("Dev and Fast", "it is distilled to a few steps, which training undoes: train on Full",
                        {("scheduler", "_class_name"): "FlowMatchLCMScheduler"}, assisted=True),
            ),
        ),
        Family(
            "kandinsky5-image", "Kandinsky 5 (pictures)", "kandinsky5:Kandinsky5Image",
            {"Kandinsky5T2IPipeline": "text-to-image"}, patch=2, sample_size=128, max_tokens=512, licence="MIT",
        ),
        Family(
            "kandinsky5", "Kandinsky 5 (clips)", "kandinsky5:Kandinsky5", {"Kandinsky5T2VPipeline": "video"}, patch=2,
            sample_size=64, max_tokens=512, medium="video", frames=121, fps=24.0, licence="MIT",
            refused=(
                Refusal("of 10 s", "gradients of its sparse attention are not proved here; those of 5 s can be trained",
                        {("transformer", "attention_type"): "nabla"}),
            ),
        ),
        Family(
            "audioldm2", "AudioLDM 2", "audioldm2:AudioLDM2", {"AudioLDM2Pipeline": "sound"}, tokenizer="tokenizer_2",
            medium="sound", licence="CC-BY-NC-SA 4.0: not for commercial use",
            refused=(
                Refusal("at 48 kHz", "how its spectrograms are made is not published with it, and adapt would have to guess",
                        {("vocoder", "sampling_rate"): 48000}),
            ),
        ),
        Family(
            "kandinsky22", "Kandinsky 2.2", "kandinsky22:Kandinsky22", {"KandinskyV22CombinedPipeline": "text-to-image"},
            patch=8, tokenizer="prior_tokenizer", licence="Apache-2.0",
        ),
        Family(
            "stable-audio", "Stable Audio Open", "stable_audio:StableAudio", {"StableAudioPipeline": "sound"},
            medium="sound", licence="Stability AI Community Licence: gated, commercial use limited by revenue",
        ),
    )
}  # fmt: skip
"""By name."""


def known_pipelines() -> dict[str, str]:
    """Pipeline class → what is done with it, over all families."""
    return {name: task for family in FAMILIES.values() for name, task in sorted(family.pipelines.items())}


def free_guidance_of(pipeline: str) -> str:
    """What a pipeline class calls the scale of classifier-free guidance."""
    return next((f.free_guidance for f in FAMILIES.values() if pipeline in f.pipelines), "guidance_scale")


def family_of(index: Mapping[str, Any]) -> Family | None:
    """The family of a `model_index.json`; None for one that adapt does not know."""
    return next((family for family in FAMILIES.values() if family.fits(index)), None)
