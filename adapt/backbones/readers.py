"""Prompts with weights, in chunks, blended and from earlier layers: for denoisers that attend to one or two text encoders
which are alike (Stable Diffusion 1, 2, XL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapt.errors import SettingsError
from adapt.prompts import Piece, Prompt, Term
from adapt.quiet import quiet_libraries
from conditioning import Part

MOST_CHUNKS = 16


class Chunk(NamedTuple):
    """What an encoder reads at once: `ids` and `weights` of at most `Reader.room` tokens."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Reader:
    """A text encoder and its tokenizer, as a pipeline uses them.

    Attributes:
        pipeline: diffusers', which knows words of several tokens.
        last: the layer whose states are read without clip-skip, from the end: 1 the last one, normed; 2 the one before it, not
            normed.
    """

    pipeline: Any
    tokenizer: Any
    encoder: Any
    last: int = 1

    @property
    def length(self) -> int:
        """Tokens of a chunk, with its beginning and its end."""
        return int(self.tokenizer.model_max_length)

    @property
    def room(self) -> int:
        """Tokens of a chunk that are words."""
        return self.length - 2

    @property
    def most_skipped(self) -> int | None:
        """Layers that can be left out; None: the encoder is not CLIP."""
        config = self.encoder.config
        return int(config.num_hidden_layers) - self.last if config.model_type == "clip_text_model" else None

    def cut(self, term: Term) -> list[Chunk]:
        """The term in chunks, each part beginning a new one."""
        found = []
        for part in term.parts:
            tokens = [(number, piece.weight) for piece in part for number in self._ids(piece)]
            starts = range(0, max(1, len(tokens)), self.room)
            found += [tokens[start : start + self.room] for start in starts]
        return [Chunk([number for number, _ in chunk], [weight for _, weight in chunk]) for chunk in found]

    def _ids(self, piece: Piece) -> list[int]:
        text = self.pipeline.maybe_convert_prompt(piece.text, self.tokenizer)
        with quiet_libraries():
            ids: list[int] = self.tokenizer(text, add_special_tokens=False, truncation=False).input_ids
        return ids

    def states(self, chunks: Sequence[Chunk], clip_skip: int | None) -> tuple[Tensor, Tensor | None]:
        """Weighted states of each chunk (N, L, D), and pooled ones (N, P) where the encoder projects them.

        A token of weight w is e + w (z - e): z is its state, e the state at its place when nothing is said.
        """
        z, pooled = self._encoded([chunk.ids for chunk in chunks], clip_skip)
        if all(weight == 1 for chunk in chunks for weight in chunk.weights):
            return z, pooled
        empty, _ = self._encoded([[]], clip_skip)
        w = torch.ones(*z.shape[:2], 1, dtype=z.dtype, device=z.device)
        for row, chunk in enumerate(chunks):
            w[row, 1 : 1 + len(chunk.weights), 0] = torch.tensor(chunk.weights, dtype=z.dtype)
        return torch.where(w == 1, z, empty + w * (z - empty)), pooled

    def _encoded(self, rows: Sequence[list[int]], clip_skip: int | None) -> tuple[Tensor, Tensor | None]:
        begin, end = self.tokenizer("").input_ids
        padding = [[self.tokenizer.pad_token_id] * (self.room - len(row)) for row in rows]
        device = self.encoder.get_input_embeddings().weight.device
        ids = torch.tensor([[begin, *row, end, *pad] for row, pad in zip(rows, padding, strict=True)], device=device)
        mask = None
        if self.last == 1 and getattr(self.encoder.config, "use_attention_mask", False):
            lengths = torch.tensor([len(row) + 2 for row in rows], device=device)
            mask = (torch.arange(self.length, device=device) < lengths[:, None]).long()
        output = self.encoder(ids, attention_mask=mask, output_hidden_states=True)
        pooled: Tensor | None = output[0] if output[0].ndim == 2 else None
        return self._layer(output, clip_skip), pooled

    def _layer(self, output: Any, clip_skip: int | None) -> Tensor:
        if self.last == 1 and not clip_skip:
            states: Tensor = output[0]
            return states
        states = output.hidden_states[-(self.last + (clip_skip or 0))]
        # As diffusers: the last layer's norm goes over whichever layer stands in for it.
        return getattr(self.encoder, "text_model", self.encoder).final_layer_norm(states) if self.last == 1 else states


def chunks_of(readers: Sequence[Reader], prompt: Prompt) -> int:
    """Chunks of the longest of its terms."""
    return max(len(reader.cut(term)) for reader in readers for term in prompt.terms)


def encode(
    readers: Sequence[Reader], prompts: Sequence[Prompt], clip_skip: int | None = None, most: int = MOST_CHUNKS
) -> Part:
    """One row a prompt; all of them are as long as the longest, filled up with chunks that say nothing.

    Args:
        most: chunks that are read; what comes behind is left out.

    Returns:
        `tokens` (B, chunks · L, D), the encoders' states side by side; `pooled` (B, P) of the first chunk, where one projects.
    """
    terms = [[term for term in prompt.terms if term.share] for prompt in prompts]
    flat = [term for row in terms for term in row]
    cuts = [[reader.cut(term)[:most] for term in flat] for reader in readers]
    count = max(len(chunks) for cut in cuts for chunks in cut)
    states = [_read(reader, cut, count, clip_skip) for reader, cut in zip(readers, cuts, strict=True)]
    tokens = torch.cat([tokens for tokens, _ in states], -1)  # (terms, chunks · L, D)
    pooled = next((pooled for _, pooled in states if pooled is not None), None)
    part = {"tokens": tokens} if pooled is None else {"tokens": tokens, "pooled": pooled}
    return {name: _blended(x, terms) for name, x in part.items()}


def _read(
    reader: Reader, terms: Sequence[list[Chunk]], count: int, clip_skip: int | None
) -> tuple[Tensor, Tensor | None]:
    """States of each term's chunks one after the other (terms, count · L, D), and the first one's pooled."""
    filled = [chunk for term in terms for chunk in (*term, *[Chunk([], [])] * (count - len(term)))]
    tokens, pooled = reader.states(filled, clip_skip)
    return tokens.reshape(len(terms), count * reader.length, -1), None if pooled is None else pooled[::count]


def _blended(x: Tensor, terms: Sequence[Sequence[Term]]) -> Tensor:
    """Rows of terms → one row a prompt: their sum, each by its share."""
    if all(len(row) == 1 for row in terms):
        return x
    rows, start = [], 0
    for row in terms:
        shares = torch.tensor([term.share for term in row], dtype=x.dtype, device=x.device)
        rows.append(torch.einsum("i,i...->...", shares, x[start : start + len(row)]))
        start += len(row)
    return torch.stack(rows)


def require_skip(readers: Sequence[Reader], clip_skip: int | None) -> None:
    """Raises `SettingsError` where so many layers cannot be left out."""
    if clip_skip is None:
        return
    most = [reader.most_skipped for reader in readers]
    if not most or None in most:
        raise SettingsError(
            "clip_skip is for bases whose text encoders are CLIP alone", given=clip_skip,
            allowed="Stable Diffusion 1, 2 and XL", next="leave it out",
        )  # fmt: skip
    allowed = min(number for number in most if number is not None)
    if clip_skip > allowed:
        raise SettingsError("clip_skip leaves no layer", given=clip_skip, allowed=f"0 to {allowed}")
