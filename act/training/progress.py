"""The progress of a training: steps, the loss, the best quality so far, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO

from act import progress


class Progress(progress.Progress):
    """Told of each step and each evaluation.

    Args:
        label: what is trained.
        total: steps in all.
        done: steps that an earlier process made.
        seconds_left: what the time limit leaves.
        stream, now: as of every progress.
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
        super().__init__(label, total, done, stream, now)
        self._before = done
        self._deadline = self._began + seconds_left
        self._loss: float | None = None
        self._quality: float | None = None

    def step(self, loss: float) -> None:
        """Take note of a step."""
        self._loss = loss
        self._show(1)

    def evaluated(self, best: float | None) -> None:
        """Take note of the best quality after an evaluation."""
        self._quality = best
        self._show(0)

    def line(self) -> str:
        """Return what is known now; the rest goes at the present pace, evaluations included, within the time limit."""
        loss = "" if self._loss is None else f", loss {self._loss:.4g}"
        best = "" if self._quality is None else f", best quality {self._quality:.4f}"
        pace = (self._now() - self._began) / max(1, self._done - self._before)
        return f"step {self._done} of {self._total}{loss}{best}, {self._left(pace, self._deadline)}"
