"""Waiting for quiet moments, with times that are made up."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.engines import quiet, worker
from act.engines.kept import Kept
from act.engines.process import EngineProcess
from act.errors import InputError


@pytest.fixture(autouse=True)
def users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is kept for later processes is kept for none but these tests'."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def made_up(
    monkeypatch: pytest.MonkeyPatch, gauges: Iterable[float], kept: Path | None = None, watched: bool = True
) -> quiet.Quiet:
    """A machine on which the fixed work takes these seconds, after the first gauges with 1; each gauge does it twice.

    Args:
        kept: the file that remembers.
        watched: whether the machine was watched already.
    """
    given = itertools.chain([1.0] * quiet._FIRST_GAUGES, (gauge for gauge in gauges for _ in range(2)))
    clock = [0.0]

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return clock[0]

        @staticmethod
        def time() -> float:
            return time.time()

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
    found = quiet.Quiet(Kept(kept))
    found._watched = found._watched or watched
    return found


def test_it_returns_at_once_where_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, [1.1])
    found.left_seconds = 100.0
    found.wait()
    assert found.left_seconds == pytest.approx(100 - 2 * 1.1)


def test_it_waits_until_a_neighbour_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, [2.0, 2.0, 1.9, 1.0, 1.0, 1.9])
    found.left_seconds = 100.0
    found.wait()
    assert found.left_seconds == pytest.approx(100 - 2 * (2 + 2 + 1.9 + 1), abs=0.01)
    assert found.is_now() and not found.is_now()


def test_it_waits_no_longer_than_it_may_and_then_takes_things_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, itertools.repeat(1.2))
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
        def __init__(self, kept: Kept | None) -> None:
            self.left_seconds = 0.0
            self._cores = quiet._Cores()

        def wait(self) -> None:
            assert self.left_seconds > 0

        def is_now(self) -> bool:
            return next(told)

    monkeypatch.setattr(quiet, "Quiet", Gauge)
    monkeypatch.setenv(quiet.PATIENCE, "1")
    monkeypatch.setattr(worker.Worker, "_batches", lambda *_: [worker._Batch({}, seen=1.0)])
    monkeypatch.setattr(worker.Worker, "_run_timed", lambda *_: next(taken))
    timed = worker.Worker("none").time("samples", 1, runs=3, first=0, patience=1, as_quick=False)
    assert timed == {"seconds": [1.2, 1.0, 1.1]}


def test_the_environment_says_how_patient_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[float] = []

    class Gauge(quiet.Quiet):
        def __init__(self, kept: Kept | None) -> None:
            self.left_seconds = 0.0

        def bursts(self, *_: Any) -> list[Any]:
            allowed.append(self.left_seconds)
            return []

    monkeypatch.setattr(quiet, "Quiet", Gauge)
    monkeypatch.setattr(worker.Worker, "_batches", lambda *_: [worker._Batch({})])
    monkeypatch.setattr(worker.Worker, "_run_timed", lambda *_: 1.0)
    for share in ("1", "0.5", "0"):
        monkeypatch.setenv(quiet.PATIENCE, share)
        worker.Worker("none").time("samples", 1, runs=3, first=0, patience=4, as_quick=True)
    assert allowed == [10.0, 5.0, 0.0]
    for wrong in ("-1", "inf", "nan", "soon", ""):
        monkeypatch.setenv(quiet.PATIENCE, wrong)
        with (
            pytest.raises(InputError, match="ACT_PATIENCE=.*0 .never wait"),
            EngineProcess("onnxruntime", Path(), "fp32"),
        ):
            pass


def test_bursts_are_warmed_up_and_made_again_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str | tuple[int, int]] = []

    def burst(first: int, count: int) -> int:
        calls.append((first, count))
        return len(calls)

    found = made_up(monkeypatch, itertools.repeat(1.0))
    found.left_seconds = 100.0
    assert found.bursts(burst, 5, 2, lambda: calls.append("warm")) == [2, 4, 6]
    assert calls == ["warm", (0, 2), "warm", (2, 2), "warm", (4, 1)]
    calls.clear()
    # Quiet before each burst, and behind all but the first one.
    disturbed = made_up(monkeypatch, [1.0, 1.9, *[1.0] * 6])
    disturbed.left_seconds = 100.0
    assert disturbed.bursts(burst, 5, 2) == [4, 2, 3]
    assert calls == [(0, 2), (2, 2), (4, 1), (0, 2)]
    calls.clear()
    hurried = made_up(monkeypatch, itertools.cycle([1.0, 1.9]))
    hurried.left_seconds = 0.0
    assert hurried.bursts(burst, 3, 2) == [1, 2]


def test_what_took_longer_than_it_might_is_made_again_and_otherwise_the_least_slowed_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = made_up(monkeypatch, itertools.repeat(0.0))
    tries = {0: iter([1.5, 1.1]), 2: iter([1.3, 1.2, 1.2, 1.4])}

    def burst(first: int, _: int) -> tuple[float, int]:
        slowed = next(tries[first])
        found.left_seconds = 0.0 if slowed == 1.4 else 1.0
        made.append(slowed)
        return slowed, len(made)

    made: list[float] = []
    found.left_seconds = 1.0
    assert found.bursts(burst, 4, 2, slowed=lambda it: it[0]) == [(1.1, 3), (1.2, 5)]
    assert made == [1.5, 1.3, 1.1, 1.2, 1.2, 1.4]


@pytest.mark.parametrize(("as_quick", "kept"), [(True, [1.0, 3.1]), (False, [1.0, 3.9])])
def test_each_input_is_compared_with_itself(monkeypatch: pytest.MonkeyPatch, as_quick: bool, kept: list[float]) -> None:
    """One input takes three times as long as the other, and is disturbed by a third at first."""
    taken = {0: iter([1.0, 1.0]), 1: iter([3.0, 3.9, 3.1])}
    batches = [worker._Batch({"x": np.array(place)}) for place in taken]
    monkeypatch.setattr(quiet.Quiet, "wait", lambda _: None)
    monkeypatch.setattr(quiet.Quiet, "is_now", lambda _: True)
    monkeypatch.setattr(worker.Worker, "_batches", lambda *_: batches)

    def run(_: worker.Worker, batch: worker._Batch) -> float:
        seconds = next(taken[int(batch.feeds["x"])])
        batch.seen = min(batch.seen, seconds)
        return seconds

    monkeypatch.setattr(worker.Worker, "_run_timed", run)
    monkeypatch.setenv(quiet.PATIENCE, "1")
    timer = worker.Worker("none")
    run(timer, batches[1])
    told = timer.time("samples", 1, runs=2, first=0, patience=100, as_quick=as_quick)
    assert told == {"seconds": kept}


def test_a_better_moment_is_what_counts_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_up(monkeypatch, [0.5, 1.0])
    assert found.is_now() and not found.is_now()


def test_the_first_gauge_after_something_else_may_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([1.9, 1.0, 1.9, 1.9])
    found = made_up(monkeypatch, [])
    monkeypatch.setattr(found._work, "seconds", lambda: next(given))
    assert found.is_now() and not found.is_now()


def test_a_machine_that_nothing_is_known_of_is_watched_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "made" / "quickest.json"
    # A neighbour is at work from before on: its end shows, only behind the first gauges, what the machine can do.
    found = made_up(monkeypatch, [1.0, 1.0, 0.55, 1.0, 1.0, 0.55, 0.55], kept, watched=False)
    found.left_seconds = 12.0
    found.wait()
    assert found._best == pytest.approx(0.55)
    assert Kept(kept).read(quiet._WORK) == pytest.approx(0.55)
    # The next process begins while the neighbour is at work, and knows it.
    after = made_up(monkeypatch, [1.0, 0.6], kept, watched=False)
    assert not after.is_now() and after.is_now()


@pytest.mark.parametrize(("seconds", "counts"), [(0.5, True), (0.01, False)])
def test_what_was_kept_counts_only_where_neighbours_can_explain_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float, counts: bool
) -> None:
    Kept(tmp_path / "quickest.json").write(quiet._WORK, seconds)
    assert made_up(monkeypatch, [1.0], tmp_path / "quickest.json").is_now() != counts


def test_where_nothing_can_be_kept_it_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    found = made_up(monkeypatch, itertools.repeat(0.9), tmp_path / "file" / "quickest.json", watched=False)
    found.left_seconds = 6.0
    found.wait()
    assert found._best == pytest.approx(0.9)


def test_what_runs_on_one_core_is_moved_to_a_quiet_one_and_freed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: moves.append(set(cores)))
    monkeypatch.setattr(Path, "iterdir", lambda _: [Path("7")])
    found = made_up(monkeypatch, [1.9, 1.9, 1.0, 1.0, 1.9, 1.0, 1.0, 1.9, 1.0, 1.0])
    found.left_seconds = 100.0
    found.bursts(lambda _, count: count, 1, 1)
    assert moves == []  # several threads stay where they are
    found.moves = True
    found.bursts(lambda _, count: count, 1, 1)
    assert moves == [{3}, {1, 3}]
    moves.clear()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    found.bursts(lambda _, count: count, 1, 1)
    assert moves == []  # what is pinned to one stays there
