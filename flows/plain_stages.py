"""The stages of one job in a folder of its own, in the order that `dvc.yaml` gives them, without DVC.

For a job that nobody will run again: `flows.auto_compression`. Each stage is a process of its own, as DVC starts it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from act.artifacts import stage_folder
from act.errors import USER_ERROR_EXIT_CODE, InputError
from flows.record import Record
from flows.run_stage import stream

CHECKOUT = Path(__file__).parents[1]


def commands(job: str) -> dict[str, list[str]]:
    """The command of every stage, each after those whose results it reads."""
    described = _described()
    makers = {out: name for name, stage in described.items() for out in stage["outs"]}
    needs = {name: {makers[dep] for dep in stage["deps"] if dep in makers} for name, stage in described.items()}
    order = TopologicalSorter(needs).static_order()
    return {name: shlex.split(described[name]["cmd"].replace("${key}", shlex.quote(job))) for name in order}


def run(
    job: str, folder: Path, emit: Callable[[str], None], after: Mapping[str, Callable[[], None]] | None = None
) -> None:
    """Run every stage of a job.

    Args:
        folder: with `params.yaml`; what the stages write comes there, and what became of each as `flows.record` has it.
        emit: takes each line of output.
        after: what to do in this process once the stage of that name has ended well.

    Raises:
        InputError: a stage found the input wrong.
        RuntimeError: a stage failed.
    """
    names = list(commands(job))
    _run_stages(job, folder, emit, after, names, Record(job, names, folder))


def run_again(
    job: str, folder: Path, emit: Callable[[str], None], after: Mapping[str, Callable[[], None]] | None = None
) -> None:
    """Select anew, and run what comes after it; just the report where the strategy is one that was carried out.

    What strategies made that were carried out before is kept in `attempts/JOB/`, until it is asked for again.

    Args:
        folder, emit, after: as for `run`.

    Raises:
        InputError, RuntimeError: as `run`.
    """
    strategy = folder / stage_folder(job, "select") / "strategy.json"
    before = strategy.read_bytes()
    names = list(commands(job))
    earlier, later = names[: names.index("select")], names[names.index("select") + 1 :]
    record = Record(job, names, folder)
    _leave(earlier, record)
    _run_stages(job, folder, emit, after, ["select"], record)
    chosen = strategy.read_bytes()
    kept = folder / "attempts" / job
    there = kept / _short(chosen)
    if chosen != before:
        made = [Path(out.replace("${key}", job)) for stage in later for out in _described()[stage]["outs"]]
        _move(made, folder, kept / _short(before))
        if there.exists():
            _move(made, there, folder)
    if chosen == before or there.exists():
        _leave(later[:-1], record)
        later = later[-1:]
    _run_stages(job, folder, emit, after, later, record)


def _leave(stages: Sequence[str], record: Record) -> None:
    for stage in stages:
        record.finish(stage, "cached", None, "")


def _run_stages(
    job: str,
    folder: Path,
    emit: Callable[[str], None],
    after: Mapping[str, Callable[[], None]] | None,
    stages: Sequence[str],
    record: Record,
) -> None:
    ordered = commands(job)
    names = list(ordered)
    for stage in stages:
        emit(f"[{names.index(stage) + 1}/{len(names)}] {stage} ...")
        started, began = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.monotonic()
        lines, code = _run(ordered[stage], folder, emit)
        if code != 0:
            record.finish(stage, "failed", None, started)
        else:
            record.finish(stage, "ran", time.monotonic() - began, started)
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if code == USER_ERROR_EXIT_CODE and errors:
            raise InputError(errors[-1])
        if code != 0:
            last = lines[-1] if lines else "it said nothing"
            raise RuntimeError(f"the stage `{stage}` ended with {code}: {last}; its files are in {folder}")
        if after and stage in after:
            after[stage]()


def _described() -> dict[str, Any]:
    stages = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def _short(strategy: bytes) -> str:
    return hashlib.sha256(strategy).hexdigest()[:16]


def _move(paths: Sequence[Path], source: Path, target: Path) -> None:
    for path in paths:
        if (source / path).exists():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).rename(target / path)


def learn(job: str, folder: Path, emit: Callable[[str], None]) -> bool:
    """Note what the strategy came to; whether another one is worth a try, or the best is to be done again.

    Args:
        folder: in which `run` ran.
        emit: takes each line of output.

    Raises:
        RuntimeError: it cannot be told.
    """
    path = folder / "attempts" / f"{job}.json"
    before = path.read_bytes() if path.exists() else b""
    lines, code = _run(["python", "-m", "tasks.select.learn", "--job", job], folder, emit)
    if code != 0:
        raise RuntimeError(f"`tasks.select.learn` ended with {code}: {lines[-1] if lines else 'it said nothing'}")
    return (path.read_bytes() if path.exists() else b"") != before


def _run(command: Sequence[str], folder: Path, emit: Callable[[str], None]) -> tuple[list[str], int]:
    """The last lines of a command, and its exit code."""
    path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, *command[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        lines, _ = stream(process, lambda line: emit(f"  {line}"))
        return list(lines), process.wait()
    finally:
        # Whatever ends this, nothing that the command started outlives it.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
