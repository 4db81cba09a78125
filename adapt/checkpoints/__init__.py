"""Weights in one file, as models are published and traded: what is in it, and networks made of it. Only `network` and `values`
import torch."""

from adapt.checkpoints.contents import Contents, contents_of
from adapt.checkpoints.header import Entry, header

__all__ = ["Contents", "Entry", "contents_of", "header"]
