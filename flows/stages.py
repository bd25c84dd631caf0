"""Runs stages, each in a process group of its own: its output is passed on line by line, the group killed at need.

`reproduce` goes through DVC. `PlainJob` does without, for a job that nobody will run again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import yaml

from act.artifacts import stage_folder
from act.errors import USER_ERROR_EXIT_CODE, InputError
from flows.record import Record

Cause = Literal["input", "command", "outside", "stopped"]
How = Literal["ran", "restored", "unchanged"]
Emit = Callable[[str], None]

CHECKOUT = Path(__file__).parents[1]
BAR_SECONDS = 3.0
_TAIL_LINES = 30
_SHELL_ADDS_TO_A_SIGNAL = 128


class StageFailed(Exception):
    """A stage's command failed, or DVC could not run it.

    Attributes:
        message: one line: the user's mistake, or how the command ended and its last words.
        cause: `input`, the user's to mend; `command`, which failed by itself; `outside`, where something else on the
            machine was at fault; `stopped`, by the flow.
    """

    def __init__(self, stage: str, message: str, cause: Cause) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage
        self.message = message
        self.cause = cause


@dataclass(frozen=True)
class Ended:
    """A command's exit code, and the last lines that it wrote."""

    code: int
    lines: Sequence[str]

    def failure(self, stage: str, code: int | None = None) -> StageFailed:
        """Return what to raise where the stage's command ended with an exit code (default: this one's)."""
        code = self.code if code is None else code
        last = self.lines[-1].strip() if self.lines else "it said nothing"
        if code == USER_ERROR_EXIT_CODE:
            mistakes = [line.removeprefix("error: ") for line in self.lines if line.startswith("error: ")]
            return StageFailed(stage, mistakes[-1] if mistakes else last, "input")
        if (killer := _signal_of(code)) is not None:
            hint = "; is there enough memory?" if killer == signal.SIGKILL else ""
            return StageFailed(stage, f"its command was killed by {killer.name}{hint}", "outside")
        return StageFailed(stage, f"its command exited with {code}: {last}", "command")


class ProcessGroups:
    """The commands that run now, each as the leader of a group. Once all are killed, no further one starts.

    Args:
        locks: file descriptors that a command keeps open as long as it runs, and so longer than a flow that is killed.
        environment: what the commands find in theirs beside this process's.
    """

    def __init__(self, locks: Sequence[int] = (), environment: Mapping[str, str] | None = None) -> None:
        self._locks = locks
        # `python` in dvc.yaml is this interpreter, and a login shell that the user has set reads no files of its own.
        self._environment = {
            **(environment or {}),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            "SHELL": "/bin/sh",
        }
        self._live: set[int] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(
        self, stage: str, command: Sequence[str], folder: Path, emit: Emit, descriptors: Sequence[int] = ()
    ) -> Ended:
        """Run a stage's command to its end; whatever ends it, nothing that it started outlives it.

        Args:
            folder: in which it runs.
            emit: takes each line of output; of progress bars, which end in a carriage return, one now and then.
            descriptors: that it has open beside the locks.

        Raises:
            StageFailed: all was killed before.
        """
        with self._lock:
            if self.stopped:
                raise StageFailed(stage, "not started, because the flow was stopped", "stopped")
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(*self._locks, *descriptors),
            )
            self._live.add(process.pid)
        try:
            lines = _pass_on(process, emit)
            return Ended(process.wait(), lines)
        finally:
            with self._lock:
                _kill(process.pid)
                self._live.discard(process.pid)
            process.wait()

    def kill_all(self) -> None:
        """Kill every command that runs now, with all that it started."""
        with self._lock:
            self.stopped = True
            for group in self._live:
                _kill(group)


def reproduce(stage: str, root: Path, groups: ProcessGroups, emit: Emit) -> How:
    """Bring one stage up to date through DVC; tell whether it ran, was known from an earlier run or is unchanged.

    Raises:
        StageFailed: the stage's command failed, or DVC did.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader) as told:
        try:
            command = [sys.executable, "-m", "flows.reproduce", stage, str(writer)]
            ended = groups.run(stage, command, root, emit, [writer])
        finally:
            os.close(writer)
        result = json.loads(told.read() or "{}")
    if "how" in result:
        how: How = result["how"]
        return how
    if groups.stopped:
        raise StageFailed(stage, "stopped", "stopped")
    if "error" in result:
        raise StageFailed(stage, result["error"], "outside" if result["busy"] else "command")
    raise ended.failure(stage, result.get("exit_code"))


class PlainJob:
    """The stages of one job in a folder of its own, in the order that `dvc.yaml` gives them, without DVC.

    Args:
        folder: in which the stages run, with a `params.yaml`; `flows.record` says there what became of each.
        emit: takes each line of output.
        after: what to do in this process once the stage of that name has ended well.
    """

    def __init__(
        self,
        job: str,
        folder: Path,
        emit: Emit,
        after: Mapping[str, Callable[[], None]] | None = None,
        groups: ProcessGroups | None = None,
    ) -> None:
        self._job = job
        self._folder = folder
        self._emit = emit
        self._after = after or {}
        self._groups = groups or ProcessGroups()
        stages = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        self._stages: dict[str, Any] = {name: stage.get("do", stage) for name, stage in stages.items()}
        producers = {out: name for name, stage in self._stages.items() for out in stage["outs"]}
        needs = {
            name: [producers[dep] for dep in stage["deps"] if dep in producers] for name, stage in self._stages.items()
        }
        self.names = list(TopologicalSorter(needs).static_order())

    def run(self) -> None:
        """Run every stage, and then those of other strategies as long as one is worth a try.

        Raises:
            InputError: a stage found the input wrong.
            RuntimeError: a stage failed.
        """
        self.run_once()
        while self._learn():
            self.run_again()

    def run_once(self) -> None:
        """Run every stage; errors as of `run`."""
        self._run(self.names, Record(self._job, self.names, self._folder))

    def run_again(self) -> None:
        """Select anew, and run what comes after it; just the report where the strategy is one that was carried out.

        What strategies made that were carried out before is kept in `attempts/JOB/`, until it is asked for again.
        Errors as of `run`.
        """
        strategy = self._folder / stage_folder(self._job, "select") / "strategy.json"
        before = strategy.read_bytes()
        record = Record(self._job, self.names, self._folder)
        select = self.names.index("select")
        self._run(self.names[: select + 1], record, cached=self.names[:select])
        later, chosen = self.names[select + 1 :], strategy.read_bytes()
        is_known = chosen == before or self._kept(chosen).exists()
        if chosen != before:
            made = [Path(out.replace("${key}", self._job)) for name in later for out in self._stages[name]["outs"]]
            _move(made, self._folder, self._kept(before))
            _move(made, self._kept(chosen), self._folder)
        self._run(later, record, cached=later[:-1] if is_known else ())

    def _kept(self, strategy: bytes) -> Path:
        return self._folder / "attempts" / self._job / hashlib.sha256(strategy).hexdigest()[:16]

    def _learn(self) -> bool:
        """Note what the strategy came to; tell whether another one is worth a try, or the best is to be done again."""
        path = self._folder / "attempts" / f"{self._job}.json"
        before = path.read_bytes() if path.exists() else b""
        ended = self._start("learn", ["python", "-m", "tasks.select.learn", "--job", self._job])
        if ended.code != 0:
            raise RuntimeError(str(ended.failure("learn")))
        return (path.read_bytes() if path.exists() else b"") != before

    def _run(self, stages: Iterable[str], record: Record, cached: Collection[str] = ()) -> None:
        for stage in stages:
            if stage in cached:
                record.finish(stage, "cached")
                continue
            self._emit(f"[{self.names.index(stage) + 1}/{len(self.names)}] {stage} ...")
            began = time.monotonic()
            command = self._stages[stage]["cmd"].replace("${key}", shlex.quote(self._job))
            ended = self._start(stage, shlex.split(command))
            if ended.code != 0:
                record.finish(stage, "failed")
                failure = ended.failure(stage)
                if failure.cause == "input":
                    raise InputError(failure.message)
                raise RuntimeError(f"the stage {failure}; its files are in {self._folder}")
            record.finish(stage, "ran", time.monotonic() - began)
            if stage in self._after:
                self._after[stage]()

    def _start(self, stage: str, command: Sequence[str]) -> Ended:
        command = [sys.executable, *command[1:]]
        return self._groups.run(stage, command, self._folder, lambda line: self._emit(f"  {line}"))


def _pass_on(process: subprocess.Popen[bytes], emit: Emit) -> Sequence[str]:
    """Pass a process's output on, line by line, and return the last lines."""
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    last_bar = time.monotonic()
    with io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace", newline="") as output:
        for line in output:
            text = line.rstrip()
            if text and not line.endswith("\r"):
                last.append(text)
                emit(text)
            elif text and time.monotonic() - last_bar >= BAR_SECONDS:
                last_bar = time.monotonic()
                emit(text)
    return list(last)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _signal_of(code: int) -> signal.Signals | None:
    """Return the signal that an exit code of the shell's or of `subprocess` stands for."""
    try:
        return signal.Signals(-code if code < 0 else code - _SHELL_ADDS_TO_A_SIGNAL)
    except ValueError:
        return None


def _move(paths: Sequence[Path], source: Path, target: Path) -> None:
    for path in paths:
        if (source / path).exists():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).rename(target / path)
