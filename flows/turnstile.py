"""Lets a limited number of stages run at once, and those that measure time alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Stages whose results are timings: anything beside them would spoil the figures.
ALONE = ("analyze", "benchmark")


class Turnstile:
    """Admits stages, at most `limit` at the same time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting_alone = 0
        self._changed = threading.Condition()

    @contextmanager
    def admit(self, kind: str) -> Iterator[None]:
        """Wait for admission, and leave at the end of the block."""
        alone = kind in ALONE
        places = self._limit if alone else 1
        with self._changed:
            self._waiting_alone += alone
            # Those that must be alone go first, or a stream of short stages would keep them out.
            self._changed.wait_for(lambda: self._taken + places <= self._limit and (alone or self._waiting_alone == 0))
            self._waiting_alone -= alone
            self._taken += places
        try:
            yield
        finally:
            with self._changed:
                self._taken -= places
                self._changed.notify_all()
