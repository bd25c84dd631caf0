"""`flow/JOB.json` and `eval_callback.json`: what happened to each stage of a job, and what the user's callback gave."""

from typing import Literal

from act.results.artifact import Artifact, Part

Outcome = Literal["waiting", "ran", "cached", "failed"]


class StageRun(Part):
    """One stage: its outcome, and of its last real work the seconds (None: unknown) and the start (UTC)."""

    name: str
    outcome: Outcome = "waiting"
    seconds: float | None = None
    started: str | None = None


class FlowRecord(Artifact):
    """The stages of a job in order, as the last run of the flow left them."""

    job: str
    stages: list[StageRun]


class CallbackMetrics(Artifact):
    """The figure of each candidate by name, and the one that was deployed, once that is known."""

    metrics: dict[str, float]
    deployed: str | None = None
