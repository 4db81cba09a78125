"""New words in a pipeline: tokenizers that know them, and embeddings that own only their rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapt.data.plan import normal
from adapt.errors import AdapterError, SettingsError
from adapt.formats.embeddings import A1111, COMPONENTS, Embeddings, file_of
from adapt.formats.opening import check_file, open_tensors
from adapt.lora.held import Held
from adapt.lora.text_encoders import is_clip

SEVERAL = tuple(COMPONENTS.values())


class NewRows(nn.Module):
    """An embedding with rows for new words. The table of the base is only read.

    Args:
        known: the base's embedding.
        first: number of the first new word's first vector; the others follow.
        rows: their vectors (n, width).
    """

    def __init__(self, known: nn.Module, first: int, rows: Tensor) -> None:
        super().__init__()
        self.known, self.first, self.awake = known, first, True
        self.rows = nn.Parameter(rows.clone(), requires_grad=False)
        self.register_buffer("start", rows.clone(), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The base's table, for those who ask about its kind of numbers."""
        known: Any = self.known
        found: Tensor = known.weight
        return found

    def forward(self, ids: Tensor) -> Tensor:
        """Numbers of words (B, L) → vectors (B, L, width)."""
        place = ids - self.first
        new = (place >= 0) & (place < len(self.rows))
        found: Tensor = self.known(ids.masked_fill(new, 0))
        rows = self.rows if self.awake else self.get_buffer("start")
        own = rows[place.clamp(0, len(self.rows) - 1)].to(found.dtype)
        return torch.where(new[..., None], own, found)


class Words:
    """New words in a pipeline, until they are taken out again: it is then what it was.

    Args:
        pipeline: diffusers'.
        words: the vectors.

    Raises:
        AdapterError: the pipeline takes no new words, has some of them, or other widths; it is then untouched.
    """

    def __init__(self, pipeline: Any, words: Embeddings) -> None:
        self.pipeline, self.counts = pipeline, {w: len(next(iter(each.values()))) for w, each in words.items()}
        components = sorted({component for each in words.values() for component in each})
        for component in components:
            _require_room(pipeline, component, words)
        self._kept = {c: (tokenizer_of(pipeline, c), embedding_of(pipeline, c)) for c in components}
        self.rows = {component: self._put(component, words) for component in components}

    def _put(self, component: str, words: Embeddings) -> NewRows:
        tokenizer, known = self._kept[component]
        tokenizer = copy.deepcopy(tokenizer)
        names = [name for word, count in self.counts.items() for name in names_of(word, count)]
        tokenizer.add_tokens(names)
        numbers = tokenizer.convert_tokens_to_ids(names)
        assert numbers == list(range(numbers[0], numbers[0] + len(names))), "new words are numbered one after another"
        vectors = torch.cat([words[word][component] for word in self.counts])
        dtype = torch.float64 if known.weight.dtype == torch.float64 else torch.float32
        rows = NewRows(known, numbers[0], vectors.to(known.weight.device, dtype))
        setattr(self.pipeline, _tokenizer_name(component), tokenizer)
        getattr(self.pipeline, component).set_input_embeddings(rows)
        return rows

    def vectors(self, values: Mapping[str, Tensor] | None = None) -> dict[str, dict[str, Tensor]]:
        """Word → component → its vectors; `values` by component stands in for those that are there."""
        held = {c: rows.rows for c, rows in self.rows.items()} if values is None else values
        found: dict[str, dict[str, Tensor]] = {word: {} for word in self.counts}
        for component, tensor in held.items():
            parts = torch.split(tensor.detach().clone(), list(self.counts.values()))
            for word, part in zip(self.counts, parts, strict=True):
                found[word][component] = part.contiguous()
        return found

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Each new word means what it started as, inside the `with`."""
        before = {rows: rows.awake for rows in self.rows.values()}
        for rows in before:
            rows.awake = False
        try:
            yield
        finally:
            for rows, awake in before.items():
                rows.awake = awake

    def remove(self) -> None:
        """Takes them out; words that came later are taken out before."""
        for component, (tokenizer, known) in self._kept.items():
            setattr(self.pipeline, _tokenizer_name(component), tokenizer)
            getattr(self.pipeline, component).set_input_embeddings(known)

    @torch.no_grad()
    def take(self, words: Embeddings) -> None:
        """Copies vectors, bit for bit; words that are not named stay as they are."""
        for component, rows in self.rows.items():
            start = 0
            for word, count in self.counts.items():
                if word in words:
                    rows.rows[start : start + count] = words[word][component].to(rows.rows)
                start += count


@dataclass(frozen=True)
class NewWords(Held):
    """Words that are taught, in the pipeline."""

    words: Words

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Component → the vectors of all new words (n, width)."""
        return {component: rows.rows for component, rows in self.words.rows.items()}

    def take(self, words: Embeddings) -> None:
        """As `Words.take`."""
        self.words.take(words)


def teach(pipeline: Any, new: Mapping[str, str], vectors: int, seed: int) -> NewWords:
    """New words in a pipeline, at their start and about to be learned.

    Args:
        new: word → the words that it starts as.
        vectors: of each.
        seed: of those that start as nothing in particular.

    Raises:
        SettingsError: what the pipeline cannot take.
    """
    try:
        start = {word: starts(pipeline, word, like, vectors, seed) for word, like in new.items()}
        taught = Words(pipeline, start)
    except AdapterError as error:
        raise SettingsError(f"new_tokens: {error.message}", given=error.given, allowed=error.allowed) from error
    for rows in taught.rows.values():
        rows.rows.requires_grad_(True)
    return NewWords(taught)


def encoders_of(pipeline: Any) -> tuple[str, ...]:
    """The text encoders that get new words: all of CLIP's kind, else the first."""
    found = [name for name in SEVERAL if isinstance(getattr(pipeline, name, None), nn.Module)]
    return tuple(name for name in found if is_clip(getattr(pipeline, name))) or tuple(found[:1])


@torch.no_grad()
def starts(pipeline: Any, word: str, words: str, vectors: int, seed: int) -> dict[str, Tensor]:
    """Component → what a new word starts as (vectors, width): the vectors of `words` one after another, from the first again
    where there are fewer; without words, draws that are spread like the table's.

    Raises:
        AdapterError: words that the tokenizer makes nothing of; a pipeline that takes no new words.
    """
    _require_mixin(pipeline)
    found = {}
    for component in encoders_of(pipeline):
        table = embedding_of(pipeline, component).weight.detach().float()
        if words:
            numbers = tokenizer_of(pipeline, component)(words, add_special_tokens=False).input_ids
            if not numbers:
                raise AdapterError(
                    f"{word} cannot start as this", given=words, allowed="words that the tokenizer knows"
                )
            found[component] = table[[numbers[k % len(numbers)] for k in range(vectors)]].clone()
        else:
            drawn = normal(seed, f"new word {word} {component}", 0, 0, (vectors, table.shape[1])).to(table)
            found[component] = table.mean(0) + table.std(0) * drawn
    return found


def names_of(word: str, count: int) -> list[str]:
    """What diffusers calls the vectors of a word: `<me>`, `<me>_1` …"""
    return [word, *(f"{word}_{k}" for k in range(1, count))]


def embedding_of(pipeline: Any, component: str) -> Any:
    """The table of a text encoder."""
    return getattr(pipeline, component).get_input_embeddings()


def _tokenizer_name(component: str) -> str:
    return component.replace("text_encoder", "tokenizer")


def tokenizer_of(pipeline: Any, component: str) -> Any:
    """Of a text encoder."""
    return getattr(pipeline, _tokenizer_name(component))


def say_to(pipeline: Any, word: str, found: Mapping[str, Tensor], folder: Path) -> None:
    """What the card tells users to do: diffusers itself loads a new word, from the adapter's folder."""
    say_from(folder / file_of(word), pipeline, word, found)


def say_from(file: Path, pipeline: Any, word: str, found: Mapping[str, Tensor]) -> None:
    """The same from its file, also A1111's, which does not say the word."""
    if len(found) == 1:
        told = {"token": word} if check_file(file) == [A1111] else {}
        pipeline.load_textual_inversion(str(file), use_safetensors=True, **told)
        return
    for key, tensor in open_tensors(file)[0].items():
        component = COMPONENTS[key]
        encoder, tokenizer = getattr(pipeline, component), tokenizer_of(pipeline, component)
        pipeline.load_textual_inversion(tensor, token=word, text_encoder=encoder, tokenizer=tokenizer)


def _require_mixin(pipeline: Any) -> None:
    if not hasattr(pipeline, "load_textual_inversion"):
        raise AdapterError(
            "the pipeline of this base takes no new words: diffusers has no loader for them there",
            given=type(pipeline).__name__,
            allowed="Stable Diffusion 1.x, 2.x, XL, Flux and others with load_textual_inversion",
        )


def _require_room(pipeline: Any, component: str, words: Embeddings) -> None:
    _require_mixin(pipeline)
    if not isinstance(getattr(pipeline, component, None), nn.Module):
        raise AdapterError("the base has no such text encoder", given=component)
    known, width = tokenizer_of(pipeline, component).get_vocab(), embedding_of(pipeline, component).weight.shape[1]
    for word, each in words.items():
        count, own = each[component].shape
        if taken := [name for name in names_of(word, count) if name in known]:
            raise AdapterError("a new word is known to the tokenizer already", given=taken[0], allowed="another word")
        if own != width:
            raise AdapterError(f"{word} is for another text encoder", given=f"vectors of {own}", allowed=width)
