"""What is trained: kind, size and place of the adapter."""

from __future__ import annotations

from pydantic import Field

from adapt.config.fields import Finite, Section


class NetworkSettings(Section):
    """What is trained: kind, size and place of the adapter."""

    rank: int = Field(16, ge=1, le=1024, description="r of LoRA")
    alpha: Finite | None = Field(None, gt=0, description="strength of LoRA; None: the rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout")
    targets: tuple[str, ...] | None = Field(None, description="ends of layer names; None: the family's")
    ema: float = Field(0.98, ge=0, lt=1, description="decay of the moving average that is kept as the adapter; 0: off")
