"""What adapters know beside words. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapt.errors import SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Known:
    """What adapters know beside words.

    Attributes:
        labels: classes that they draw.
        images: whether they take a reference picture.
        controls: whether they draw along a control picture.
    """

    labels: tuple[str, ...] = ()
    images: bool = False
    controls: bool = False

    @staticmethod
    def of(conditioners: Mapping[str, Any]) -> Known:
        """What these conditioners know, by the part that they make."""
        return Known(
            tuple(getattr(conditioners.get("class"), "labels", ())), "image" in conditioners, "control" in conditioners
        )

    def __or__(self, other: Known) -> Known:
        """What either knows."""
        return Known(
            (*self.labels, *(label for label in other.labels if label not in self.labels)),
            self.images or other.images,
            self.controls or other.controls,
        )

    def followed(self, control: Image | None, width: int, height: int) -> Image | None:
        """The control. Raises `SettingsError` when no adapter takes one, or for one of another size."""
        if control is not None and not self.controls:
            raise SettingsError("there is nothing that draws along a control", given="control",
                                next="--controlnet FOLDER, or --adapter PATH trained with control=edges")  # fmt: skip
        if control is not None and control.size != (width, height):
            raise SettingsError("the control has another size than the drawing", given=f"{control.width}x{control.height}",
                                allowed=f"{width}x{height}", next="resize it, or give --size")  # fmt: skip
        return control

    def judged(self, image_prompt: Image | None) -> Image | None:
        """The reference picture. Raises `SettingsError` when no adapter takes one."""
        if image_prompt is not None and not self.images:
            raise SettingsError("there is nothing that takes a reference picture", given="image_prompt",
                                next="--ip-adapter FILE, or --adapter PATH trained with image_prompts=true")  # fmt: skip
        return image_prompt
