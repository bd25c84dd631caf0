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
from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from act.artifacts import stage_folder
from act.errors import USER_ERROR_EXIT_CODE, InputError
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
    job: str,
    folder: Path,
    emit: Callable[[str], None],
    after: Mapping[str, Callable[[], None]] | None = None,
    begin: str | None = None,
    end: str | None = None,
) -> None:
    """Run every stage of a job.

    Args:
        folder: with `params.yaml`; what the stages write comes there.
        emit: takes each line of output.
        after: what to do in this process once the stage of that name has ended well.
        begin: the stage to begin with, where those before it have run already; all are run when left out.
        end: the last stage to run; all are run when left out.

    Raises:
        InputError: a stage found the input wrong.
        RuntimeError: a stage failed.
    """
    ordered = commands(job)
    names = list(ordered)
    for stage in names[names.index(begin) if begin else 0 : names.index(end) + 1 if end else None]:
        emit(f"[{names.index(stage) + 1}/{len(names)}] {stage} ...")
        lines, code = _run(ordered[stage], folder, emit)
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if code == USER_ERROR_EXIT_CODE and errors:
            raise InputError(errors[-1])
        if code != 0:
            last = lines[-1] if lines else "it said nothing"
            raise RuntimeError(f"the stage `{stage}` ended with {code}: {last}; its files are in {folder}")
        if after and stage in after:
            after[stage]()


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
    run(job, folder, emit, after, "select", "select")
    chosen = strategy.read_bytes()
    if chosen == before:
        run(job, folder, emit, after, "report")
        return
    names = list(commands(job))
    later = names[names.index("select") + 1 :]
    made = [Path(out.replace("${key}", job)) for stage in later for out in _described()[stage]["outs"]]
    kept = folder / "attempts" / job
    _move(made, folder, kept / _short(before))
    there = kept / _short(chosen)
    if there.exists():
        _move(made, there, folder)
    run(job, folder, emit, after, "report" if there.exists() else later[0])


def _described() -> dict[str, Any]:
    stages = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage["do"] for name, stage in stages.items()}


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
    lines, code = _run(["python", "-m", "tasks.analyze.learn", "--job", job], folder, emit)
    if code != 0:
        raise RuntimeError(f"`tasks.analyze.learn` ended with {code}: {lines[-1] if lines else 'it said nothing'}")
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
