"""A verdict on how noisy the machine was while models were timed on it.

Two signs are looked at: the processor time that the kernel counts as busy, less what our own processes used, and
whether the models that others are compared with took the same time in every round.
"""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np
import psutil

from act.results.benchmark import Noise
from act.timing.statistics import Floats, unsteadiness

# Above this share, round medians differ more than a quiet machine's do.
NOISY = 0.10
# Above this many processor cores used by others, they were in the way: daemons of an idle system stay far below.
BUSY = 0.10


class Watch:
    """Counts the processor time of all processes, and of this one with those of ours besides, from its making on."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._began, self._busy = time.monotonic(), _busy_seconds()
        self._first = self._used_seconds()
        self._last = dict(self._first)

    def look(self) -> None:
        """Note what our processes have used, for one that dies can no longer be asked."""
        self._last |= self._used_seconds()

    def cores_used_by_others(self) -> float:
        """Return the mean number of processor cores that other processes kept busy until now."""
        self.look()
        ours = sum(used - self._first[pid] for pid, used in self._last.items())
        return max(0.0, _busy_seconds() - self._busy - ours) / (time.monotonic() - self._began)

    def _used_seconds(self) -> dict[int, float]:
        used = {}
        for pid in self._pids:
            with suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                used[pid] = times.user + times.system
        return used


def verdict(cores_used_by_others: float, references: Mapping[str, Floats]) -> Noise:
    """Tell whether the machine was noisy, and by what sign.

    Of the models that others are compared with, seconds by name, the median unsteadiness counts: none speaks alone.
    """
    shares = {name: unsteadiness(seconds) for name, seconds in references.items()}
    share = float(np.median(list(shares.values()))) if shares else 0.0
    causes = []
    if cores_used_by_others > BUSY:
        causes.append(f"other processes used {cores_used_by_others:.2f} of its {os.cpu_count()} cores")
    if share > NOISY:
        causes.append(f"the latency of the models that others are compared with moved by {share:.0%} between rounds")
    return Noise(
        noisy=bool(causes),
        cause=" and ".join(causes) or None,
        limit=NOISY,
        unsteadiness=share,
        by_engine=shares,
        cores_used_by_others=cores_used_by_others,
    )


def _busy_seconds() -> float:
    """Return the seconds that all cores together were busy since the system started."""
    times = psutil.cpu_times()
    fields = ("user", "nice", "system", "irq", "softirq", "steal")
    return float(sum(getattr(times, field, 0.0) for field in fields))
