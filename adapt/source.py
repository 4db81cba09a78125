"""Where a base is: the bundled one, a local diffusers folder, the Hub at a revision and in a variant, a checkpoint in one file.
Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.checkpoints import Contents, contents_of
from adapt.checkpoints.contents import DENOISERS
from adapt.errors import BackboneError, HubError, SettingsError
from adapt.fetch import Reference, explained
from adapt.fetch.reference import PART

BUNDLED = Path(__file__).parent / "bundled"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
ON_HUB = re.compile(rf"(?P<repository>{PART}/{PART})(?:@(?P<revision>[\w./-]+))?(?::(?P<variant>\w+))?")
"""`owner/name`, `owner/name@revision`, `owner/name:variant`, `owner/name@revision:variant`."""
IN_FILE = re.compile(r"(?P<file>.+\.(?:safetensors|gguf|ckpt|pt|pth|bin|pkl))(?::(?P<config>.+))?")
"""A checkpoint in one file, and behind a colon a diffusers folder of the same architecture, which has what the file lacks."""
IN_VARIANT = re.compile(r"(?P<folder>.+):(?P<variant>\w+)")


@dataclass(frozen=True)
class Source:
    """Attributes:
    folder: a diffusers folder: configurations, tokenizers and weights.
    variant: of the weights files (`fp16` is `….fp16.safetensors`); None: the plain ones. Components that do not have
        it are read from their plain files, as diffusers does.
    repository: on the Hub, where it is from there.
    revision: a branch, a tag or a commit that was asked for.
    checkpoint: the one file that weights are in, as the model was published or in diffusers' names; what it lacks is read from
        `folder`. None: all is in `folder`.
    """

    folder: Path
    variant: str | None = None
    repository: str | None = None
    revision: str | None = None
    checkpoint: Path | None = None

    @property
    def commit(self) -> str | None:
        """The Hub's commit that `folder` is a snapshot of."""
        return self.folder.name if self.repository and self.folder.parent.name == "snapshots" else None

    @property
    def contents(self) -> Contents | None:
        """What the one file holds."""
        return contents_of(self.checkpoint) if self.checkpoint else None

    def weights(self, component: str, kind: str | None = None) -> list[Path]:
        """The safetensors files that a component of this class is read from: of the variant, else plain ones; none where it is
        in the checkpoint."""
        if self.contents and self.contents.has(component, kind):
            return []
        return weights_in(self.folder / component, self.variant)


def bundled() -> dict[str, Path]:
    """Name → folder of the backbones that come with adapt; these names go before folders of the same name."""
    return {p.name: p for p in sorted(BUNDLED.iterdir()) if (p / "model_index.json").is_file()}


def find(reference: str) -> Path:
    """The local folder of a backbone, as `source` finds it."""
    return source(reference).folder


def source(reference: str) -> Source:
    """Where a base is; one on the Hub is downloaded into the Hub's cache first.

    Args:
        reference: `icons`, a folder, or what `ON_HUB` says; a variant may stand behind a folder too.

    Raises:
        HubError: a login is missing, or terms are not accepted.
        BackboneError: nothing usable is there.
    """
    path = bundled().get(reference, Path(reference))
    if not path.is_dir() and (file := IN_FILE.fullmatch(reference)):
        return _checkpoint(Path(file["file"]), file["config"])
    if (path / "model_index.json").is_file():
        return Source(path)
    if path.exists():
        raise BackboneError(
            "no diffusers folder: model_index.json is missing",
            given=reference,
            next="give the folder that a diffusers pipeline's save_pretrained wrote",
        )
    if local := _in_variant(reference):
        return local
    if not (named := ON_HUB.fullmatch(reference)):
        raise BackboneError(
            "no such base",
            given=reference,
            allowed=f"{', '.join(bundled())}, a local diffusers folder, or a Hub id such as owner/name, "
            "owner/name@revision, owner/name:fp16",
        )
    what = Reference(named["repository"], named["revision"])
    return Source(_download(what, named["variant"]), named["variant"], what.repository, what.revision)


def kept(reference: str) -> Source:
    """Where a base is without fetching anything.

    Raises:
        OSError: on the Hub, and not in its cache.
        BackboneError: nothing usable is there.
    """
    named = None if is_here(reference) else ON_HUB.fullmatch(reference)
    if named is None:
        return source(reference)
    from huggingface_hub import snapshot_download

    repository, revision, variant = named.groups()
    return Source(Path(snapshot_download(repository, revision=revision, local_files_only=True)), variant, repository)


def _checkpoint(file: Path, config: str | None) -> Source:
    """A checkpoint in one file, with the folder that says its configuration: the one that is named, else one beside it."""
    if file.suffix in PICKLES:
        raise BackboneError(
            f"{file.suffix} files can run code when opened and are never read",
            given=file,
            allowed="a diffusers folder with safetensors weights, or a checkpoint in one .safetensors file",
            next="convert it with diffusers once",
        )
    if not file.is_file():
        raise BackboneError("no such checkpoint", given=file)
    contents = contents_of(file)
    if config is None:
        beside = (file.with_suffix(""), file.parent)
        folder = next((place for place in beside if (place / "model_index.json").is_file()), None)
        return Source(folder or _unsaid(contents), checkpoint=file)
    return Source(_configured(contents, config), checkpoint=file)


def _configured(contents: Contents, config: str) -> Path:
    """The folder with the configuration of a checkpoint; one on the Hub is fetched for a denoiser alone, without its own
    denoiser's weights."""
    named = None if is_here(config) else ON_HUB.fullmatch(config)
    if named and contents.alone:
        return _download(Reference(named["repository"], named["revision"]), named["variant"], without=DENOISERS)
    try:
        return kept(config).folder
    except OSError as error:
        raise BackboneError(
            "the checkpoint's configuration would have to be downloaded", given=config, next=f"hf download {config}"
        ) from error


def _unsaid(contents: Contents) -> Path:
    kind = f", which is {contents.mark.title}'s" if contents.mark else ""
    rest = (
        "which has the other networks' weights too"
        if contents.alone
        else "or a Hub id that is in the cache; configurations and tokenizers are enough"
    )
    raise BackboneError(
        f"a checkpoint in one file{kind} does not say its configuration"
        + ("" if contents.alone else ", and nothing is downloaded for it"),
        given=contents.file,
        next=f"--base {contents.file.name}:FOLDER, with a diffusers folder of the same architecture"
        + (f" or a Hub id, {rest}" if contents.alone else f", {rest}"),
    )


def is_here(reference: str) -> bool:
    """Whether it names something on this machine: bundled, a path, a checkpoint with its folder."""
    file = IN_FILE.fullmatch(reference)
    return reference in bundled() or Path(reference).exists() or bool(file and Path(file["file"]).exists())


def _in_variant(reference: str) -> Source | None:
    """A local folder with the variant named behind it."""
    named = IN_VARIANT.fullmatch(reference)
    if named is None or not (folder := Path(named["folder"])).joinpath("model_index.json").is_file():
        return None
    _require_variant(folder, named["variant"], reference)
    return Source(folder, named["variant"])


def composed(reference: str, revision: str | None = None, variant: str | None = None) -> str:
    """One word for a base, as `--base` takes it.

    Raises:
        SettingsError: said twice, or a revision of what is not on the Hub.
    """
    if revision is None and variant is None:
        return reference
    named = None if is_here(reference) else ON_HUB.fullmatch(reference)
    if revision is not None and named is None:
        raise SettingsError("a revision is of a base on the Hub", given=f"{reference}, {revision}")
    own, *said = named.groups() if named else (reference, None, None)
    if any(before and now for before, now in zip(said, (revision, variant), strict=True)):
        raise SettingsError("its revision or variant is said twice", given=f"{reference}, {revision or variant}")
    marks = (("@", revision or said[0]), (":", variant or said[1]))
    return own + "".join(f"{mark}{value}" for mark, value in marks if value)


def identity(reference: str) -> dict[str, str | None]:
    """What others can be told of a base: `reference` (bundled, or a Hub id; None where it is a path of this machine), and of
    one on the Hub the `revision` and `variant` that were asked for and the `commit` that they are."""
    if reference in bundled():
        return {"reference": reference}
    if is_here(reference) or "\\" in reference or not ON_HUB.fullmatch(reference) or _in_variant(reference):
        return {"reference": None}
    found = source(reference)
    asked = {"revision": found.revision, "variant": found.variant, "commit": found.commit}
    return {"reference": found.repository, **{name: value for name, value in asked.items() if value}}


# ------------------------------------------------------------------------------------------------ the Hub
FACTS = ("model_index.json", "README.md", "*/*.json", "*/*.txt", "*/*.model")
"""Of a base on the Hub: configurations, tokenizers, and the card, which says the licence."""
WANTED = (*FACTS, "*/*.safetensors")
"""The components' folders. (Single-file weights beside them are not wanted: they say the same again.)"""
UNUSED = ("*.fp16.safetensors", "*.bf16.safetensors", "*.non_ema.safetensors", "*.fp16-*.safetensors",
          "*.bf16-*.safetensors", "*.non_ema-*.safetensors", "safety_checker/*")  # fmt: skip
"""Of those what is never loaded."""


def _download(what: Reference, variant: str | None, without: Collection[str] = ()) -> Path:
    """The base's folder in the Hub's cache.

    Args:
        without: components whose weights are not wanted.

    Raises:
        HubError: a login is missing, or terms are not accepted.
        BackboneError: it is not there, or cannot be fetched.
    """
    unused = (*UNUSED, *(f"{name}/*.safetensors" for name in without))
    try:
        if variant is None:
            return _snapshot(what, WANTED, unused)
        own = (*FACTS, *(f"*/*.{variant}{end}" for end in ENDS))
        folder = _snapshot(what, own, ("safety_checker/*", *unused[len(UNUSED) :]))
    except Exception as error:
        raise _not_had(error, what) from error
    _require_variant(folder, variant, f"{what}:{variant}")
    lacking = set(_components(folder)) - set(without)
    plain = [name for name in sorted(lacking) if not weights_in(folder / name, variant)]
    try:
        return _snapshot(what, [f"{name}/*.safetensors" for name in plain], UNUSED) if plain else folder
    except Exception as error:
        raise _not_had(error, what) from error


def _snapshot(what: Reference, patterns: tuple[str, ...] | list[str], unused: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        what.repository, revision=what.revision, allow_patterns=list(patterns), ignore_patterns=list(unused)
    )
    return Path(folder)


def _not_had(error: Exception, what: Reference) -> HubError | BackboneError:
    cause = explained(error, what)
    if isinstance(cause, HubError):
        return cause
    return BackboneError(
        f"the base is neither a folder here nor to be had from the Hub: {cause.message}",
        given=str(what),
        allowed=cause.allowed,
        next=cause.next,
    )


# ------------------------------------------------------------------------------------------------ variants
ENDS = (".safetensors", "-*-of-*.safetensors")
"""Of a variant's files: whole, or in shards."""


def weights_in(place: Path, variant: str | None) -> list[Path]:
    """The weights files of a component's folder: of the variant where it has some, else plain ones, else all there are."""
    files = sorted(place.glob("*.safetensors"))
    own = [file for file in files if variant_of(file.name) == variant]
    return own or [file for file in files if variant_of(file.name) is None] or (files if variant is None else [])


def variant_of(name: str) -> str | None:
    """`fp16` of `model.fp16.safetensors` and of `model.fp16-00001-of-00002.safetensors`."""
    words = name.removesuffix(".safetensors").split(".")
    return re.sub(r"-\d+-of-\d+$", "", words[1]) if len(words) > 1 else None


def _components(folder: Path) -> list[str]:
    """Components that the index names, with a configuration of a network: those that have weights."""
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [name for name in index if (folder / name / "config.json").is_file()]


def _require_variant(folder: Path, variant: str, reference: str) -> None:
    """Raises `BackboneError` for a variant that no component has."""
    files = [file for name in _components(folder) for file in (folder / name).glob("*.safetensors")]
    if not any(variant_of(file.name) == variant for file in files):
        found = sorted({v for file in files if (v := variant_of(file.name))})
        raise BackboneError(
            f"no component has weights of the variant {variant}",
            given=reference,
            allowed=", ".join(found) or None,
            next="without a variant, the plain weights are read",
        )
