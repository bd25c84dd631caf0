"""`qat.json`: whether and how the quantized model was trained, and what that gave."""

from __future__ import annotations

from pydantic import Field

from act.results.artifact import Artifact
from act.results.training import ComparedPart, TrainingPoint


class Training(Artifact):
    """What training gave."""

    needed: bool  # whether it was done
    why: str
    start: str | None = None  # the candidate that it started from
    candidate: str | None = None  # name of the trained one; None where it is no better
    quality_before: float | None = None
    quality_after: float | None = None
    distillation: list[ComparedPart] = Field(default_factory=list)  # what was compared with the teachers
    history: list[TrainingPoint] = Field(default_factory=list)
