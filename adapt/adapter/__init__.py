"""The adapter: what training produces, and what is shared."""

from adapt.adapter.adapter import Adapter
from adapt.adapter.facts import FACTS_NAME, Facts
from adapt.adapter.places import CACHED, here, home, name_of

__all__ = ["CACHED", "FACTS_NAME", "Adapter", "Facts", "here", "home", "name_of"]
