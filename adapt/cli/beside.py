"""`--controlnet` and `--ip-adapter`: published networks that stand beside the base while it draws. Judged without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.cli.scaled import scale_of
from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.backbones import Backbone
    from adapt.sampling.request import Request


@dataclass(frozen=True)
class Beside:
    """Attributes:
    controlnet: a folder or a Hub id; None: none.
    ip_adapter: a file, here or on the Hub; None: none.
    scale: of the IP-Adapter.
    """

    controlnet: str | None = None
    ip_adapter: str | None = None
    scale: float = 1.0

    @staticmethod
    def of(controlnet: str | None, ip_adapter: str | None, requests: Sequence[Request]) -> Beside:
        """The options, with the pictures that they are about, which some of the requests have.

        Raises:
            SettingsError: one without its picture, or a scale that is no number.
        """
        if controlnet and all(request.control is None for request in requests):
            raise SettingsError("--controlnet follows a picture", given=controlnet, next="--control PICTURE")
        if ip_adapter and all(request.image_prompt is None for request in requests):
            raise SettingsError("--ip-adapter looks at a picture", given=ip_adapter, next="--image-prompt PICTURE")
        head, colon, tail = (ip_adapter or "").rpartition(":")
        if colon and not Path(ip_adapter or "").exists():
            return Beside(controlnet, head, scale_of(tail, str(ip_adapter)))
        return Beside(controlnet, ip_adapter)

    def judge(self) -> None:
        """They are there and are what they should be; those of the Hub are fetched.

        Raises:
            AdapterError, TransferError, HubError: see `network_folder` and `check_file`.
        """
        from adapt.fetch.network import CONTROL_NET, ip_adapter_file, network_folder
        from adapt.formats.opening import check_file

        if self.controlnet:
            network_folder(self.controlnet, CONTROL_NET, "ControlNet")
        if self.ip_adapter:
            check_file(ip_adapter_file(self.ip_adapter))

    @contextmanager
    def on(self, backbone: Backbone) -> Iterator[dict[str, str]]:
        """The base with them, inside the `with`; what a picture's file says of them."""
        from adapt.adapter.control_net import ControlNet
        from adapt.sampling.ip_adapter import IPAdapter

        said: dict[str, str] = {}
        with ExitStack() as stack:
            if self.controlnet:
                stack.enter_context(ControlNet.load(self.controlnet).on(backbone))
                said["ControlNet"] = Path(self.controlnet).name
            if self.ip_adapter:
                stack.enter_context(IPAdapter.load(self.ip_adapter, scale=self.scale).on(backbone))
                said["IP-Adapter"] = f"{Path(self.ip_adapter).stem}:{self.scale:g}"
            yield said
