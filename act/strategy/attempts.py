"""Attempts: the strategies that were carried out for a job, and what they teach for the next.

A job's attempts are kept in `attempts/JOB.json`, outside the artefacts, which they outlive: `tasks.select.learn`
adds to it what the pipeline measured, and `select` reads it. They count only as long as model, target, budget and
strategy are what they were.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from act.results.select import Attempt, Attempts
from act.settings import Budget

FOLDER = Path("attempts")
MOST_ATTEMPTS = 4
# So many times the speed that is asked for is more than pruning should give, where quality was paid for it.
_MORE_THAN_ASKED = 1.10
# What was measured and what was predicted are never so far apart but by a mistake.
_CORRECTION = (0.3, 3.0)


def read(job: str, fingerprint: str, folder: Path = FOLDER) -> list[Attempt]:
    """Return what was tried of this very job, first first; nothing where that is of other settings."""
    path = folder / f"{job}.json"
    found = Attempts.read(path) if path.exists() else None
    return found.attempts if found is not None and found.of == fingerprint else []


def make_files(jobs: Iterable[str], folder: Path = FOLDER) -> None:
    """Give a file to each job that has none: what depends on it must find it."""
    folder.mkdir(exist_ok=True)
    for path in (folder / f"{job}.json" for job in jobs):
        if not path.exists():
            Attempts(of="", attempts=[]).write(path)


def add(job: str, fingerprint: str, attempt: Attempt, folder: Path = FOLDER) -> None:
    """Add an attempt, in the place of one of the same key."""
    found = [each for each in read(job, fingerprint, folder) if each.key != attempt.key] + [attempt]
    folder.mkdir(exist_ok=True)
    Attempts(of=fingerprint, attempts=found).write(folder / f"{job}.json")


def corrections(
    attempts: Sequence[Attempt], predicted: Callable[[float, bool], float]
) -> Mapping[bool, Mapping[float, float]]:
    """Return measured to predicted speed-up by the share of the MACs that was left, with int8 and without.

    The whole model was measured, so that there the factor is 1 until it was tried, too. `predicted` tells, uncorrected,
    what a share gives with int8 or without.
    """
    found: dict[bool, dict[float, float]] = {}
    for attempt in attempts:
        factor = attempt.fastest / predicted(attempt.share, attempt.quantized)
        factors = found.setdefault(attempt.quantized, {1.0: 1.0})
        factors[attempt.share] = min(max(factor, _CORRECTION[0]), _CORRECTION[1])
    return found


def correction(factors: Mapping[float, float], share: float) -> float:
    """Return the factor at a share of the MACs: linear in logarithms between those tried, that of the least below."""
    known, values = np.log(np.array(sorted(factors.items()))).T
    return float(np.exp(np.interp(math.log(share), known, values)))


def met(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return, of those that met the budget, the one that lost least quality; of equals the fastest."""
    good = (attempt for attempt in attempts if attempt.met)
    return min(good, key=lambda attempt: (max(0.0, attempt.drop), attempt.latency_ms), default=None)


def overshot(attempt: Attempt, budget: Budget) -> bool:
    """Tell whether it met the budget with more cut out than the speed needs, so that quality could be had back."""
    faster = attempt.speedup / budget.min_speedup
    if budget.max_latency_ms is not None:
        faster = min(faster, budget.max_latency_ms / attempt.latency_ms)
    return attempt.met and attempt.share < 1 and attempt.drop > 0 and faster > _MORE_THAN_ASKED


def nearest(attempts: Sequence[Attempt]) -> Attempt:
    """Return the fastest that kept the quality; of equals the last, whose artefacts are still there."""
    return max(reversed(attempts), key=lambda attempt: attempt.kept)
