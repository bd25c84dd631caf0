"""Runs stages, each in a process group of its own: its output is passed on line by line, the group killed at need.

`reproduce` goes through DVC. `PlainJob` does without, for a job that nobody will run again.
"""

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from act.artifacts import stage_folder
from act.errors import USER_ERROR_EXIT_CODE, InputError
from act.settings import DEFAULT_PATH, load_job
from flows.record import Record
from tasks.select.learn import has_learned
from tasks.stage import CHECKOUT, described_stages

# The user's mistake; the command, by itself; something else on the machine; the flow.
Cause = Literal["input", "command", "outside", "stopped"]
How = Literal["ran", "restored", "unchanged"]
Emit = Callable[[str], None]

# Stages whose results are timings: anything beside them would spoil the figures.
ALONE = ("analyze", "benchmark")
BAR_SECONDS = 3.0
_TAIL_LINES = 30
_SHELL_ADDS_TO_A_SIGNAL = 128


@dataclass(eq=False)
class StageFailed(Exception):
    """A stage's command failed, or DVC could not run it."""

    stage: str
    message: str  # one line: the user's mistake, or how the command ended and its last words
    cause: Cause

    def __str__(self) -> str:
        return f"{self.stage}: {self.message}"


@dataclass(frozen=True)
class Ended:
    """A command's exit code, and the last lines that it wrote."""

    code: int
    lines: Sequence[str]

    def failure(self, stage: str, code: int) -> StageFailed:
        """Return what to raise where a stage's command ended with an exit code."""
        last = self.lines[-1].strip() if self.lines else "it said nothing"
        if code == USER_ERROR_EXIT_CODE:
            mistakes = [line.removeprefix("error: ") for line in self.lines if line.startswith("error: ")]
            return StageFailed(stage, mistakes[-1] if mistakes else last, "input")
        # The signal that an exit code of the shell's or of `subprocess` stands for.
        with suppress(ValueError):
            killer = signal.Signals(-code if code < 0 else code - _SHELL_ADDS_TO_A_SIGNAL)
            hint = "; is there enough memory?" if killer == signal.SIGKILL else ""
            return StageFailed(stage, f"its command was killed by {killer.name}{hint}", "outside")
        return StageFailed(stage, f"its command exited with {code}: {last}", "command")


class Turnstile:
    """Admits stages, at most `limit` at the same time, and those that measure time alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places = threading.Semaphore(limit)
        # Held by whoever waits for places, or a stream of short stages would keep out those that need all.
        self._gate = threading.Lock()

    @contextmanager
    def admit(self, kind: str) -> Iterator[None]:
        """Wait for admission, and leave at the end of the block."""
        taken = self._limit if kind in ALONE else 1
        with self._gate:
            for _ in range(taken):
                self._places.acquire()
        try:
            yield
        finally:
            self._places.release(taken)


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
        """Run a stage's command in a folder to its end; whatever ends it, nothing that it started outlives it.

        Args:
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
        ending = threading.Thread(target=_kill_at_end, args=(process.pid,), daemon=True)
        ending.start()
        try:
            lines = _pass_on(process, emit)
            ending.join()
        finally:
            with self._lock:
                _kill(process.pid)
                self._live.discard(process.pid)
            ending.join()
            process.wait()
        return Ended(process.returncode, lines)

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
    if "cause" in result:
        raise StageFailed(stage, **result)
    raise ended.failure(stage, result.get("exit_code", ended.code))


@dataclass(frozen=True)
class PlainJob:
    """The stages of one job in a folder of its own, in the order that `dvc.yaml` gives them, without DVC.

    Attributes:
        folder: in which the stages run, with a `params.yaml`; `flows.record` says there what became of each.
        emit: takes each line of output.
        after: what to do in this process once the stage of that name has ended well.
        stages: what `dvc.yaml` says of each.
    """

    job: str
    folder: Path
    emit: Emit
    after: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    groups: ProcessGroups = field(default_factory=ProcessGroups)
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=described_stages)

    def run(self) -> None:
        """Run every stage, and then those of other strategies as long as one is worth a try.

        Raises:
            InputError: a stage found the input wrong.
            RuntimeError: a stage failed.
        """
        self.run_once()
        while has_learned(self.job, load_job(self.job, self.folder / DEFAULT_PATH), self.emit, self.folder):
            self.run_again()

    def run_once(self) -> None:
        """Run every stage; errors as of `run`."""
        self._run(Record(self.job, list(self.stages), self.folder), self.stages)

    def run_again(self) -> None:
        """Select anew, and run what comes after it; just the report where the strategy is one that was carried out.

        What strategies made that were carried out before is kept in `attempts/JOB/`, until it is asked for again.
        Errors as of `run`.
        """
        names = list(self.stages)
        later = names[names.index("select") + 1 :]
        strategy = self.folder / stage_folder(self.job, "select") / "strategy.json"
        before, record = strategy.read_bytes(), Record(self.job, names, self.folder)
        self._run(record, ["select"], cached=names[: names.index("select")])
        chosen = strategy.read_bytes()
        is_known = chosen == before or self._kept(chosen).exists()
        if chosen != before:
            outs = [Path(out.replace("${key}", self.job)) for name in later for out in self.stages[name]["outs"]]
            for source, target in ((self.folder, self._kept(before)), (self._kept(chosen), self.folder)):
                for out in outs:
                    if (source / out).exists():
                        (target / out).parent.mkdir(parents=True, exist_ok=True)
                        (source / out).rename(target / out)
        self._run(record, later[-1:] if is_known else later, cached=later[:-1] if is_known else ())

    def _kept(self, strategy: bytes) -> Path:
        return self.folder / "attempts" / self.job / hashlib.sha256(strategy).hexdigest()[:16]

    def _run(self, record: Record, stages: Iterable[str], cached: Iterable[str] = ()) -> None:
        for stage in cached:
            record.finish(stage, "cached")
        for stage in stages:
            self.emit(f"[{list(self.stages).index(stage) + 1}/{len(self.stages)}] {stage} ...")
            began = time.monotonic()
            command = shlex.split(self.stages[stage]["cmd"].replace("${key}", shlex.quote(self.job)))
            command[0] = sys.executable
            ended = self.groups.run(stage, command, self.folder, lambda line: self.emit(f"  {line}"))
            if ended.code != 0:
                record.finish(stage, "failed")
                failure = ended.failure(stage, ended.code)
                if failure.cause == "input":
                    raise InputError(failure.message)
                raise RuntimeError(f"the stage {failure}; its files are in {self.folder}")
            record.finish(stage, "ran", time.monotonic() - began)
            if stage in self.after:
                self.after[stage]()


def _pass_on(process: subprocess.Popen[bytes], emit: Emit) -> Sequence[str]:
    """Pass a process's output on, line by line, and return the last lines."""
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    last_bar = time.monotonic()
    with io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace", newline="") as output:
        for line in output:
            text = line.rstrip()
            is_bar = line.endswith("\r")
            if not text or (is_bar and time.monotonic() - last_bar < BAR_SECONDS):
                continue
            if is_bar:
                last_bar = time.monotonic()
            else:
                last.append(text)
            emit(text)
    return last


def _kill_at_end(pid: int) -> None:
    """Kill what a command has started once it has ended itself, for that may hold open the output that is read."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    _kill(pid)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
