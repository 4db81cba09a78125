"""What is measured, saved and drawn while a run trains."""

from __future__ import annotations

from pydantic import Field

from adapt.config.fields import Finite, Section, show


class WatchingSettings(Section):
    """What is measured, saved and drawn while a run trains."""

    save_every: int = show(100, "steps between checkpoints", ge=1)
    validate_every: int = show(50, "steps between measurements of the held-out loss", ge=1)
    validation_times: int = Field(8, ge=1, description="times at which every held-out picture is measured")
    preview_every: int = show(200, "steps between previews", ge=1)
    previews: tuple[str, ...] = show((), "prompts drawn as previews and samples; none: the first captions")
    guidance_scale: Finite | None = show(None, "of previews and samples; None: the family's", ge=1)
    sampling_steps: int | None = show(None, "of previews and samples; None: the family's", ge=1)
