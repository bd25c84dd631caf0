"""How far a search is: trials, the best so far, and the time left.

On a terminal it is a bar; anywhere else a line now and then, because a bar that is drawn anew leaves a log unreadable.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import IO

from tqdm import tqdm

from act.search.search import Trial

LINE_SECONDS = 10.0
# The pace is that of the last rounds: trials that the journal knew take no time and say nothing of what is to come.
_ROUNDS = 4


class Progress:
    """Told of each trial as it ends; a context manager.

    Args:
        total: trials at most.
        fp32: quality of the fp32 model.
        limit_seconds: the search's time limit.
        side_by_side: trials of a round.
        stream: where to show it.
        now: a clock that only goes forward, in seconds.
    """

    def __init__(
        self,
        total: int,
        fp32: float,
        limit_seconds: float,
        side_by_side: int,
        stream: IO[str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._fp32 = fp32
        self._now = now
        self._began = now()
        self._limit_seconds = limit_seconds
        self._ended = deque([self._began], maxlen=_ROUNDS * side_by_side + 1)
        self._last_line = self._began
        self._done = 0
        self._best: float | None = None
        self._stream = stream or sys.stderr
        self._bar = (
            tqdm(total=total, desc="search", file=self._stream, bar_format="{desc}: {bar:20} {postfix}")
            if self._stream.isatty()
            else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, trial: Trial) -> None:
        """Take note of a trial, and show it when it is time."""
        self._done += 1
        self._ended.append(self._now())
        if trial.whole and (self._best is None or trial.result.quality > self._best):
            self._best = trial.result.quality
        if self._bar is not None:
            self._bar.set_postfix_str(self.line(), refresh=False)
            self._bar.update()
        elif self._done == self._total or self._ended[-1] - self._last_line >= LINE_SECONDS:
            self._last_line = self._ended[-1]
            print(f"search: {self.line()}", file=self._stream, flush=True)

    def line(self) -> str:
        """What is known now."""
        best = "none whole yet" if self._best is None else f"best {self._best:.4f} ({self._drop()} fp32)"
        return f"trial {self._done} of {self._total}, {best}, {tqdm.format_interval(self.seconds_left())} left"

    def seconds_left(self) -> float:
        """What the remaining trials take at the present pace, but no more than the time limit leaves."""
        pace = (self._ended[-1] - self._ended[0]) / max(1, len(self._ended) - 1)
        limit = self._began + self._limit_seconds - self._now()
        return max(0.0, min(pace * (self._total - self._done), limit))

    def _drop(self) -> str:
        assert self._best is not None
        drop = self._fp32 - self._best
        return f"{drop:.4f} below" if drop >= 0 else f"{-drop:.4f} above"
