"""`budget`: what the user will give for speed."""

from __future__ import annotations

from pydantic import Field

from act.settings.base import Settings

ROUNDING = 1e-9
"""A drop is a mean over samples: 0.01 of 500 samples must not miss a budget of 0.01 by a rounding error."""
CLEARLY = 2.0
"""So many times the quality that may be lost is clearly too much: no training is expected to win it back."""


class Budget(Settings):
    """What the user will give for speed."""

    max_quality_drop: float = Field(default=0.01, ge=0, le=1, description="in units of the quality metric")
    min_speedup: float = Field(
        default=1.0, ge=1.0, le=1000, description="a winner other than fp32 is at least this many times faster than it"
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="a winner's median latency for one batch is at most this"
    )
    time_limit_minutes: float | None = Field(
        default=None, gt=0, description="no further strategy is tried that is expected to end later than this"
    )
