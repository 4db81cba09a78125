"""The model card: what the Hub shows of an adapter, rendered from `adapter.json`. Nothing private goes in."""

from adapt.card.notebook import notebook
from adapt.card.render import licence_of, render
from adapt.card.stamp import for_repository, is_untouched, stamped

__all__ = ["for_repository", "is_untouched", "licence_of", "notebook", "render", "stamped"]
