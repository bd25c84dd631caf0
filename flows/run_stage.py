"""One stage in a process group of its own: `dvc repro --single-item`, its output streamed, the group killed at need.

DVC's own exit code hides the command's, so its log is read: it tells whether the stage ran, was restored or was
unchanged, and with which code its command ended.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from act.errors import USER_ERROR_EXIT_CODE

Cause = Literal["input", "command", "outside", "stopped"]
How = Literal["ran", "restored", "unchanged"]

BAR_SECONDS = 3.0
_TAIL_LINES = 30
_UNCHANGED = re.compile(r"^(Stage )?'.*' didn't change, skipping")
_RESTORED = re.compile(r"^Stage '.*' is cached - skipping run")
_EXITED = re.compile(r"exited with (-?\d+)")
_BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
# What DVC says to its own users around every run.
_CHATTER = re.compile(
    r"^(Running stage '|> |Updating lock file|Generating lock file|Use `dvc push`|To track the changes|To enable auto|"
    r"\s+git add |\s+dvc config |Stage '.*skipping|'.*' didn't change|Data and pipelines|Restored stage|"
    r"ERROR: failed to reproduce|Verifying data sources|WARNING: Process '.*had been killed)"
)
_SHELL_ADDS_TO_A_SIGNAL = 128


class StageFailed(Exception):
    """A stage's command failed, or DVC could not run it.

    Attributes:
        stage: its name.
        message: the one line that names the user's mistake, or how the command ended and its last words.
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
    """How a stage ended well, and the seconds that it took.

    Attributes:
        how: `ran`; `restored`, where DVC knew the result from an earlier run; or `unchanged`.
        seconds: from start to end.
    """

    how: How
    seconds: float


class ProcessGroups:
    """The stages that run now. Once all are killed, no further one starts.

    Args:
        locks: file descriptors that DVC keeps open as long as it runs, and so longer than a flow that is killed.
        environment: what the stages find in theirs beside this process's.
    """

    def __init__(self, locks: Sequence[int] = (), environment: Mapping[str, str] | None = None) -> None:
        self._locks = locks
        self._environment = environment or {}
        self._live: set[int] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def start(self, stage: str, root: Path) -> subprocess.Popen[bytes]:
        """Start `dvc repro` of one stage as the leader of a new group.

        Raises:
            StageFailed: all was killed before.
        """
        # Stages of other jobs hold DVC's lock for moments only, so waiting for it is right.
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
        # `python` in dvc.yaml is this interpreter, and a login shell that the user has set reads no files of its own.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        with self._lock:
            if self.stopped:
                raise StageFailed(stage, "not started, because the flow was stopped", "stopped")
            process = subprocess.Popen(
                command,
                cwd=root,
                env={**os.environ, **self._environment, "PATH": path, "SHELL": "/bin/sh", "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._locks,
            )
            self._live.add(process.pid)
            return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what is left of a group: a killed leader leaves its children behind."""
        with self._lock:
            _kill(process.pid)
            self._live.discard(process.pid)
        process.wait()

    def kill_all(self) -> None:
        """Kill every stage that runs now, with all that it started."""
        with self._lock:
            self.stopped = True
            for group in self._live:
                _kill(group)


def run_stage(name: str, root: Path, groups: ProcessGroups, emit: Callable[[str], None]) -> Ended:
    """Bring one stage up to date.

    Args:
        name: as DVC names it.
        root: the checkout.
        groups: where its process group is noted while it runs.
        emit: takes each line of output.

    Raises:
        StageFailed: the stage's command failed, or DVC did.
    """
    started = time.monotonic()
    process = groups.start(name, root)
    try:
        lines, how = stream(process, emit)
        code = process.wait()
    finally:
        groups.end(process)
    if code != 0:
        raise _failure(name, lines, groups.stopped)
    return Ended(how, time.monotonic() - started)


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stream(process: subprocess.Popen[bytes], emit: Callable[[str], None]) -> tuple[list[str], How]:
    """Pass a process's output on, line by line, and give the last lines and what DVC said of the stage.

    Progress bars, which are lines that end in a carriage return, are passed on only now and then.
    """
    assert process.stdout is not None
    lines: list[str] = []
    how: How = "ran"
    buffer, last_bar = b"", time.monotonic()
    with process.stdout as stdout:
        while chunk := os.read(stdout.fileno(), 1 << 16):
            buffer += chunk
            while end := re.search(rb"\r?\n|\r", buffer):
                # A carriage return at the very end may be half of a line's end.
                if end.group() == b"\r" and end.end() == len(buffer):
                    break
                line = buffer[: end.start()].decode(errors="replace").rstrip()
                bar, buffer = end.group() == b"\r", buffer[end.end() :]
                if not line:
                    continue
                if bar:
                    if time.monotonic() - last_bar >= BAR_SECONDS:
                        last_bar = time.monotonic()
                        emit(line)
                    continue
                if _UNCHANGED.match(line):
                    how = "unchanged"
                elif _RESTORED.match(line):
                    how = "restored"
                lines = [*lines[-_TAIL_LINES:], line]
                if not _CHATTER.match(line):
                    emit(line)
    return lines, how


def _failure(name: str, lines: list[str], stopped: bool) -> StageFailed:
    if stopped:
        return StageFailed(name, "stopped", "stopped")
    codes = [int(match.group(1)) for line in lines if (match := _EXITED.search(line))]
    said = [line for line in lines if not _CHATTER.match(line)]
    last = said[-1].strip() if said else "it said nothing"
    if codes and codes[-1] == USER_ERROR_EXIT_CODE:
        mistakes = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        return StageFailed(name, mistakes[-1] if mistakes else last, "input")
    if codes and (killer := _signal_of(codes[-1])) is not None:
        hint = "; is there enough memory?" if killer == signal.SIGKILL else ""
        return StageFailed(name, f"its command was killed by {killer.name}{hint}", "outside")
    if codes:
        return StageFailed(name, f"its command exited with {codes[-1]}: {last}", "command")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    cause: Cause = "outside" if any(_BUSY.search(line) for line in lines) else "command"
    return StageFailed(name, " ".join(errors) or last, cause)


def _signal_of(code: int) -> signal.Signals | None:
    """The signal that ended a command, from its exit code as the shell or `subprocess` gives it."""
    try:
        return signal.Signals(-code if code < 0 else code - _SHELL_ADDS_TO_A_SIGNAL)
    except ValueError:
        return None
