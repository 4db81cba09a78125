"""The adapter: what training produces, and what is shared.

On disk a folder: `pytorch_lora_weights.safetensors` (plain diffusers takes it) or `peft/` (for kinds that this file cannot
hold), `adapter.json` (the facts needed to use it), `samples/`, `README.md`. A bare `.safetensors` is accepted too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, cast

from adapt import files
from adapt.adapter.conditioners import read_conditioners
from adapt.adapter.facts import FACTS_NAME, Facts, read_facts
from adapt.adapter.places import home, locate, name_of
from adapt.errors import AdapterError
from adapt.formats import Layer, LoraWeights, read, write_peft
from adapt.formats.conditioners import FOLDER as CONDITIONING
from adapt.formats.conditioners import labels_in, write_conditioners
from adapt.formats.described import Description, write_sidecars
from adapt.formats.embeddings import FOLDER as EMBEDDINGS
from adapt.formats.embeddings import Embeddings, read_bundled, read_embeddings, write_embeddings
from adapt.formats.encoder_names import by_diffusers
from adapt.formats.experts import files_of, of_both, write_folder
from adapt.formats.export import export
from adapt.formats.header import read_metadata
from adapt.formats.peft_folder import FOLDER, of_one_adapter
from adapt.formats.readers import LOADER
from adapt.formats.spec import header, layers_of, model_for
from adapt.formats.strength import as_told
from adapt.formats.tlora import TimeLora
from adapt.licences import Licence

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from adapt.backbones import Backbone
    from adapt.lora import Applied
    from conditioning import ClassConditioner, LearnedConditioner


@dataclass(frozen=True)
class Adapter:
    """LoRA weights and the facts needed to use them.

    Attributes:
        weights: by component and module; of one kind, as a rule.
        facts: see `Facts`; empty for a bare file.
        name: for messages and file names.
        digest: first 10 hexadecimal digits of the weights file's sha256; "" until saved or loaded.
        words: new words with their embeddings: word → text encoder → (vectors, width).
        conditioners: learned conditioners, by the part of the condition that they make.
    """

    weights: LoraWeights
    facts: Facts = field(default_factory=Facts)
    name: str = "adapter"
    digest: str = ""
    words: Embeddings = field(default_factory=dict)
    conditioners: Mapping[str, LearnedConditioner] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it draws; none in most."""
        return self.classes.labels if self.classes is not None else ()

    @property
    def classes(self) -> ClassConditioner | None:
        """What draws them."""
        return cast("ClassConditioner | None", self.conditioners.get("class"))

    @property
    def trigger(self) -> str | None:
        return self.facts.trigger

    @property
    def triggers(self) -> tuple[str, ...]:
        """Every word that calls something it has learned."""
        return self.facts.triggers or ((self.trigger,) if self.trigger else ())

    @property
    def recommended(self) -> Mapping[str, float]:
        return self.facts.recommended

    @staticmethod
    def locate(path: str | Path) -> Path:
        """The weights file of an adapter folder, a run's folder, a bare file, or an adapter of the Hub (`user/name@revision`),
        which is fetched; judged without torch.

        Raises:
            AdapterError: nothing usable is there.
            TransferError, HubError: the Hub does not have it, or not for this user.
        """
        return locate(path)

    @staticmethod
    def digest_of(path: str | Path) -> str:
        """sha256 of the weights, in hexadecimal digits: of the file, or of the digests of several.

        Raises:
            AdapterError: as `locate`.
        """
        file = Adapter.locate(path)
        found = [each for one in of_both(file) for each in of_one_adapter(one)]
        if (folder := home(file)) is not None:
            found += sorted((folder / EMBEDDINGS).glob("*.safetensors"))
            found += sorted(file for file in (folder / CONDITIONING).rglob("*") if file.is_file())
        digests = [files.digest(file) for file in found]
        return digests[0] if len(digests) == 1 else sha256(" ".join(digests).encode()).hexdigest()

    @staticmethod
    def read_facts(path: str | Path) -> Facts:
        """`adapter.json` beside the weights; empty facts when there is none. Needs no torch.

        Raises:
            AdapterError: unreadable, or written by a newer adapt.
        """
        return read_facts(home(Adapter.locate(path)))

    @staticmethod
    def labels_of(path: str | Path) -> tuple[str, ...]:
        """The classes of an adapter, in their order; none in most. Needs no torch.

        Raises:
            AdapterError: as `locate`, or a label map that cannot be read.
        """
        folder = home(Adapter.locate(path))
        return () if folder is None else labels_in(folder)

    @staticmethod
    def load(path: str | Path) -> Adapter:
        """Reads an adapter folder, a run's folder, a bare `.safetensors`, or an adapter of the Hub: `user/name`,
        `user/name@revision`, `user/name/file.safetensors`.

        Raises:
            AdapterError: not there, pickles, damaged, half a pair, shapes that do not fit, values that are not finite.
            TransferError, HubError: the Hub does not have it, or not for this user.
        """
        file = Adapter.locate(path)
        folder = home(file)
        words, conditioners = (
            (read_embeddings(folder), read_conditioners(folder)) if folder is not None else (read_bundled(file), {})
        )
        digest = Adapter.digest_of(file)[:10]
        return Adapter(read(file), Adapter.read_facts(file), name_of(file), digest, words, conditioners)

    def save(self, folder: str | Path) -> Adapter:
        """Writes the weights and `adapter.json` into `folder`; equal adapters are equal bytes. Returns it with its digest."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.loader == "diffusers":
            write_folder(folder, self.weights, self.facts.lora, self._said if self.facts.training else None)
        else:
            write_peft(folder / FOLDER, self.weights, self.facts.lora)
        write_embeddings(folder, self.words)
        write_conditioners(folder, self.conditioners)
        files.write_json(folder / FACTS_NAME, self.facts.as_dict())
        return replace(self, digest=Adapter.digest_of(folder)[:10])

    def _said(self, part: LoraWeights) -> dict[str, str]:
        """What its own file says about itself, under the name of its trigger: equal runs in any folders give equal bytes. The
        recommended scale stands in `adapter.json` alone, where a sweep may change it."""
        told = self.described()
        title = told.trigger or (f"LoRA for {told.base}" if told.base else "LoRA")
        told = replace(told, title=title, recommended={})
        model = model_for(part.modules, told, self.facts.base.get("family"))
        return header(layers_of(part.modules), model, told, part.metadata)

    @property
    def loader(self) -> str:
        """`diffusers` or `peft`: the library that loads its own file; `adapt` where none does.

        Raises:
            AdapterError: it mixes kinds that no one library loads.
        """
        for layers in self.weights.modules.values():
            kinds = {layer.kind for layer in layers.values()}
            if strange := kinds - LOADER.keys():
                raise AdapterError(
                    "neither diffusers nor peft has layers of this kind",
                    given=", ".join(sorted(strange)),
                    next="adapt generate draws with the file; adapt export --nearest RANK --base BASE makes a LoRA of it",
                )
            if len({LOADER.get(kind, kind) for kind in kinds}) > 1:
                raise AdapterError("no library loads an adapter of several kinds", given=", ".join(sorted(kinds)))
        if self._is_adapts:
            return "adapt"
        if self.facts.loads_in and "diffusers" not in self.facts.loads_in:
            return "peft"  # some families' pipelines have no loader
        return "diffusers" if all(_by_diffusers(c, layers) for c, layers in self.weights.modules.items()) else "peft"

    @property
    def _is_adapts(self) -> bool:
        """Whether no other program knows one of its kinds."""
        return any(LOADER.get(kind) == "adapt" for kind in self.weights.kinds)

    def export(self, path: Path, format: str, *, text_width: int | None = None, picture: Path | None = None) -> None:
        """Writes the weights as one file for other programs and reads it back: every number must be the same. Beside all but
        diffusers' go two small files, which UIs show (`formats/described.py`). Of two experts each has a file: see `files`.

        Args:
            format: one of `formats.export.FORMATS`: `diffusers`, `kohya` (ComfyUI, A1111, Forge, InvokeAI), `comfyui` …
            text_width: of the base's cross-attention; None: as the layers say.
            picture: drawn with it: the preview that UIs show.

        Raises:
            AdapterError: the format cannot express this adapter, or what was written reads differently (set aside).
        """
        if self._is_adapts:
            raise AdapterError("only adapt draws with this adapter", given=", ".join(sorted(self.weights.kinds)),
                               next="--nearest RANK --base BASE: its mean over the times, as a plain LoRA")  # fmt: skip
        if format == "diffusers" and self.loader != "diffusers":
            raise AdapterError(
                "diffusers' LoRA file cannot hold this adapter: its pipelines take no key without lora in it, and of text "
                "encoders only CLIP's",
                given=", ".join(sorted(self.weights.kinds | set(self.weights.modules))),
                next="the folder's own peft/ loads with peft, --format kohya in UIs; --nearest RANK makes a plain LoRA of it",
            )
        told = self.described(picture)
        if self.conditioners:
            raise AdapterError(
                "one file cannot hold what the adapter has learned beside its layers", given=", ".join(sorted(self.conditioners)),
                next="share its folder: adapt push, or a folder as --output",
            )  # fmt: skip
        family = self.facts.base.get("family")
        for file, part in self.files(path).items():
            export(file, part, format, configs=self.facts.lora, told=told, width=text_width, backbone=family)
            if format != "diffusers":
                write_sidecars(file, told, read_metadata(file).get("ss_base_model_version", ""))

    def files(self, path: Path) -> dict[Path, LoraWeights]:
        """The files that `export` writes, and what goes into each: `path`, or of two experts one for each, named after it."""
        return files_of(path, self.weights)

    def described(self, picture: Path | None = None) -> Description:
        """What files of other programs say about it."""
        facts = self.facts
        licence = Licence.of(facts.data.get("adapter", {})) or Licence.of(facts.base)
        return Description(
            title=self.name,
            triggers=self.triggers,
            base=facts.base.get("reference"),
            model=facts.base.get("model"),
            licence=str(licence) if licence else None,
            objective=facts.objective,
            recommended=facts.recommended,
            training=facts.training,
            picture=picture,
        )

    def nearest(self, backbone: Backbone, rank: int) -> tuple[Adapter, float]:
        """The plain LoRA of this rank nearest to what it does to the base's weights, for programs that cannot take its kind.

        Returns:
            The LoRA, and what it leaves out: ‖ΔW - its ΔW‖ / ‖ΔW‖ over all layers.

        Raises:
            AdapterError: made for another base.
        """
        from adapt.lora.nearest import nearest_weights

        self.check(backbone)
        weights, left_out = nearest_weights(backbone.modules, self.weights, rank)
        return Adapter(
            weights, replace(self.facts, lora={}, loads_in=("adapt", backbone.loader)), self.name, words=self.words
        ), left_out

    def at_strength(self, strength: float) -> Adapter:
        """The adapter that does at scale 1 what this one does at `strength`: for programs that know no scale but 1.

        Raises:
            AdapterError: OFT and BOFT, whose files know no strength.
        """
        layers = {
            c: {n: layer.times(strength) for n, layer in inside.items()} for c, inside in self.weights.modules.items()
        }
        advised = dict(self.facts.recommended)
        if "scale" in advised:
            advised["scale"] = advised["scale"] / strength
        facts = replace(self.facts, recommended=advised)
        told = {key: value for key, value in self.weights.metadata.items() if key != "modelspec.usage_hint"}
        return replace(self, weights=LoraWeights(layers, told), facts=facts)

    def as_trained(self) -> Adapter:
        """With the alphas of its training, which `adapter.json` says, where its file has the strength inside the numbers."""
        return replace(self, weights=replace(self.weights, modules=as_told(self.weights.modules, self.facts.lora)))

    def check(self, backbone: Backbone) -> None:
        """Raises `AdapterError` when it was made for another base."""
        made_for, given = self.facts.base.get("fingerprint"), backbone.fingerprint()
        if made_for is not None and made_for != given and made_for not in backbone.kin():
            family = self.facts.base.get("family")
            raise AdapterError(
                "the adapter was made for another base",
                given=f"{backbone.reference} ({given})",
                allowed=f"{self.facts.base.get('reference') or family} ({made_for})",
            )
        if missing := set(self.weights.modules) - set(backbone.modules):
            raise AdapterError(
                "the adapter was made for another base: it has no such component",
                given=", ".join(sorted(missing)),
                allowed=", ".join(backbone.modules),
            )

    def apply(self, backbone: Backbone, scale: float = 1.0) -> Applied:
        """Adds it to the backbone's weights, `scale` times (1 as trained, 0 nothing), and teaches it the new words and classes,
        if there are some. Drawing then costs nothing extra.

        Returns:
            A handle: `unload()` restores the weights bit for bit; also a context manager.

        Raises:
            AdapterError: made for another base, or classes where there are some already; the backbone is then untouched.
        """
        from adapt.adapter.wearing import put_on

        return put_on(self, backbone, scale)

    def fitting(self, backbone: Backbone, allow_missing: Sequence[str] = ()) -> Adapter:
        """The adapter without layers that the backbone does not have, as far as they are named.

        Args:
            allow_missing: names of layers, `<component>.<layer>`; `*` stands for anything.

        Raises:
            AdapterError: a layer that is missing and not named, or a name that fits no layer of the adapter.
        """
        from adapt.adapter.wearing import fitting

        return fitting(self, backbone, allow_missing)

    def layers(self) -> dict[str, Layer]:
        """By `<component>.<layer>`."""
        return {f"{c}.{name}": layer for c, layers in self.weights.modules.items() for name, layer in layers.items()}

    def merge(self, backbone: Backbone, scale: float = 1.0) -> None:
        """Adds it to the backbone's weights for good.

        Raises:
            AdapterError: made for another base; a T-LoRA, whose weights are others at every time; words, classes.
            BackboneError: the base's weights are in few bits: rounded to them, most of an adapter would be lost.
        """
        backbone.require_whole_weights("nothing can be merged into it")
        self.require_mergeable()
        self.apply(backbone, scale).keep()

    def require_mergeable(self) -> None:
        """Raises `AdapterError` for a T-LoRA, and for what was learned beside the weights: a merged base would not know it."""
        for layer in self.layers().values():
            if isinstance(layer, TimeLora):
                layer.delta()
        if beside := sorted({*self.words, *self.conditioners}):
            raise AdapterError(
                "what was learned beside the weights cannot be merged into a base",
                given=", ".join(beside),
                next="merge without --into-base",
            )

    def to_diffusers(self, backbone: Backbone) -> DiffusionPipeline:
        """A fresh plain diffusers pipeline of the same base with this adapter loaded by diffusers itself (LoHa, LoKr: by peft
        into its network), in eval mode.

        Raises:
            AdapterError: the library did not take every layer, or one with another strength.
        """
        from adapt.adapter.wearing import in_pipeline

        return in_pipeline(self, backbone)


def _by_diffusers(component: str, layers: Mapping[str, Layer]) -> bool:
    """Whether diffusers' pipelines load these layers themselves."""
    return all(
        LOADER.get(layer.kind) == "diffusers" and by_diffusers(component, name) for name, layer in layers.items()
    )
