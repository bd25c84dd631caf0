"""`refine.json`: every attempt to make a candidate of the search better."""

from __future__ import annotations

from act.results.artifact import Artifact, Part


class Attempt(Part):
    """One method on one candidate.

    Attributes:
        candidate: its id before.
        quality: None where the method failed.
        kept: whether the quality rose.
    """

    candidate: str
    method: str
    quality_before: float
    quality: float | None
    kept: bool
    failure: str | None


class Refinements(Artifact):
    """All attempts, in order."""

    attempts: list[Attempt]
