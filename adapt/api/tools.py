"""What can be done with finished adapters: merge, extract, resize, compare, verify. The commands are thin around these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import files
from adapt.adapter import Adapter, Facts
from adapt.api.advice import distilled_in
from adapt.backbones import Backbone
from adapt.errors import AdapterError, AdaptError, RunError, SettingsError
from adapt.evaluation.proof import Proof, predictions, prove, prove_file, prove_merged, prove_word, reads
from adapt.formats.agree import differences
from adapt.formats.factorise import Keep
from adapt.formats.readers import LOADER
from adapt.lora.combine import combined
from adapt.lora.decompose import DECOMPOSITIONS, NO_FORM
from adapt.lora.extract import Extracted, extracted
from adapt.lora.resize import resized
from adapt.source import identity

if TYPE_CHECKING:
    from torch import Tensor

UNRANKED = 16
"""Rank of what is made of adapters that have none: OFT, LoKr with whole factors."""


@dataclass(frozen=True)
class Made:
    """Attributes:
    adapter: what was made; not saved yet.
    left_out: ‖what its rank leaves out‖ / ‖ΔW‖.
    elsewhere: of an extraction, parameters that the fine-tune changed and no LoRA can.
    """

    adapter: Adapter
    left_out: float
    elsewhere: tuple[str, ...] = ()


def merge(
    adapters: Sequence[tuple[Adapter, float]],
    method: str = "linear",
    keep: Keep | None = None,
    *,
    density: float = 0.5,
    seed: int = 0,
    name: str = "merged",
    base: Backbone | None = None,
) -> Made:
    """Several adapters for one base as one; see `adapt.lora.combine`. Loaded at scale 1 it does what they do at their weights.

    Args:
        keep: default: the largest rank among them; 16 where none has a rank.
        base: needed where one of them is not LoRA.

    Raises:
        AdapterError: made for different bases, with new words of one name, or of a kind that the method cannot merge.
    """
    for adapter, _ in adapters:
        if base is not None:
            adapter.check(base)
        if adapter.conditioners:
            raise AdapterError(
                "what an adapter learned beside network and words cannot be merged yet",
                given=f"{', '.join(sorted(adapter.conditioners))} of {adapter.name}",
                next="draw with both, if their parts differ: adapt generate --adapter A --adapter B",
            )
    keep = keep or Keep(rank=max(_ranks([adapter for adapter, _ in adapters]), default=0) or UNRANKED)
    modules = base.modules if base is not None else None
    given = [(a.weights, s) for a, s in adapters]
    weights, left_out = combined(given, method, keep, density=density, seed=seed, modules=modules)
    return Made(Adapter(weights, _common([a for a, _ in adapters], base), name, words=_words(adapters)), left_out)


def _ranks(adapters: Sequence[Adapter]) -> list[int]:
    return [layer.rank for adapter in adapters for layer in adapter.layers().values()]


def _common(adapters: Sequence[Adapter], base: Backbone | None) -> Facts:
    """Facts that are true of all together."""
    prints = {a.facts.base["fingerprint"] for a in adapters if a.facts.base.get("fingerprint")}
    if len(prints) > 1:
        raise AdapterError("the adapters were made for different bases", given=", ".join(sorted(map(str, prints))))
    first = next((a.facts for a in adapters if a.facts.base), adapters[0].facts)
    triggers = tuple(dict.fromkeys(word for a in adapters for word in a.triggers))
    by_pipeline = base.loader == "diffusers" if base else all("diffusers" in a.facts.loads_in for a in adapters)
    inside = distilled_in(adapters)
    unguided = {"guidance_scale": 1.0} if inside else {}
    recommended = {**first.recommended, "scale": 1.0, **unguided} if first.recommended else unguided
    return Facts(
        base=first.base,
        objective=first.objective,
        null=first.null,
        trigger=triggers[0] if triggers else None,
        triggers=triggers if len(triggers) > 1 else (),
        recommended=recommended,
        distilled=inside,
        loads_in=("adapt", "diffusers" if by_pipeline else "peft"),
    )


def _words(adapters: Sequence[tuple[Adapter, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for adapter, _ in adapters:
        if twice := found.keys() & adapter.words.keys():
            raise AdapterError("two adapters have a new word of the same name", given=", ".join(sorted(twice)))
        found |= adapter.words
    return found


def merge_into_base(
    adapters: Sequence[tuple[Adapter, float]], backbone: Backbone, folder: Path, *, proof: bool = True
) -> Proof | None:
    """Writes the base with adapters of any kind in its weights as a diffusers pipeline folder; it appears whole or not at all.

    Args:
        proof: whether the folder is loaded again as a fresh pipeline, which must predict what the base here does now.

    Raises:
        RunError: the folder is there already.
        AdapterError: made for another base, or with what a merged base would not know: new words, classes; a T-LoRA. A folder
            that fails its proof is set aside as `<name>.refused`.
        BackboneError: the base's weights are in few bits.
    """
    backbone.require_whole_weights("nothing can be merged into it")
    if folder.exists():
        raise RunError("the folder is there already", given=folder, next="give another --output")
    for adapter, _ in adapters:
        adapter.check(backbone)
        adapter.require_mergeable()
    prompt = " ".join(word for adapter, _ in adapters for word in adapter.triggers)
    before = predictions(backbone, prompt) if proof else []
    for on in [adapter.apply(backbone, scale) for adapter, scale in adapters]:  # each by what it does to the base
        on.keep()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_folder(folder) as temporary:
        backbone.pipeline.save_pretrained(temporary, safe_serialization=True)
    if not proof:
        return None
    layers = len({name for adapter, _ in adapters for name in adapter.layers()})
    try:
        return prove_merged(folder, backbone, before, layers, prompt)
    except AdaptError as error:
        raise _refused(folder, error, (), "the merged base") from error


def require_extractable(kind: str) -> None:
    """Raises `SettingsError` for a kind that no difference of weights can be made into."""
    if kind not in DECOMPOSITIONS:
        raise SettingsError(
            f"nothing can be extracted as {kind}" + (f": {NO_FORM[kind]}" if kind in NO_FORM else ""),
            allowed=", ".join(DECOMPOSITIONS),
        )


def extract(
    tuned: Backbone,
    base: Backbone,
    keep: Keep,
    *,
    text_encoders: bool = False,
    name: str = "extracted",
    progress: Callable[[str], None] = lambda name: None,
    kind: str = "lora",
) -> Made:
    """A full fine-tune minus its base, as an adapter.

    Args:
        text_encoders: compare them too, not the denoiser alone.
        kind: lora, dora or lokr.

    Raises:
        SettingsError: a kind that nothing can be extracted as.
        AdapterError: not of this base, or not different from it.
    """
    require_extractable(kind)
    if type(tuned) is not type(base):
        raise AdapterError("the fine-tune is of another family", given=tuned.family, allowed=base.family)
    names = [n for n in base.modules if n in base.denoisers or (text_encoders and n.startswith("text_encoder"))]
    found: Extracted = extracted({n: tuned.modules[n] for n in names}, base.modules, keep, progress, kind)
    facts = Facts(
        base={**identity(base.reference), "family": base.family, "fingerprint": base.fingerprint()},
        null=base.null_kind,
        loads_in=("adapt", LOADER[kind] if base.loader == "diffusers" else "peft"),
    )
    return Made(Adapter(found.weights, facts, name), found.left_out, found.elsewhere)


def resize(adapter: Adapter, keep: Keep, base: Backbone | None = None) -> Made:
    """An adapter of lower rank: the nearest one. DoRA stays DoRA; other kinds become LoRA.

    Args:
        base: needed where it is neither LoRA nor DoRA.

    Raises:
        AdapterError: of another kind, and no base; made for another base.
    """
    if base is not None:
        adapter.check(base)
    weights, left_out = resized(adapter.weights, keep, base.modules if base is not None else None)
    facts = replace(adapter.facts, lora={})
    if base is not None and weights.kinds != adapter.weights.kinds:
        facts = replace(facts, loads_in=("adapt", base.loader))
    return Made(replace(adapter, weights=weights, facts=facts, digest=""), left_out)


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    checks: what was looked at → what was found; None is fine.
    proof: where a base was given.
    as_is: whether the library was given the file itself, not what adapt read from it.
    """

    checks: dict[str, str | None]
    proof: Proof | None = None
    as_is: bool = False

    @property
    def fine(self) -> bool:
        return not any(self.checks.values())

    def as_dict(self) -> dict[str, Any]:
        return {"fine": self.fine, "checks": self.checks, "proof": asdict(self.proof) if self.proof else None}


def verify(path: Path, base: Backbone | None = None, prompt: str = "") -> Verdict:
    """Reads an adapter strictly; with a base it is also laid onto it, taken by a fresh pipeline of the library that loads it, and
    both must predict the same. A bare file is given to that library as it is, where it knows the dialect.

    Args:
        prompt: what both are asked for; "" is the empty caption.
    """
    checks: dict[str, str | None] = {}
    try:
        adapter = Adapter.load(path)
    except AdaptError as error:
        return Verdict({"read": str(error)})
    checks["read"] = None
    proof, as_is = None, False
    if base is not None:
        try:
            adapter.check(base)
            checks["base"] = None
            as_is = not path.is_file() or reads(path, adapter)
            proof = prove_file(path, adapter, base, prompt) if path.is_file() else prove(adapter, base, prompt)
            checks["library"] = None
        except AdaptError as error:
            checks["library" if "base" in checks else "base"] = str(error)
    return Verdict(checks, proof, as_is)


def read_back(path: Path, made: Adapter) -> None:
    """Reads a folder that was written just now.

    Raises:
        AdapterError: it holds something else than what it was made from; it is set aside as `<name>.refused`.
    """
    try:
        again = Adapter.load(path)
        if found := [] if again.weights.equals(made.weights) else differences(made.weights, again.weights):
            raise AdapterError(f"it reads differently in {len(found)} layers", given=found[0].line)
        if _words_of(again) != _words_of(made):
            raise AdapterError("its new words read differently", given=", ".join(again.words))
        if files.dump_json(again.facts.as_dict()) != files.dump_json(made.facts.as_dict()):
            raise AdapterError("its adapter.json reads differently")
    except AdapterError as error:
        raise _refused(path, error, (), "the adapter") from error


def _words_of(adapter: Adapter) -> dict[tuple[str, str], list[Any]]:
    return {(word, c): tensor.tolist() for word, found in adapter.words.items() for c, tensor in found.items()}


def prove_export(path: Path, adapter: Adapter, base: Backbone, beside: Sequence[Path] = ()) -> Verdict:
    """The same for a file or a folder that was written just now, which must be fine; if it is not, it is set aside as
    `<name>.refused`.

    Args:
        adapter: what it was made from.
        beside: files that belong to it.

    Raises:
        AdapterError: the library does not take it, not all of it, or draws something else with it.
    """
    verdict = verify(path, base, adapter.trigger or "")
    if faults := [fault for fault in verdict.checks.values() if fault]:
        raise _refused(path, AdapterError(faults[0]), beside, "the exported file" if path.is_file() else "the adapter")
    return verdict


def prove_embedding(path: Path, word: str, found: Mapping[str, Tensor], base: Backbone) -> Proof:
    """Gives the file of a new word to diffusers' `load_textual_inversion` in a fresh pipeline.

    Raises:
        AdapterError: it does not take it, or draws something else; the file is set aside as `<name>.refused`.
    """
    try:
        return prove_word(path, word, found, base)
    except AdapterError as error:
        raise _refused(path, error, (), "the embedding") from error


def _refused(path: Path, error: AdaptError, beside: Sequence[Path], what: str) -> AdapterError:
    """Sets aside what failed, with what belongs to it."""
    kept, *_ = [files.set_aside(each) for each in (path, *beside) if each.exists()]
    other = (
        "another --format, or --no-proof if only other programs will read it" if kept.is_file() else "please report it"
    )
    return AdapterError(
        f"{what} is set aside: what reads it does not agree with it: {error}",
        given=path,
        next=f"look at {kept}; {other}",
    )
