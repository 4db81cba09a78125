"""What is written in a prompt besides words: variants and wildcards, weights, blends. Imports no torch."""

from adapt.prompts.marks import Unmarked, unmarked
from adapt.prompts.reading import PLAIN, SYNTAXES, WEIGHTS, Reading, read
from adapt.prompts.variants import MOST_VARIANTS, every, picked
from adapt.prompts.weights import Piece, Prompt, Term
from adapt.prompts.wildcards import Wildcards

__all__ = [
    "MOST_VARIANTS",
    "PLAIN",
    "SYNTAXES",
    "WEIGHTS",
    "Piece",
    "Prompt",
    "Reading",
    "Term",
    "Unmarked",
    "Wildcards",
    "every",
    "picked",
    "read",
    "unmarked",
]
