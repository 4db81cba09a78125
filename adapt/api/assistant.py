"""An assistant adapter: what undoes a distillation while an adapter is taught, and is left out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.config import TrainSettings
from adapt.errors import AdapterError, SettingsError

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.adapter import Adapter
    from adapt.backbones import Backbone
    from adapt.lora.assistant import Assistant


def require_assistant(settings: TrainSettings, backbone: Backbone) -> None:
    """Raises what is wrong with `assistant`, before anything is trained."""
    from adapt.lora.assistant import place_of

    if (adapter := _adapter(settings, backbone)) is not None:
        for name, layer in adapter.layers().items():
            place_of(backbone.modules, name, layer)


def put_on(settings: TrainSettings, backbone: Backbone) -> Assistant | None:
    """It, beside the base's layers; None without one. To be called on the bare base."""
    from adapt.lora.assistant import Assistant

    adapter = _adapter(settings, backbone)
    if adapter is None:
        return None
    return Assistant(backbone.modules, adapter.layers(), backbone.dtype, backbone.device)


def _adapter(settings: TrainSettings, backbone: Backbone) -> Adapter | None:
    """`assistant`, read and judged as far as it goes without its layers.

    Raises:
        AdapterError: it cannot be read, or was made for another base.
        SettingsError: it changes more than the denoiser.
    """
    if settings.assistant is None:
        return None
    from adapt.adapter import Adapter

    try:
        adapter = Adapter.load(settings.assistant)
        adapter.check(backbone)
    except AdapterError as error:
        raise AdapterError(
            f"assistant: {error.message}", given=error.given, allowed=error.allowed, next=error.next
        ) from error
    require_denoisers_alone(adapter, backbone, "assistant", "which would be missing when the adapter is drawn with")
    return adapter


def require_denoisers_alone(adapter: Adapter, backbone: Backbone, setting: str, why: str) -> None:
    """Raises `SettingsError` for an adapter, named by a setting, that changes more than denoisers."""
    if beside := sorted({*adapter.weights.modules, *adapter.words, *adapter.conditioners} - set(backbone.denoisers)):
        raise SettingsError(
            f"{setting} changes what the denoiser is told, {why}",
            given=", ".join(beside),
            allowed=f"an adapter of the {' and '.join(backbone.denoisers)} alone",
        )


def told(settings: TrainSettings) -> dict[str, str]:
    """What `adapter.json` says of it: where on the Hub it is, and the digest of its weights; nothing without one."""
    if settings.assistant is None:
        return {}
    from adapt.adapter import Adapter
    from adapt.fetch import reference

    where = reference(settings.assistant)
    digest = Adapter.digest_of(settings.assistant)[:10]
    return {"assistant": f"{where or 'a local file'}, sha256 {digest}"}


def intent(settings: TrainSettings) -> str:
    """For the line that says what will be done; "" without one."""
    return f"with the assistant {settings.assistant} while it is taught; " if settings.assistant else ""
