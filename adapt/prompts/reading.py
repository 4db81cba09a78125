"""How prompts are read."""

from __future__ import annotations

from dataclasses import dataclass

from adapt.prompts.blends import terms_of
from adapt.prompts.weights import Prompt, Term, parts_of

WEIGHTS, PLAIN = "weights", "plain"
SYNTAXES = (WEIGHTS, PLAIN)


@dataclass(frozen=True)
class Reading:
    """How the prompts of a picture are read.

    Attributes:
        syntax: `weights` reads variants, weights and blends; `plain` takes every character as it is, as training takes
            captions.
        clip_skip: layers of CLIP that are left out at its end, as diffusers counts them (A1111's number less 1); None: none.
    """

    syntax: str = WEIGHTS
    clip_skip: int | None = None


def read(text: str, syntax: str = WEIGHTS) -> Prompt:
    """A prompt with its weights and blends.

    Raises:
        SettingsError: it cannot be read.
    """
    if syntax == PLAIN:
        return Prompt.of(text)
    return Prompt(terms_of(text) or (Term(parts_of(text)),))
