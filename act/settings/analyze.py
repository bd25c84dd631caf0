"""`analyze`: how sensitivity is measured."""

from __future__ import annotations

from pydantic import Field

from act.settings.base import Ascending, Settings, Share


class Analyze(Settings):
    """How each layer's sensitivity is measured; 0 samples or 0 seconds measure none."""

    samples: int = Field(default=8, ge=0, le=1024, description="calibration samples, at most")
    prune_ratios: Ascending[Share] = Field(default=[0.1, 0.3, 0.5], description="shares of a layer's channels")
    time_limit_seconds: float = Field(default=60, ge=0, le=24 * 3600, description="after which no layer is begun")
