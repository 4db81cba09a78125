"""A vision-language model behind an address that speaks OpenAI's dialect (`/v1/chat/completions`): vLLM, llama.cpp, Ollama, LM
Studio, OpenAI. Nothing but the picture's pixels and the question is sent."""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from PIL.Image import Image

from adapt.api.beside.words import Captioner
from adapt.errors import SettingsError, TransferError

KEYS = {"api.openai.com": "OPENAI_API_KEY"}
"""Whose key is in which variable. A key is sent to nobody else unless its variable is named."""
TRIES, TIMEOUT = 4, 300
"""Tries of a request that a busy server refused; seconds that an answer may take."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A server that sends us on would take the key and the picture along."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class Server:
    """Attributes:
    root: its address, which ends in `/v1`.
    key: what it asks for, or None.
    """

    root: str
    key: str | None = None


def server_captioner(
    url: str, model: str | None, prompt: str, tokens: int, key_variable: str | None = None
) -> Captioner:
    """Describes pictures with the model of a server.

    Args:
        url: `http://localhost:8000` or with `/v1`.
        model: its name there; None: the only one that the server has.
        prompt: what is asked of each picture.
        tokens: new tokens at most.
        key_variable: name of the environment variable that holds the server's key.

    Raises:
        SettingsError: no address, no such variable, or several models and none named.
        TransferError: the server cannot be reached or refuses.
    """
    server = Server(address(url), _key(url, key_variable))
    name = model or _only_model(server)

    def describe(image: Image) -> str:
        content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": data_url(image)}}]
        asked = {
            "model": name,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": tokens,
            "temperature": 0,
        }
        return _text(_ask(server, "chat/completions", asked), server.root)

    return Captioner(describe, (server.root, name, prompt, str(tokens)))


def address(url: str) -> str:
    """The address that ends in `/v1`.

    Raises:
        SettingsError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise SettingsError("no address of a server", given=url, allowed="http://localhost:8000")
    root = url.rstrip("/")
    return root if root.endswith("/v1") else f"{root}/v1"


def is_here(url: str) -> bool:
    """Whether the server is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def data_url(image: Image) -> str:
    """The pixels as a JPEG, without anything else of the file."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _key(url: str, variable: str | None) -> str | None:
    """The server's key, from the variable that was named; for servers in `KEYS` from theirs."""
    if variable is not None and not os.environ.get(variable):
        raise SettingsError("the environment has no such key", given=variable, next=f"export {variable}=…")
    name = variable or KEYS.get(urlsplit(url).hostname or "")
    return os.environ.get(name) if name else None


def _only_model(server: Server) -> str:
    names = [str(entry.get("id")) for entry in _ask(server, "models").get("data", ()) if isinstance(entry, dict)]
    if len(names) != 1:
        raise SettingsError(
            "the server has several models, or none", given=", ".join(names[:8]) or None, next="--model NAME"
        )
    return names[0]


def _text(answer: Mapping[str, Any], root: str) -> str:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (LookupError, TypeError) as error:
        raise TransferError("the server's answer holds no text", given=root) from error
    return text if isinstance(text, str) else ""


def _ask(server: Server, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """One request, tried again while the server is busy."""
    url = f"{server.root}/{path}"
    for number in range(TRIES):
        try:
            return _answer(url, server.key, body)
        except urllib.error.HTTPError as error:
            if error.code in (429, 500, 502, 503, 504) and number < TRIES - 1:
                time.sleep(2**number)
                continue
            hint = HINTS.get(error.code)
            raise TransferError(
                f"the server refuses (status {error.code}): {_said(error)}", given=url, next=hint
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise TransferError(f"the server cannot be used: {reason}", given=url, next="is it running?") from error
    raise AssertionError("every way out of the loop is above")


HINTS = {401: "--key-env VARIABLE", 403: "--key-env VARIABLE", 404: "--model names one of its own"}


def _answer(url: str, key: str | None, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(request, timeout=TIMEOUT) as response:
        found = json.loads(response.read())
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _said(error: urllib.error.HTTPError) -> str:
    """What the server gives as its reason, in 200 characters."""
    try:
        told = json.loads(error.read())["error"]
        text = told["message"] if isinstance(told, dict) else str(told)
    except (OSError, ValueError, LookupError, TypeError):
        text = error.reason
    return " ".join(str(text).split())[:200]
