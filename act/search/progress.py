"""The progress of a search: trials, the best so far, and the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import IO

from act import progress
from act.search.search import Trial

# The pace is that of the last rounds: trials that the journal knew take no time and say nothing of what is to come.
_ROUNDS = 4


class Progress(progress.Progress):
    """Told of each trial as it ends; knows the fp32 model's quality, the time limit and the trials of a round."""

    def __init__(
        self,
        total: int,
        fp32: float,
        limit_seconds: float,
        side_by_side: int,
        stream: IO[str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("search", total, stream=stream, now=now)
        self._fp32 = fp32
        self._deadline = self._began + limit_seconds
        self._ended = deque([self._began], maxlen=_ROUNDS * side_by_side + 1)
        self._best: float | None = None

    def __call__(self, trial: Trial) -> None:
        """Take note of a trial, and show it when it is time."""
        self._ended.append(self._now())
        if trial.complete and (self._best is None or trial.result.quality > self._best):
            self._best = trial.result.quality
        self._show(1)

    def line(self) -> str:
        """Return what is known now; the rest goes on at the present pace, within the time limit."""
        best = "none whole yet"
        if self._best is not None:
            drop = self._fp32 - self._best
            best = f"best {self._best:.4f} ({abs(drop):.4f} {'below' if drop >= 0 else 'above'} fp32)"
        pace = (self._ended[-1] - self._ended[0]) / max(1, len(self._ended) - 1)
        return f"trial {self._done} of {self._total}, {best}, {self._left(pace, self._deadline)}"
