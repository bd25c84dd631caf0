"""One stage in a process of its own: `dvc repro --single-item`, its output streamed, its process group killed at need.

DVC's own exit code hides the command's, so the log is read: it tells whether the stage ran or was unchanged, and with
which code its command ended.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from act.errors import USER_ERROR_EXIT_CODE

BAR_SECONDS = 3.0
_TAIL_LINES = 20
_RAN = re.compile(r"^Running stage '")
_EXITED = re.compile(r"exited with (\d+)")
# What DVC says to its own users at the end of every run.
_CHATTER = re.compile(
    r"^(Running stage '|> |Updating lock file|Generating lock file|Use `dvc push`|To track the changes|To enable auto|"
    r"\s+git add |\s+dvc config |Stage '.*(skipping|cached)|Restored stage|'.*' didn't change|Data and pipelines)"
)

_live: set[int] = set()
_live_lock = threading.Lock()


class StageFailed(Exception):
    """A stage's command failed.

    Attributes:
        stage: its name.
        user_error: whether the input is at fault, so that another try is useless.
        message: the last lines of its output, or the one line that names the user's mistake.
    """

    def __init__(self, stage: str, user_error: bool, message: str) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage
        self.user_error = user_error
        self.message = message


@dataclass(frozen=True)
class Ran:
    """How a stage ended well, and the seconds that it took."""

    outcome: Literal["ran", "cached"]
    seconds: float


def run_stage(name: str, root: Path, emit: Callable[[str], None]) -> Ran:
    """Bring one stage up to date.

    Args:
        name: as DVC names it.
        root: the checkout.
        emit: takes each line of output.

    Raises:
        StageFailed: the stage's command failed, or DVC did.
    """
    started = time.monotonic()
    # Stages of other jobs hold DVC's lock for moments only, so waiting for it is right.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with _live_lock:
        _live.add(process.pid)
    try:
        lines, ran = _stream(process, emit)
        code = process.wait()
    finally:
        _kill(process.pid)
        process.wait()
        with _live_lock:
            _live.discard(process.pid)
    if code != 0:
        raise _failure(name, lines)
    return Ran("ran" if ran else "cached", time.monotonic() - started)


def kill_all() -> None:
    """Kill every stage that runs now, with all that it started."""
    with _live_lock:
        for group in _live:
            _kill(group)


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _stream(process: subprocess.Popen[bytes], emit: Callable[[str], None]) -> tuple[list[str], bool]:
    """Pass the output on, line by line; progress bars (lines that end in a carriage return) only now and then."""
    assert process.stdout is not None
    lines: list[str] = []
    ran, buffer, last_bar = False, b"", 0.0
    while chunk := os.read(process.stdout.fileno(), 1 << 16):
        buffer += chunk
        while end := re.search(rb"\r?\n|\r", buffer):
            # A carriage return at the very end may be half of a line's end.
            if end.group() == b"\r" and end.end() == len(buffer):
                break
            line = buffer[: end.start()].decode(errors="replace").rstrip()
            bar, buffer = end.group() == b"\r", buffer[end.end() :]
            if not line:
                continue
            ran = ran or bool(_RAN.match(line))
            if bar:
                if time.monotonic() - last_bar >= BAR_SECONDS:
                    last_bar = time.monotonic()
                    emit(line)
                continue
            lines = [*lines[-_TAIL_LINES:], line]
            if not _CHATTER.match(line):
                emit(line)
    return lines, ran


def _failure(name: str, lines: list[str]) -> StageFailed:
    codes = [int(match.group(1)) for line in lines for match in [_EXITED.search(line)] if match]
    mistakes = [line for line in lines if line.startswith("error: ")]
    if codes and codes[-1] == USER_ERROR_EXIT_CODE and mistakes:
        return StageFailed(name, True, mistakes[-1].removeprefix("error: "))
    return StageFailed(name, False, " | ".join(lines[-3:]) or "dvc ended without a word")
