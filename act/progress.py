"""The progress of long work: a bar on a terminal; elsewhere, where a bar would fill the log, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO

from tqdm import tqdm
from typing_extensions import Self

LINE_SECONDS = 10.0


class Progress:
    """Counts steps, and shows them with what `line` says; a context manager.

    Args:
        label: what is done.
        total: steps in all.
        done: steps that an earlier process made.
        stream: where to show it; stderr when left out.
        now: a clock that only goes forward, in seconds.
    """

    def __init__(
        self,
        label: str,
        total: int,
        done: int = 0,
        stream: IO[str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._done = label, total, done
        self._now = now
        self._began = self._last_line = now()
        self._stream = stream or sys.stderr
        self._bar = (
            tqdm(total=total, initial=done, desc=label, file=self._stream, bar_format="{desc}: {bar:20} {postfix}")
            if self._stream.isatty()
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def line(self) -> str:
        """Return what is known now."""
        return f"{self._done} of {self._total}"

    def _show(self, steps: int) -> None:
        """Count steps, and show the line when it is time: on a bar, at the end, or after some seconds."""
        self._done += steps
        if self._bar is not None:
            self._bar.set_postfix_str(self.line(), refresh=False)
            self._bar.update(steps)
        elif (steps and self._done == self._total) or self._now() - self._last_line >= LINE_SECONDS:
            self._last_line = self._now()
            print(f"{self._label}: {self.line()}", file=self._stream, flush=True)

    def _left(self, pace: float, deadline: float) -> str:
        """Return the time that the remaining steps take at a pace, seconds a step, and until the deadline at most."""
        seconds = min(pace * (self._total - self._done), deadline - self._now())
        return f"{tqdm.format_interval(max(0.0, seconds))} left"
