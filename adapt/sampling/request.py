"""What is asked for, and what it comes to on a given backbone. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import sqrt
from typing import TYPE_CHECKING, Any

from adapt.errors import SettingsError, did_you_mean
from adapt.prompts import SYNTAXES, WEIGHTS, Reading
from adapt.sampling import classes, guidances, schedulers, sources, takes_guidance
from adapt.sampling.classes import Mixture
from adapt.sampling.guidances import Named
from adapt.sampling.known import Known
from adapt.sampling.values import require_number, require_text, require_whole

if TYPE_CHECKING:
    from PIL.Image import Image

    from adapt.backbones import Backbone
    from conditioning import Guidance

LARGEST_SEED = 2**63 - 1
LARGEST_WEIGHT = 1000.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One picture, as the user asks for it. None means: as the adapter recommends, else the family's default.

    Attributes:
        prompt: what is drawn.
        negative_prompt: what is kept away from; "" is the family's null condition.
        prompt_syntax, clip_skip: how prompts are read (`adapt.prompts.Reading`).
        guidance_scale: ≥ 1; 1 turns guidance off and halves the work.
        guidance_rescale: 0 … 1 (see `ClassifierFreeGuidance`).
        embedded_guidance: what distilled families (Flux) are told as a number, not by a second prediction; ≥ 0.
        guidance: `NAME[:key=value,…]` of `guidances.KINDS`, one or several; or a `Guidance` of one's own, which then does
            everything (`guidance_scale` and `guidance_rescale` are its business).
        compose: further prompts with weights, each pulling on its own; weights below 0 keep something away.
        class_name: of an adapter that knows classes: one, several with shares (`finch:0.7,canary:0.3`), or "" for none.
        class_scale: ≥ 0, how strongly the class guides, by itself: `guidance_scale` is then the prompt's alone. 1 turns it off.
            None: `guidance_scale` guides by prompt and class together.
        image_prompt: a reference picture, for adapters that were taught with `image_prompts=true`: what it shows is drawn anew.
        image_prompt_scale: ≥ 0, how strongly it guides by itself; as `class_scale`.
        control: what is drawn along, for adapters that were taught with `control=edges` or `colours`, which are taken from this
            picture of the drawing's own size.
        control_scale: ≥ 0, how strongly: 1 as trained, 0 not at all.
        steps: inference steps, ≥ 1.
        seed: 0 … 2**63 - 1.
        height, width: in pixels; multiples of the backbone's `multiple`. With `image` and neither given: the
            image's shape at the backbone's own number of pixels.
        scheduler: a name of `schedulers`.
        image: what is drawn over (image to image); with `mask`, only where the mask is white (inpainting). For bases that edit
            it is what is edited: told as a whole, and the drawing begins with noise.
        strength: share of the way that `image` is noised, 0 < strength ≤ 1; None: 0.75, with inpainting bases 1. Not of
            bases that edit.
        image_guidance_scale: ≥ 1, how closely `image` is kept to by bases that have such a guidance (InstructPix2Pix); 1 is off.
            None: the family's where `guidance_scale` is above 1, else off.
        frames, fps: of a clip, how many and how many a second.
        seconds: of a sound, above 0.

    Raises:
        SettingsError: a value is out of range or contradicts another.
    """

    prompt: str
    negative_prompt: str = ""
    prompt_syntax: str = WEIGHTS
    clip_skip: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    embedded_guidance: float | None = None
    guidance: str | Sequence[str] | Guidance = ()
    compose: Sequence[tuple[str, float]] = ()
    class_name: str | Mapping[str, float] | None = None
    class_scale: float | None = None
    image_prompt: Image | None = None
    image_prompt_scale: float | None = None
    control: Image | None = None
    control_scale: float = 1.0
    steps: int | None = None
    seed: int = 0
    height: int | None = None
    width: int | None = None
    scheduler: str | None = None
    image: Image | None = None
    strength: float | None = None
    image_guidance_scale: float | None = None
    mask: Image | None = None
    frames: int | None = None
    fps: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            require_text(name, getattr(self, name))
        if self.prompt_syntax not in SYNTAXES:
            raise SettingsError("unknown prompt_syntax", given=self.prompt_syntax, allowed=", ".join(SYNTAXES))
        require_whole("clip_skip", self.clip_skip, 0)
        require_number("guidance_scale", self.guidance_scale, 1, None, next="1 turns guidance off")
        require_number("guidance_rescale", self.guidance_rescale, 0, 1)
        require_number("class_scale", self.class_scale, 0, LARGEST_WEIGHT)
        require_number("image_prompt_scale", self.image_prompt_scale, 0, LARGEST_WEIGHT)
        require_number("control_scale", self.control_scale, 0, LARGEST_WEIGHT)
        if self.image_prompt_scale is not None and self.image_prompt is None:
            raise SettingsError("image_prompt_scale needs a reference picture", next="give image_prompt too")
        require_number("image_guidance_scale", self.image_guidance_scale, 1, LARGEST_WEIGHT, next="1 turns it off")
        require_number("embedded_guidance", self.embedded_guidance, 0, None)
        guidance_named(self.guidance)
        for text, weight in further(self.compose):
            require_text("compose", text)
            require_number("the weight of compose", weight, -LARGEST_WEIGHT, LARGEST_WEIGHT)
        require_whole("steps", self.steps, 1)
        require_whole("seed", self.seed, 0, LARGEST_SEED)
        require_whole("height", self.height, 1)
        require_whole("width", self.width, 1)
        require_whole("frames", self.frames, 1)
        require_number("fps", self.fps, 1, 240)
        require_number("seconds", self.seconds, 0.01, 600)
        require_number("strength", self.strength, 0, 1)
        if self.strength == 0:
            raise SettingsError("strength 0 gives the image back", given=0, allowed="0 < strength ≤ 1")
        if self.scheduler is not None:
            require_text("scheduler", self.scheduler)
            schedulers.find(self.scheduler)
        if self.mask is not None and self.image is None:
            raise SettingsError("a mask needs the image that it lies on", next="give the image too")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that is encoded: prompt, negative prompt, and those of `compose`."""
        return self.prompt, self.negative_prompt, *(text for text, _ in further(self.compose))

    @property
    def reading(self) -> Reading:
        """How they are read."""
        return Reading(self.prompt_syntax, self.clip_skip)

    @staticmethod
    def names() -> list[str]:
        """Every setting of a request."""
        return [one.name for one in fields(Request)]


def guidance_named(guidance: str | Sequence[str] | Guidance) -> tuple[Named, ...] | Guidance:
    """The guidances read and judged; one of the user's own as it is.

    Raises:
        SettingsError: see `guidances.read_all`.
    """
    return guidance if callable(guidance) else guidances.read_all(guidance)


def named_in(guidance: tuple[Named, ...] | Guidance) -> tuple[Named, ...]:
    """The guidances that go by a name: none in one of the user's own."""
    return guidance if isinstance(guidance, tuple) else ()


def further(compose: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Prompts and weights as a tuple of pairs.

    Raises:
        SettingsError: something else.
    """
    try:
        return tuple((text, weight) for text, weight in compose)
    except (TypeError, ValueError) as error:
        allowed = "pairs of a prompt and a weight"
        raise SettingsError("compose cannot be read", given=repr(compose), allowed=allowed) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """One picture with every setting decided; the same names, units and ranges as in `Request`.

    Attributes:
        scheduler: None is the backbone's own.
        source: what is edited; `image` is then None. Of inpainting bases, what has the hole.
        hole: where `source` is filled; None: without a source, everywhere.
        image_guidance_scale: 1 in families that have no such guidance.
        frames, fps: None in families that make no clips.
        seconds: None in families that make no sounds.
        embedded_guidance: None in families that have none.
        zero_terminal_snr: the noise schedule ends in pure noise, as in the training of the adapter.
        reading: how the prompts are read.
    """

    prompt: str
    negative_prompt: str
    guidance_scale: float
    guidance_rescale: float
    guidance: tuple[Named, ...] | Guidance
    compose: tuple[tuple[str, float], ...]
    classes: Mixture
    class_scale: float | None
    image_prompt: Image | None
    image_prompt_scale: float | None
    control: Image | None
    control_scale: float
    steps: int
    seed: int
    height: int
    width: int
    scheduler: str | None
    image: Image | None
    strength: float
    mask: Image | None
    source: Image | None = None
    hole: Image | None = None
    image_guidance_scale: float = 1.0
    zero_terminal_snr: bool = False
    embedded_guidance: float | None = None
    frames: int | None = None
    fps: float | None = None
    seconds: float | None = None
    reading: Reading = field(default_factory=Reading)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that is encoded."""
        return self.prompt, self.negative_prompt, *(text for text, _ in self.compose)

    @property
    def dims(self) -> tuple[int, ...]:
        """Of what is drawn: height and width; of a clip, the frames before them."""
        return (self.height, self.width) if self.frames is None else (self.frames, self.height, self.width)

    @property
    def wordless(self) -> bool:
        """Whether no words are told and none kept away from."""
        return not self.prompt and not self.negative_prompt

    @property
    def part_scales(self) -> dict[str, float | None]:
        """Part of the condition → how strongly it guides by itself; None: with the words."""
        return {"class": self.class_scale, "image": self.image_prompt_scale}

    @property
    def kind(self) -> tuple[object, ...]:
        """Pictures of one kind can be drawn in one batch."""
        start = () if self.image is None else (self.strength, id(self.image), id(self.mask))
        guidance = self.guidance if isinstance(self.guidance, tuple) else id(self.guidance)
        weights = tuple(weight for _, weight in self.compose)
        return (
            self.reading,
            self.guidance_scale,
            self.guidance_rescale,
            self.embedded_guidance,
            guidance,
            weights,
            *self.part_scales.values(),
            self.control_scale,
            None if self.source is None else self.source.size,
            self.image_guidance_scale,
            any(scale is not None for scale in self.part_scales.values()) and self.wordless,
            self.frames,
            self.fps,
            self.seconds,
            self.steps,
            self.height,
            self.width,
            self.scheduler,
            self.zero_terminal_snr,
            *start,
        )


def settle(
    request: Request,
    backbone: Backbone,
    recommended: Mapping[str, float] | None = None,
    known: Known | None = None,
) -> Drawing:
    """Fills what was left open, and judges the request against the backbone.

    Args:
        recommended: an adapter's `guidance_scale`, `steps` and `zero_terminal_snr`; the family's stand in.
        known: what adapters know that are not on the backbone yet.

    Raises:
        SettingsError: a size, step count or scheduler that this backbone cannot draw with.
    """
    advice = {"guidance_scale": backbone.guidance_scale, "steps": backbone.sampling_steps, **(recommended or {})}
    scale, steps = request.guidance_scale, request.steps
    height, width = size_of(request, backbone)
    known = Known.of(backbone.conditioners) | (known or Known())
    guidance_scale = float(advice["guidance_scale"] if scale is None else scale)
    drawing = Drawing(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        guidance_scale=guidance_scale,
        guidance_rescale=float(request.guidance_rescale),
        guidance=guidance_named(request.guidance),
        compose=further(request.compose),
        classes=classes.judged(request.class_name, request.class_scale, known.labels),
        class_scale=request.class_scale,
        image_prompt=known.judged(request.image_prompt),
        image_prompt_scale=request.image_prompt_scale,
        control=known.followed(request.control, width, height),
        control_scale=float(request.control_scale),
        steps=int(advice["steps"] if steps is None else steps),
        seed=int(request.seed),
        width=width,
        scheduler=request.scheduler,
        strength=0.75 if request.strength is None else float(request.strength),
        **sources.given(request, backbone),
        image_guidance_scale=sources.scale_of(request.image_guidance_scale, guidance_scale, backbone),
        embedded_guidance=_embedded(request, backbone),
        reading=request.reading,
        **{"height": height, **_time(request, backbone)},
        zero_terminal_snr=bool(advice.get("zero_terminal_snr", False)),
    )
    _judge(drawing, backbone)
    takes_guidance.judge(request, drawing, backbone, known)
    return drawing


def _time(request: Request, backbone: Backbone) -> dict[str, Any]:
    """Frames of a clip and how many there are a second, seconds of a sound; nothing for pictures."""
    own, takes = backbone.medium, {"picture": (), "video": ("frames", "fps"), "sound": ("seconds",)}
    asked = {name: value for name in ("frames", "fps", "seconds") if (value := getattr(request, name)) is not None}
    if strange := {name: value for name, value in asked.items() if name not in takes[own.kind]}:
        what = {"frames": "clips", "fps": "clips", "seconds": "sounds"}[next(iter(strange))]
        raise SettingsError(f"the base makes {own.noun}, not {what}", given=strange, next="leave them out")
    if own.kind == "picture":
        return {}
    if request.image is not None:
        raise SettingsError(f"{own.noun} are not drawn over pictures yet", given="image", next="leave it out")
    if own.kind == "video":
        clip = own.at(request.frames, request.fps)
        return {"frames": clip.frames, "fps": clip.fps}
    if asked.get("seconds", 0) > own.seconds:
        raise SettingsError("the base cannot make so long a sound", given=asked["seconds"], allowed=f"{own.seconds:g}")
    return {"seconds": request.seconds or own.seconds, "height": 1}


def _embedded(request: Request, backbone: Backbone) -> float | None:
    own, given = backbone.embedded_guidance, request.embedded_guidance
    if own is None and given is not None:
        raise SettingsError(
            "the base has no embedded guidance", given=given, next="guidance_scale is for every base; leave this out"
        )
    return own if given is None else float(given)


def _judge(drawing: Drawing, backbone: Backbone) -> None:
    from adapt.backbones.told import require_readable

    config = backbone.scheduler_config
    if drawing.seconds is None:
        check_size(drawing.width, drawing.height, backbone.multiple)
    backbone.require_size(drawing.height, drawing.width)
    for text in drawing.texts:
        require_readable(backbone, text, drawing.reading)
    require_whole("steps", drawing.steps, 1, int(config.get("num_train_timesteps", 1000)))
    if drawing.scheduler is not None:
        schedulers.check(schedulers.find(drawing.scheduler), config, drawing.zero_terminal_snr)


def check_size(width: int, height: int, factor: int) -> None:
    """Raises `SettingsError` unless both sides are multiples of `factor` pixels."""
    if width % factor or height % factor:
        raise SettingsError(
            "width and height must be multiples of the backbone's latent size",
            given=f"{width}x{height}",
            allowed=f"multiples of {factor}",
            next=f"--size {_multiple(width, factor)}x{_multiple(height, factor)}",
        )


def _multiple(side: float, factor: int) -> int:
    return max(1, round(side / factor)) * factor


def size_of(request: Request, backbone: Backbone) -> tuple[int, int]:
    """(height, width): what was given, else the backbone's own, in the image's shape where there is one."""
    resolution, factor = backbone.resolution, backbone.multiple
    if request.height is not None or request.width is not None or request.image is None:
        return request.height or resolution, request.width or resolution
    aspect = sqrt(request.image.width / request.image.height)
    return _multiple(resolution / aspect, factor), _multiple(resolution * aspect, factor)


def unknown_setting(name: str, where: str, known: list[str]) -> SettingsError:
    """The error for a setting that is none of `known`."""
    near = did_you_mean(name, known)
    hint = f"did you mean {near}?" if near else None
    return SettingsError(f"unknown setting in {where}", given=name, allowed=", ".join(known), next=hint)
