"""`plan.json`: which candidates go on, and whether and where training starts."""

from __future__ import annotations

from act.results.artifact import Artifact


class Plan(Artifact):
    """The decision between refinement and training. It holds no figure, so that a changed budget alone redoes nothing.

    Attributes:
        keep: candidates of `refine` that are worth exporting.
        train: whether training is done.
        start: the candidate that training starts from.
    """

    keep: list[str]
    train: bool
    start: str | None
