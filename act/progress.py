"""The progress of long work: a bar on a terminal; elsewhere, where a bar would fill the log, a line now and then."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO

from tqdm import tqdm
from typing_extensions import Self

LINE_SECONDS = 10.0


class Progress(ABC):
    """Counts steps, `done` of them by an earlier process, and shows on stderr what `line` says; a context manager."""

    def __init__(
        self,
        label: str,
        total: int,
        limit_seconds: float,
        done: int = 0,
        stream: IO[str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._done, self._now = label, total, done, now
        self._began = self._last_line = now()
        self._deadline = self._began + limit_seconds
        self._stream = stream or sys.stderr
        hidden = not self._stream.isatty()
        bar = "{desc}: {bar:20} {postfix}"
        self._bar = tqdm(total=total, initial=done, desc=label, file=self._stream, bar_format=bar, disable=hidden)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()

    @abstractmethod
    def line(self) -> str:
        """Return what is known now."""

    def _show(self, steps: int) -> None:
        """Count steps, and show the line when it is time: on a bar, at the end, or after some seconds."""
        self._done += steps
        if not self._bar.disable:
            self._bar.set_postfix_str(self.line(), refresh=False)
            self._bar.update(steps)
        elif (steps and self._done == self._total) or self._now() - self._last_line >= LINE_SECONDS:
            self._last_line = self._now()
            print(f"{self._label}: {self.line()}", file=self._stream, flush=True)

    def _left(self, pace: float) -> str:
        """Return the time that the remaining steps take at a pace, seconds a step, within the limit."""
        seconds = min(pace * (self._total - self._done), self._deadline - self._now())
        return f"{tqdm.format_interval(max(0.0, seconds))} left"
