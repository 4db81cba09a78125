"""What a base's folder says, and its networks loaded from it. Reading configurations imports no torch, loading does."""

from adapt.loading.counter import caption_counter
from adapt.loading.index import at_hand, index_of, read_index, require
from adapt.loading.pipeline import load, load_pipeline, plain
from adapt.loading.precision import held_in, in_few_bits, own_precision, told_of
from adapt.loading.shape import edits, edits_too, frame_of, medium_of
from adapt.source import bundled, find

__all__ = [
    "at_hand",
    "bundled",
    "caption_counter",
    "edits",
    "edits_too",
    "find",
    "frame_of",
    "held_in",
    "in_few_bits",
    "index_of",
    "load",
    "load_pipeline",
    "medium_of",
    "own_precision",
    "plain",
    "read_index",
    "require",
    "told_of",
]
