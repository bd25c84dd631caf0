"""What engines tell of how they run a model, in the results of several stages."""

from __future__ import annotations

from pydantic import Field

from act.results.artifact import Part


class Failure(Part):
    """Why there are no figures: a kind of `act.engines.FailureKind` and one line."""

    kind: str
    cause: str


class ExecutedOperators(Part):
    """What an engine executes."""

    multiplying: dict[str, dict[str, int]] = Field(default_factory=dict)  # kernels by precision and kind
    conversions: dict[str, int] = Field(default_factory=dict)  # (de)quantize operators that were not fused, by kind
    failure: Failure | None = None
