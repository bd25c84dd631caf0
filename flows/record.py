"""The outcome of each stage of a job, in `artifacts/flow/JOB.json`, rewritten after every stage.

Scripts read it for the outcomes and the time that each stage took; no stage reads it. A cached stage keeps the seconds
and the start of the run that made its result.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from act.artifacts import ROOT
from act.errors import InputError
from act.results.flow import FlowRecord, Outcome, StageRun


class Record:
    """The rows of one job, whose stages run in a folder, in their order; safe to update from several threads."""

    def __init__(self, job: str, stages: Sequence[str], folder: Path = Path()) -> None:
        self.job = job
        self.path = folder / path_of(job)
        self._lock = threading.Lock()
        self.rows = {name: StageRun(name=name) for name in stages}
        with suppress(InputError):
            before = {run.name: run for run in FlowRecord.read(self.path).stages if run.name in self.rows}
            self.rows |= {name: run.model_copy(update={"outcome": "waiting"}) for name, run in before.items()}
        self._write()

    def finish(self, name: str, outcome: Outcome, seconds: float | None = None) -> None:
        """Note how a stage ended; `seconds` are those of work that has just ended well."""
        changes: dict[str, Any] = {"outcome": outcome}
        if seconds is not None:
            started = datetime.now(timezone.utc) - timedelta(seconds=seconds)
            changes |= {"seconds": seconds, "started": started.isoformat(timespec="seconds")}
        with self._lock:
            self.rows[name] = self.rows[name].model_copy(update=changes)
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        FlowRecord(job=self.job, stages=list(self.rows.values())).write(self.path)


def path_of(job: str) -> Path:
    """Return where the record of a job is, in the folder in which its stages run."""
    return ROOT / "flow" / f"{job}.json"
