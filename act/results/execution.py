"""What engines tell of how they run a model, in the results of several stages."""

from __future__ import annotations

from pydantic import Field

from act.results.artifact import Part


class Failure(Part):
    """Why there are no figures: a kind of `act.engines.FailureKind` and one line."""

    kind: str
    cause: str


class ExecutedOperators(Part):
    """What an engine executes.

    Attributes:
        multiplying: kernels that multiply matrices, by precision and kind.
        conversions: quantize and dequantize operators that were not fused, by kind.
    """

    multiplying: dict[str, dict[str, int]] = Field(default_factory=dict)
    conversions: dict[str, int] = Field(default_factory=dict)
    failure: Failure | None = None
