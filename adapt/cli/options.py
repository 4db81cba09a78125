"""Options that commands which draw have in common, by subject: a signature names one a line. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

# --------------------------------------------------------------------------------------------------- what is drawn
Prompt = Annotated[list[str] | None, Option(help="What is drawn; may be given several times.")]
PromptFile = Annotated[
    Path | None,
    Option(help="One prompt a line, with --n negative --s steps --d seed --l guidance --w --h; or .jsonl."),
]
NegativePrompt = Annotated[str, Option(help="What is kept away from.")]
Wildcards = Annotated[Path | None, Option(metavar="DIR", help="Of .txt files: __animal__ is a line of animal.txt.")]
AllVariants = Annotated[
    bool, Option("--all-variants", help="Draw every variant of {a|b} and __animal__, not one a picture.")
]
PromptSyntax = Annotated[str, Option(metavar="weights|plain", help="Whether brackets in prompts mean something.")]
ClipSkip = Annotated[
    int | None, Option(help="Last layers of CLIP that are left out, as in diffusers: A1111's number less 1.")
]
Steps = Annotated[int | None, Option(help="Inference steps; default: the adapter's, else the family's.")]
Seed = Annotated[int, Option(help="Of the first picture of a prompt.")]
Count = Annotated[int, Option(help="Pictures of each prompt, with seeds seed, seed + 1 …")]
Size = Annotated[str | None, Option(metavar="N|WxH", help="In pixels; default: the backbone's.")]
Scheduler = Annotated[
    str | None, Option(help="ddim, euler_a, dpm++2m, unipc … or a diffusers class; default: the backbone's.")
]
Frames = Annotated[int | None, Option(help="Of a clip; default: the backbone's.")]
Fps = Annotated[float | None, Option(help="Frames a second of a clip; default: the backbone's.")]
Seconds = Annotated[float | None, Option(help="Of a sound; default: the backbone's.")]

# --------------------------------------------------------------------------------------------------- drawn with what
Adapters = Annotated[
    list[str] | None,
    Option(metavar="PATH[:SCALE]", help="An adapter, or user/name[@revision] on the Hub; several add up."),
]
AllowMissing = Annotated[
    list[str] | None,
    Option(metavar="LAYER", help="Draw without this layer of an adapter, which the base does not have; * fits all."),
]
Base = Annotated[str | None, Option(help="Backbone; default: the adapter's, else icons.")]
NoProof = Annotated[bool, Option("--no-proof", help="Do not load what is written into a fresh pipeline of its base.")]
Device = Annotated[str | None, Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")]
Precision = Annotated[
    str | None, Option(help="fp32, fp16, bf16: what the base is held in; default: as its weights are.")
]
BatchSize = Annotated[int, Option(help="Pictures at once; changes no picture.")]

# --------------------------------------------------------------------------------------------------- guidance
GuidanceScale = Annotated[float | None, Option(help="From 1, which is off; default: the adapter's, else the family's.")]
EmbeddedGuidance = Annotated[
    float | None, Option(help="The guidance that distilled bases take as a number (Flux: 3.5).")
]
GuidanceRescale = Annotated[float, Option(help="How far contrast is brought back to the unguided picture's, 0 to 1.")]
Guidances = Annotated[
    list[str] | None,
    Option(
        metavar="NAME[:KEY=VALUE,…]",
        help="cfg, adaptive, apg, cfg-zero; and, adding to it, domain, autoguidance, pag, slg; may be given several times.",
    ),
]
Compose = Annotated[
    list[str] | None,
    Option(metavar="PROMPT[:WEIGHT]", help="A further prompt that pulls on its own; below 0 keeps it away."),
]
ClassScale = Annotated[
    float | None, Option(help="How strongly the class guides by itself, from 1; default: as the prompt does.")
]
ImagePromptScale = Annotated[
    float | None, Option(help="How strongly --image-prompt guides by itself; default: as the prompt does.")
]
ImageGuidanceScale = Annotated[
    float | None, Option(help="How closely InstructPix2Pix keeps to --image, from 1, which is off; default: 1.5.")
]
ControlScale = Annotated[float, Option(help="How closely --control is followed; 1 as trained.")]

# --------------------------------------------------------------------------------------------------- conditions
ClassNames = Annotated[
    list[str] | None,
    Option(
        "--class", metavar="NAME", help="Of an adapter with classes; mixed: finch:0.7,canary:0.3; '' none; '*' each."
    ),
]
ImagePrompt = Annotated[Path | None, Option(help="A reference picture, for adapters taught with image_prompts=true.")]
Control = Annotated[
    Path | None, Option(help="A picture whose edges or colours are followed, for adapters taught with control=…")
]
ControlNet = Annotated[
    str | None,
    Option("--controlnet", metavar="FOLDER|HUB_ID", help="A published ControlNet, which follows --control as it is."),
]
IPAdapter = Annotated[
    str | None,
    Option(
        "--ip-adapter",
        metavar="FILE[:SCALE]",
        help="A published IP-Adapter, which looks at --image-prompt; or on the Hub.",
    ),
]
Picture = Annotated[
    Path | None, Option(help="Picture to draw over; with a base that edits, the picture that is edited.")
]
Strength = Annotated[
    float | None, Option(help="How far from --image, up to 1; default: 0.75, with inpainting bases 1.")
]
Mask = Annotated[Path | None, Option(help="Where --image is repainted: white.")]

# --------------------------------------------------------------------------------------------------- output
Ending = Annotated[
    str | None,
    Option(metavar="png|jpg|webp|mp4|gif|wav|flac", help="Default: png; of clips mp4, of sounds wav."),
]
Pictures = Annotated[Path, Option(help="A folder, or a file for a single picture: .png, .jpg, .mp4 …")]
Metadata = Annotated[str, Option(metavar="a1111|none", help="Whether files say how they were drawn.")]
JsonForPaths = Annotated[bool, Option("--json", help="One JSON object on stdout instead of paths.")]
JsonFigures = Annotated[bool, Option("--json", help="One JSON object on stdout: every figure.")]
Json = Annotated[bool, Option("--json", help="One JSON object on stdout.")]
