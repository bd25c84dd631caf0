"""`eval_callback.json`: what the user's callback gave for each candidate."""

from __future__ import annotations

from act.results.artifact import Artifact


class CallbackMetrics(Artifact):
    """The figure of each candidate by name, and the one that was deployed, once that is known."""

    metrics: dict[str, float]
    deployed: str | None = None
