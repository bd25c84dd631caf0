"""The outcome of each stage of a job, in `artifacts/flow/JOB.json`, rewritten after every stage.

Scripts read it for the outcomes and the time that each stage took; no stage reads it. A cached stage keeps the seconds
and the start of the run that made its result.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from act.artifacts import ROOT
from act.errors import InputError
from act.results.flow import FlowRecord, Outcome, StageRun


class Record:
    """The rows of one job, in the order of its stages, safe to update from several threads.

    Args:
        folder: in which the stages run.
    """

    def __init__(self, job: str, stages: Sequence[str], folder: Path = Path()) -> None:
        self.job = job
        self.path = folder / path_of(job)
        self._lock = threading.Lock()
        try:
            before = {run.name: run for run in FlowRecord.read(self.path).stages}
        except InputError:
            before = {}
        waiting = {name: before.get(name, StageRun(name=name)) for name in stages}
        self.rows = {name: run.model_copy(update={"outcome": "waiting"}) for name, run in waiting.items()}
        self._write()

    def finish(self, name: str, outcome: Outcome, seconds: float | None, started: str) -> None:
        """Note how a stage ended; `seconds` is None where no work was done."""
        with self._lock:
            changes = {"outcome": outcome} | ({} if seconds is None else {"seconds": seconds, "started": started})
            self.rows[name] = self.rows[name].model_copy(update=changes)
            self._write()

    def leave(self, names: Iterable[str]) -> None:
        """Note that nothing had to be done for some stages."""
        for name in names:
            self.finish(name, "cached", None, now())

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        FlowRecord(job=self.job, stages=list(self.rows.values())).write(self.path)


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601 has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def path_of(job: str) -> Path:
    """Return where the record of a job is, in the folder in which its stages run."""
    return ROOT / "flow" / f"{job}.json"
