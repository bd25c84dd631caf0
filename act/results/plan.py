"""`plan.json`: which candidates go on, and whether and where training starts."""

from __future__ import annotations

from act.results.artifact import Artifact


class Plan(Artifact):
    """The decision between refinement and training; without figures, so that a changed budget alone redoes nothing."""

    keep: list[str]  # candidates of `refine` that are worth exporting
    train: bool  # whether training is done
    start: str | None  # the candidate that training starts from
