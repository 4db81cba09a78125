"""The Hub: pushing an adapter, and pulling one. Upload calls of huggingface_hub stand only here."""

from adapt.hub.plan import Plan, Wishes
from adapt.hub.pull import pull
from adapt.hub.push import Pushed, push

__all__ = ["Plan", "Pushed", "Wishes", "pull", "push"]
