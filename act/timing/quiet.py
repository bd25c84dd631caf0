"""How quiet the machine was while models were timed on it, by three signs that do not depend on the models being fast.

A fixed piece of work is timed beside the models; other processes' processor time is what the kernel counts as busy less
what our own processes used; and the models that others are compared with should take the same time in every round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.quiet import Work
from act.timing.statistics import unsteadiness

# Above this share, round medians differ more than a quiet machine's do.
NOISY = 0.10
# Above this many processor cores used by others, they were in the way: daemons of an idle system stay far below.
BUSY = 0.10
_RUNS = 10
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # of /proc/stat: user, nice, system, irq, softirq, steal
_UTIME, _STIME = 11, 12  # of /proc/PID/stat, counted behind the name


class Watch:
    """Watches the machine from its making on.

    Attributes:
        rounds: seconds of the reference work, of each round.
    """

    def __init__(self) -> None:
        self.rounds: list[list[float]] = []
        self._work = Work()
        self._used: dict[int, float] = {}
        self._started = time.monotonic()
        self._busy = _busy_seconds()
        self._own = time.process_time()
        self._first: dict[int, float] = {}

    def next_round(self, workers: Sequence[int]) -> None:
        """Begin a round.

        Args:
            workers: numbers of the processes whose processor time is ours.
        """
        for pid in workers:
            used = _used_seconds(pid)
            if used is not None:
                self._first.setdefault(pid, used)
                self._used[pid] = used
        self.rounds.append([])

    def time_reference(self) -> None:
        """Time the fixed work (`act/engines/quiet.py`) a few times, as part of this round."""
        self.rounds[-1] += [self._work.seconds() for _ in range(_RUNS)]

    def end(self, workers: Sequence[int], models: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
        """What was seen, with one sentence where the machine was noisy; plain JSON values.

        Args:
            workers: as for `next_round`.
            models: by a name, those whose latency should be the same in each round: seconds of the runs of each round.
                The median over them counts, so that none speaks alone.
        """
        self.next_round(workers)
        rounds = [times for times in self.rounds if times]
        shares = {name: unsteadiness(seconds) for name, seconds in models.items()}
        share = float(np.median(list(shares.values()))) if shares else 0.0
        work = unsteadiness(rounds) if rounds else 0.0
        others = self._others()
        return {
            **verdict(work, share, others),
            "limit": NOISY,
            "unsteadiness": share,
            "by_engine": shares,
            "reference": {
                "unsteadiness": work,
                "median_ms": 1000 * float(np.median([time for times in rounds for time in times])) if rounds else None,
                "runs": sum(map(len, rounds)),
            },
            "cores_used_by_others": others,
        }

    def _others(self) -> float | None:
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return None
        ours = time.process_time() - self._own + sum(used - self._first[pid] for pid, used in self._used.items())
        return max(0.0, busy - self._busy - ours) / (time.monotonic() - self._started)


def verdict(work: float, models: float, others: float | None) -> dict[str, Any]:
    """Whether the machine was `noisy`, and the `cause` in words.

    Args:
        work: unsteadiness of the reference work.
        models: unsteadiness of the models that others are compared with.
        others: processor cores that other processes used; None where the system does not tell.
    """
    causes = []
    if others is not None and others > BUSY:
        causes.append(f"other processes used {others:.2f} of its {os.cpu_count()} cores")
    if work > NOISY:
        causes.append(f"a fixed piece of work beside the models took up to {work:.0%} longer in some rounds")
    if models > NOISY:
        causes.append(f"the latency of the models that others are compared with moved by {models:.0%} between rounds")
    return {"noisy": bool(causes), "cause": " and ".join(causes) or None}


def _busy_seconds() -> float | None:
    """Seconds that all cores together were busy since the system started; None where it does not tell."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
        return sum(int(fields[place]) for place in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _used_seconds(pid: int) -> float | None:
    """Seconds of processor time that a process has used with all its threads; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[_UTIME]) + int(fields[_STIME])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
