"""Toy pipelines with real DVC and real Prefect, in which every stage does in a moment what it is told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo

CHECKOUT = Path(__file__).parents[2]
JOB = {
    "model": {"path": "inputs"},
    "data": {"reader": "arrays", "path": "inputs"},
    "metric": "similarity",
    "target": {},
    "budget": {"max_quality_drop": 0.01},
    "strategy": "auto",
    "calibration": {},
    "ptq_search": {},
    "refine": {},
    "distillation": {},
    "prune": {},
    "qat": {},
    "benchmark": {},
}
# What each stage reads. `select` and `export` may run side by side. `analyze` has a name whose results are timings and
# comes after both: while it waits to be alone, nothing else begins.
GRAPH = {
    "prepare": [],
    "select": ["prepare"],
    "export": ["prepare"],
    "analyze": ["select", "export"],
    "report": ["analyze"],
}
STAGE = """
import json, os, subprocess, sys, time
from pathlib import Path

stage, job = sys.argv[1:]
name = f"{stage}@{job}"
told = json.loads(Path("told.json").read_text()).get(name, {})
log = lambda what: open("log.txt", "a").write(f"{time.time()} {what} {name}\\n")
log("begin")
print(f"{name} at work")
if "child" in told:
    child = subprocess.Popen(["sleep", "60"])
    Path("child.pid").write_text(str(child.pid))
time.sleep(told.get("seconds", 0))
deadline = time.time() + 60
while "meets" in told and f"begin {told['meets']}" not in open("log.txt").read() and time.time() < deadline:
    time.sleep(0.05)
log("end")
if told.get("kill_self_once") and not Path("killed").exists():
    Path("killed").touch()
    os.kill(os.getpid(), 9)
if "exit" in told:
    print(told.get("say", "no words"), file=sys.stderr)
    sys.exit(told["exit"])
folder = Path("artifacts", job, stage)
folder.mkdir(parents=True)
folder.joinpath("result").write_text(Path("inputs", f"{job}.txt").read_text() if stage == "prepare" else "fixed")
"""


@dataclass(frozen=True)
class Event:
    """A line of the toy's log."""

    seconds: float
    what: str
    stage: str


class Toy:
    """A git and DVC repository with a toy pipeline."""

    def __init__(self, folder: Path, jobs: list[str]) -> None:
        self.folder = folder
        (folder / "inputs").mkdir(parents=True)
        for job in jobs:
            (folder / "inputs" / f"{job}.txt").write_text("first")
        (folder / "stage.py").write_text(textwrap.dedent(STAGE))
        (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": dict.fromkeys(jobs, JOB)}))
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {name: self._stage(name) for name in GRAPH}}))
        (folder / ".gitignore").write_text("/artifacts/\n/.prefect/\n")
        self.tell({})
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        Repo.init(str(folder)).close()

    @staticmethod
    def _stage(name: str) -> dict[str, Any]:
        deps = [f"artifacts/${{key}}/{other}" for other in GRAPH[name]] or ["inputs/${key}.txt"]
        return {
            "foreach": "${jobs}",
            "do": {
                "cmd": f"python stage.py {name} ${{key}}",
                "deps": deps,
                "params": ["jobs.${key}.budget"] if name == "select" else [],
                "outs": [f"artifacts/${{key}}/{name}"],
            },
        }

    def tell(self, orders: Mapping[str, Mapping[str, Any]]) -> None:
        """Say how stages behave: `seconds`, `meets` (a stage to wait for), `exit`, `say`, `child`, `kill_self_once`."""
        (self.folder / "told.json").write_text(json.dumps(orders))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `python -m flows.compress ARGUMENTS`, in a group of its own as a terminal does."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.compress", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # What was started in the background ignores SIGINT, and its children would, too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m flows.compress ARGUMENTS` to its end."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def outcomes(self, job: str) -> dict[str, str]:
        """Return what the record says of each stage."""
        return {row["name"]: row["outcome"] for row in self.record(job)["stages"]}

    def record(self, job: str) -> dict[str, Any]:
        """Read the record of a job."""
        content: dict[str, Any] = json.loads((self.folder / "artifacts" / "flow" / f"{job}.json").read_text())
        return content

    def events(self) -> list[Event]:
        """Read the toy's log, in order of time; empty when no stage has begun."""
        path = self.folder / "log.txt"
        if not path.exists():
            return []
        parts = [line.split() for line in path.read_text().splitlines()]
        return sorted((Event(float(when), what, stage) for when, what, stage in parts), key=lambda event: event.seconds)

    def spans(self) -> dict[str, tuple[float, float]]:
        """Return when each stage last began and ended."""
        begin = {event.stage: event.seconds for event in self.events() if event.what == "begin"}
        end = {event.stage: event.seconds for event in self.events() if event.what == "end"}
        return {stage: (begin[stage], end[stage]) for stage in end}
