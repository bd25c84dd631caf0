"""Lets a limited number of stages run at once, and those that measure time alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Stages whose results are timings: anything beside them would spoil the figures.
ALONE = ("analyze", "benchmark")


class Turnstile:
    """Admits stages.

    Args:
        limit: how many may run at the same time, at least 1.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._alone = False
        self._waiting_alone = 0
        self._changed = threading.Condition()

    @contextmanager
    def admit(self, kind: str) -> Iterator[None]:
        """Wait for admission, and leave at the end of the block."""
        alone = kind in ALONE
        with self._changed:
            self._waiting_alone += alone
            self._changed.wait_for(lambda: self._free(alone))
            self._waiting_alone -= alone
            self._running += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = False
                self._changed.notify_all()

    def _free(self, alone: bool) -> bool:
        if alone:
            return self._running == 0
        # Those that must be alone go first, or a stream of short stages would keep them out.
        return not self._alone and self._running < self._limit and self._waiting_alone == 0
