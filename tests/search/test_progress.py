"""The progress of a search: what is shown, how often, and the time left."""

from __future__ import annotations

import io

import pytest

from act.metrics import Quality
from act.results.ptq_search import Trial
from act.search.search import SearchProgress
from tests.support import results

FP32 = Quality(0.8, [0.8] * 4)


def trial(quality: float, whole: bool = True) -> Trial:
    return results.trial(0, quality=quality, samples=4 if whole else 1)


class Clock:
    """A clock that is set by hand."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def shown(qualities: list[float], step: float, total: int, limit: float = 1000) -> tuple[list[str], SearchProgress]:
    stream, clock = io.StringIO(), Clock()
    with SearchProgress(total, FP32, limit, 1, stream, clock) as progress:
        for quality in qualities:
            clock.seconds += step
            progress(trial(quality))
    return stream.getvalue().splitlines(), progress


def test_the_best_stands_beside_its_drop() -> None:
    lines, _ = shown([0.7, 0.79, 0.75], 10, 30)
    assert lines[-1] == "search: trial 3 of 30, best 0.7900 (0.0100 below fp32), 04:30 left"
    lines, _ = shown([0.7, 0.81, 0.75], 10, 3)
    assert lines[-1] == "search: trial 3 of 3, best 0.8100 (0.0100 above fp32), 00:00 left"


def test_a_log_has_a_line_now_and_then_and_one_at_the_end() -> None:
    lines, _ = shown([0.7] * 100, 1, 100)
    assert len(lines) == 10 and all("\r" not in line for line in lines)
    lines, _ = shown([0.7] * 3, 1, 3)
    assert len(lines) == 1 and "trial 3 of 3" in lines[0]


def test_a_trial_that_was_given_up_is_not_the_best() -> None:
    stream = io.StringIO()
    with SearchProgress(1, FP32, 100, 1, stream) as progress:
        progress(trial(0.9, whole=False))
    assert "best" not in stream.getvalue() and "none whole yet" in stream.getvalue()


@pytest.mark.parametrize(("limit", "left"), [(1000, "00:50"), (70, "00:20")])
def test_the_time_left_is_the_smaller_of_the_pace_and_the_limit(limit: float, left: str) -> None:
    _, progress = shown([0.7] * 5, 10, 10, limit)
    assert progress.line().endswith(f", {left} left")


def test_trials_from_the_journal_do_not_promise_a_fast_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with SearchProgress(100, FP32, 10_000, 1, stream, clock) as progress:
        for _ in range(50):
            progress(trial(0.7))
        for _ in range(5):
            clock.seconds += 10
            progress(trial(0.7))
    assert progress.line().endswith(", 07:30 left")


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with SearchProgress(2, FP32, 100, 1, stream) as progress:
        progress(trial(0.7))
        progress(trial(0.75))
    assert "\r" in stream.getvalue()
    assert "trial 2 of 2, best 0.7500 (0.0500 below fp32)" in stream.getvalue()
