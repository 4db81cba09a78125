"""What is measured, saved and drawn while a run trains."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from adapt.config.fields import Finite, Section, show

Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


class WatchingSettings(Section):
    """What is measured, saved and drawn while a run trains."""

    save_every: int = show(100, "steps between checkpoints", ge=1)
    validate_every: int = show(50, "steps between measurements of the held-out loss", ge=1)
    validate_at: Literal["even", "log"] = show(
        "even", "even: every validate_every steps; log: from an eighth of it on, each time √2 times later than before"
    )
    validation_times: int = Field(8, ge=1, description="times at which every held-out picture is measured")
    validation_pairs: bool = Field(
        False, description="at every time also with the negative noise (antithetic): sharper, twice the work"
    )
    validation_members: int | None = show(
        None, "training pictures measured beside them, to see memorising; None: as many; 0: none", ge=0
    )
    keep: Literal["best", "ema", "raw"] = Field(
        "best", description="weights that may become the adapter: the moving average, the last step's, or the better"
    )
    preview_every: int = show(200, "steps between previews", ge=1)
    previews: tuple[str, ...] | str = show(
        (), "prompts drawn as previews and samples, or a prompt file; none: the first captions"
    )
    guidance_scale: Finite | None = show(None, "of previews and samples; None: the family's", ge=1)
    sampling_steps: int | None = show(None, "of previews and samples; None: the family's", ge=1)
    trackers: tuple[Tracker, ...] = show((), "where events are also sent: tensorboard, wandb, trackio, mlflow")

    @field_validator("trackers", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """`trackers=wandb` is a list of one."""
        return (value,) if isinstance(value, str) else value

    @field_validator("previews")
    @classmethod
    def _prompts(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if value == "":
            raise ValueError("a prompt file has a name; prompts are written [red fox, tulip]")
        return value
