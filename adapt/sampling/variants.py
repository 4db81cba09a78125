"""Requests whose prompts are templates → requests with the prompts that are drawn. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path

from adapt.errors import SettingsError
from adapt.prompts import MOST_VARIANTS, PLAIN, Wildcards, every, picked
from adapt.sampling.request import Request


@dataclass(frozen=True)
class Variants:
    """How variants are chosen.

    Attributes:
        wildcards: what names between double underscores stand for.
        every: each variant is drawn, with the same seeds; otherwise one a picture, which its seed decides.
    """

    wildcards: Wildcards = field(default_factory=Wildcards)
    every: bool = False

    @staticmethod
    def of(folder: str | Path | None, every: bool = False) -> Variants:
        """With the wildcards of a folder."""
        return Variants(Wildcards(None if folder is None else Path(folder)), every)

    def __call__(self, requests: Sequence[Request]) -> list[Request]:
        """The requests in order, each in the place of its template.

        Raises:
            SettingsError, DataError: a template or a wildcard that cannot be read, or too many variants.
        """
        return [drawn for request in requests for drawn in self._of(request)]

    def _of(self, request: Request) -> list[Request]:
        if request.prompt_syntax == PLAIN:
            return [request]
        texts = (request.prompt, request.negative_prompt, *(text for text, _ in request.compose))
        return [_with(request, chosen) for chosen in self._chosen(texts, request.seed)]

    def _chosen(self, texts: Sequence[str], seed: int) -> list[tuple[str, ...]]:
        """The texts of each picture that comes of one request."""
        if not self.every:
            return [tuple(picked(text, seed, str(place), self.wildcards) for place, text in enumerate(texts))]
        found = [every(text, self.wildcards) for text in texts]
        if (number := prod(map(len, found))) > MOST_VARIANTS:
            raise SettingsError(
                "prompt and negative prompt have too many variants together", given=number, allowed=MOST_VARIANTS
            )
        return list(product(*found))


BY_SEED = Variants()


def _with(request: Request, texts: Sequence[str]) -> Request:
    prompt, negative, *further = texts
    compose = [(text, weight) for text, (_, weight) in zip(further, request.compose, strict=True)]
    return replace(request, prompt=prompt, negative_prompt=negative, compose=tuple(compose))
