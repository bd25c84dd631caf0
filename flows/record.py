"""The outcome of each stage of a job, in `artifacts/flow/JOB.json`, rewritten after every stage.

Scripts read it for the outcomes and the time that each stage took; no stage reads it. A cached stage keeps the seconds
and the start of the run that made its result.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from act.artifacts import ROOT, read_json, write_json
from act.errors import InputError

Outcome = Literal["waiting", "ran", "cached", "failed"]


@dataclass
class Row:
    """One stage: its outcome, and of its last real work the seconds (None: unknown) and the start (UTC)."""

    name: str
    outcome: Outcome = "waiting"
    seconds: float | None = None
    started: str | None = None


class Record:
    """The rows of one job, safe to update from several threads.

    Args:
        job: the job's name.
        stages: names of that job's, in order.
        folder: in which the stages run.
    """

    def __init__(self, job: str, stages: Sequence[str], folder: Path = Path()) -> None:
        self.job = job
        self.path = folder / path_of(job)
        self._lock = threading.Lock()
        before = _read(self.path)
        self.rows = {name: Row(name, "waiting", *before.get(name, (None, None))) for name in stages}
        self._write()

    def finish(self, name: str, outcome: Outcome, seconds: float | None, started: str) -> None:
        """Note how a stage ended; `seconds` is None where no work was done."""
        with self._lock:
            row = self.rows[name]
            row.outcome = outcome
            if seconds is not None:
                row.seconds, row.started = seconds, started
            self._write()

    def leave(self, names: Iterable[str]) -> None:
        """Note that nothing had to be done for some stages."""
        for name in names:
            self.finish(name, "cached", None, now())

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"job": self.job, "stages": [asdict(row) for row in self.rows.values()]})


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601 has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def path_of(job: str) -> Path:
    """Return where the record of a job is, in the folder in which its stages run."""
    return ROOT / "flow" / f"{job}.json"


def _read(path: Path) -> dict[str, tuple[float | None, str | None]]:
    try:
        return {row["name"]: (row["seconds"], row["started"]) for row in read_json(path)["stages"]}
    except (InputError, KeyError, TypeError):
        return {}
