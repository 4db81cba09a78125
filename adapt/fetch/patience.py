"""How long a silent server is waited for."""

from __future__ import annotations

SECONDS = 180.0
"""Without a byte. Making a commit takes the Hub seconds, rarely a minute."""


def be_patient() -> None:
    """huggingface_hub's client waits for ever for a server that has gone silent, as after a laptop's sleep; from here on it waits
    for `SECONDS` (calls that say no limit themselves must be told). A time limit that somebody has set is left alone."""
    import httpx2
    from huggingface_hub import get_session

    session = get_session()
    if session.timeout == httpx2.Timeout(None):
        session.timeout = httpx2.Timeout(SECONDS)
