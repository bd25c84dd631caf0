"""`qat.json`: whether and how the quantized model was trained, and what that gave."""

from __future__ import annotations

from pydantic import Field

from act.results.artifact import Artifact
from act.results.training import ComparedPart, TrainingPoint


class Training(Artifact):
    """What training gave.

    Attributes:
        needed: whether it was done.
        start: the candidate that it started from.
        candidate: name of the trained one, which lies in `model/` and `scheme.json`; None where it is no better.
        distillation: what was compared with the teachers.
    """

    needed: bool
    why: str
    start: str | None = None
    candidate: str | None = None
    quality_before: float | None = None
    quality_after: float | None = None
    distillation: list[ComparedPart] = Field(default_factory=list)
    history: list[TrainingPoint] = Field(default_factory=list)
