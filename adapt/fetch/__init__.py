"""Adapters of the Hub, brought here: one commit, only files that cannot run code, every byte verified.

huggingface_hub's settings hold (`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_HOME`, proxies). Imports no torch, and
huggingface_hub only when something is fetched.
"""

from adapt.fetch.bring import fetch, listing
from adapt.fetch.choice import everything, needed
from adapt.fetch.explained import explained, is_unsettled
from adapt.fetch.patience import be_patient
from adapt.fetch.reference import Reference, reference

__all__ = [
    "Reference",
    "be_patient",
    "everything",
    "explained",
    "fetch",
    "is_unsettled",
    "listing",
    "needed",
    "reference",
]
