"""The turnstile: how many stages run at once, and that timings are taken alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from flows.stages import Turnstile

LIMIT = 2


class Stages:
    """Threads that pass a turnstile and stay inside until they are let go."""

    def __init__(self, limit: int) -> None:
        self.turnstile = Turnstile(limit)
        self.inside: list[str] = []
        self.most = 0
        self._doors: dict[str, threading.Event] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def come(self, name: str, kind: str) -> None:
        """Let a stage ask for admission."""
        self._doors[name] = threading.Event()
        self._threads[name] = threading.Thread(target=self._stay, args=(name, kind), daemon=True)
        self._threads[name].start()

    def _stay(self, name: str, kind: str) -> None:
        with self.turnstile.admit(kind):
            with self._lock:
                self.inside.append(name)
                self.most = max(self.most, len(self.inside))
            self._doors[name].wait(30)
            with self._lock:
                self.inside.remove(name)

    def leave(self, name: str) -> None:
        """Let a stage end."""
        self._doors[name].set()
        self._threads[name].join(30)
        assert not self._threads[name].is_alive()


@pytest.fixture
def stages() -> Stages:
    return Stages(LIMIT)


def _soon(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def _stays(holds: Callable[[], bool]) -> bool:
    time.sleep(0.2)
    return holds()


def test_no_more_than_the_limit_at_once(stages: Stages) -> None:
    for name in ("one", "two", "three"):
        stages.come(name, "export")
    assert _soon(lambda: len(stages.inside) == LIMIT)
    assert _stays(lambda: len(stages.inside) == LIMIT)
    for _ in range(3):
        assert _soon(lambda: bool(stages.inside))
        stages.leave(stages.inside[0])
    assert stages.most == LIMIT


@pytest.mark.parametrize("kind", ["analyze", "benchmark"])
def test_timings_are_taken_alone_and_are_not_kept_out(stages: Stages, kind: str) -> None:
    stages.come("before", "export")
    assert _soon(lambda: stages.inside == ["before"])
    stages.come("timing", kind)
    assert _stays(lambda: stages.inside == ["before"]), "it waits until nothing else runs"
    stages.come("after", "export")
    assert _stays(lambda: stages.inside == ["before"]), "what comes later does not go first"
    stages.leave("before")
    assert _soon(lambda: stages.inside == ["timing"])
    assert _stays(lambda: stages.inside == ["timing"]), "nothing runs beside it"
    stages.leave("timing")
    assert _soon(lambda: stages.inside == ["after"])
    stages.leave("after")


def test_a_stage_that_fails_makes_room(stages: Stages) -> None:
    for kind in ("benchmark", "export"):
        with pytest.raises(ValueError), stages.turnstile.admit(kind):
            raise ValueError
    stages.come("next", "benchmark")
    assert _soon(lambda: stages.inside == ["next"])
    stages.leave("next")
