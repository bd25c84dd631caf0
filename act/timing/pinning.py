"""Keeps the engines on the cores that have least to do, so that no thread moves to another while it is timed.

Engines' own pinning is switched off: each would choose cores by itself, and not all of them can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # of a line of /proc/stat: user, nice, system, irq, softirq, steal
_LOOK_SECONDS = 0.25


def all_cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def quietest_cores(count: int, seconds: float = _LOOK_SECONDS) -> list[int]:
    """The cores that were least busy while we looked; all of them where there are no more, or the system does not tell.

    Args:
        count: how many.
        seconds: how long to look.
    """
    cores = all_cores()
    before = _busy()
    time.sleep(seconds)
    after = _busy()
    if count >= len(cores) or not all(core in before and core in after for core in cores):
        return cores
    # The first core has most of the system's own work, so of equals the last is taken.
    return sorted(sorted(cores, key=lambda core: (after[core] - before[core], -core))[:count])


def pin(pid: int, cores: Collection[int]) -> None:
    """Let all threads of a process run on some cores only; threads that have ended meanwhile do not matter."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue


def _busy() -> dict[int, int]:
    """Ticks that each core was busy since the system started; empty where it does not tell."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        rows = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
        return {int(row[0][3:]): sum(int(row[1 + place]) for place in _BUSY_FIELDS) for row in rows}
    except (OSError, ValueError, IndexError):
        return {}
