"""`flow/JOB.json`: what happened to each stage of a job."""

from __future__ import annotations

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
