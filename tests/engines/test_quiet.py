"""Waiting for quiet moments, with times that are made up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from act.engines import quiet, worker


def made_up(monkeypatch: pytest.MonkeyPatch, gauges: Iterable[float]) -> quiet.Quiet:
    """A machine on which the fixed work takes these seconds, after the first gauges with 1."""
    given = itertools.chain([1.0] * quiet._FIRST_GAUGES, gauges)
    clock = [0.0]

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return clock[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            clock[0] += seconds

    class Work:
        float32, ones, empty_like = np.float32, np.ones, np.empty_like

        @staticmethod
        def multiply(*_: object, out: object) -> None:
            clock[0] += next(given)

    monkeypatch.setattr(quiet, "_TIMES", 1)
    monkeypatch.setattr(quiet, "time", Clock)
    monkeypatch.setattr(quiet, "np", Work)
    return quiet.Quiet()


def test_it_returns_at_once_where_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, [1.1])
    found.left_seconds = 100.0
    found.wait()
    assert found.left_seconds == pytest.approx(98.9)


def test_it_waits_until_a_neighbour_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, [2.0, 2.0, 1.9, 1.0, 1.0, 1.9])
    found.left_seconds = 100.0
    found.wait()
    assert found.left_seconds == pytest.approx(100 - 2 - 2 - 1.9 - 1, abs=0.01)
    assert found.is_now() and not found.is_now()


def test_it_waits_no_longer_than_it_may_and_then_takes_things_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, itertools.repeat(1.3))
    found.left_seconds = 10.0
    found.wait()
    assert found.left_seconds == 0.0
    assert found.is_now()


def test_without_time_to_wait_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, itertools.repeat(1.3))
    for _ in range(3):
        found.wait()
    assert not found.is_now()


def test_runs_that_were_disturbed_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([9.0, 2.0, 1.0, 1.1, 1.9, 1.2])  # the first one warms up

    told = iter([False, True, True, False, True])

    class Gauge(quiet.Quiet):
        def __init__(self) -> None:
            self.left_seconds = 0.0

        def wait(self) -> None:
            assert self.left_seconds > 0

        def is_now(self) -> bool:
            return next(told)

    monkeypatch.setattr(worker, "Quiet", Gauge)
    monkeypatch.setattr(worker.Worker, "_feeds", lambda *_: [{}])
    monkeypatch.setattr(worker.Worker, "_run_timed", lambda *_: next(taken))
    assert worker.Worker("none").time("samples", 1, runs=3, first=0, patience=1) == {"seconds": [1.0, 1.1, 1.2]}


def test_bursts_are_warmed_up_and_made_again_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, itertools.repeat(1.0))
    calls: list[str | int] = []

    def burst(count: int) -> int:
        calls.append(count)
        return len(calls)

    found.left_seconds = 100.0
    assert found.bursts(burst, 5, 2, lambda: calls.append("warm")) == [2, 4, 6]
    assert calls == ["warm", 2, "warm", 2, "warm", 1]
    disturbed = made_up(monkeypatch, itertools.cycle([1.0, 1.9]))  # quiet before each burst, and not behind it
    disturbed.left_seconds = 0.0
    assert disturbed.bursts(lambda count: count, 3, 2) == [2, 1]


def test_a_better_moment_is_what_counts_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, [0.5, 1.0])
    assert found.is_now() and not found.is_now()
