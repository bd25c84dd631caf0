"""How far training is: steps, the loss, the best quality so far, and the time left.

On a terminal it is a bar; anywhere else a line now and then, because a bar that is drawn anew leaves a log unreadable.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO

from tqdm import tqdm

LINE_SECONDS = 10.0


class Progress:
    """Told of each step and each evaluation; a context manager.

    Args:
        label: what is trained.
        total: steps in all.
        done: steps that an earlier process made.
        seconds_left: what the time limit leaves.
        stream: where to show it.
        now: a clock that only goes forward, in seconds.
    """

    def __init__(
        self,
        label: str,
        total: int,
        done: int,
        seconds_left: float,
        stream: IO[str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._done, self._before = label, total, done, done
        self._now = now
        self._began = self._last_line = now()
        self._deadline = self._began + seconds_left
        self._loss: float | None = None
        self._quality: float | None = None
        self._stream = stream or sys.stderr
        self._bar = (
            tqdm(total=total, initial=done, desc=label, file=self._stream, bar_format="{desc}: {bar:20} {postfix}")
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

    def step(self, loss: float) -> None:
        """A step was made."""
        self._done += 1
        self._loss = loss
        self._show(1, self._done == self._total)

    def evaluated(self, best: float) -> None:
        """The quality was measured."""
        self._quality = best
        self._show(0, False)

    def line(self) -> str:
        """What is known now."""
        loss = "" if self._loss is None else f", loss {self._loss:.4g}"
        best = "" if self._quality is None else f", best quality {self._quality:.4f}"
        return f"step {self._done} of {self._total}{loss}{best}, {tqdm.format_interval(self.seconds_left())} left"

    def seconds_left(self) -> float:
        """What the remaining steps take at the present pace, evaluations included, within the time limit."""
        now = self._now()
        pace = (now - self._began) / max(1, self._done - self._before)
        return max(0.0, min(pace * (self._total - self._done), self._deadline - now))

    def _show(self, steps: int, now: bool) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self.line(), refresh=False)
            self._bar.update(steps)
        elif now or self._now() - self._last_line >= LINE_SECONDS:
            self._last_line = self._now()
            print(f"{self._label}: {self.line()}", file=self._stream, flush=True)
