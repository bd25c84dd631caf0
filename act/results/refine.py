"""`refine.json`: every attempt to make a candidate of the search better."""

from __future__ import annotations

from act.results.artifact import Artifact, Part


class Attempt(Part):
    """One method on one candidate."""

    candidate: str  # its id before
    method: str
    quality_before: float
    quality: float | None  # None where the method failed
    kept: bool  # whether the quality rose
    failure: str | None


class Refinements(Artifact):
    """All attempts, in order."""

    attempts: list[Attempt]
