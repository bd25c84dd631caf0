"""Refinement: only what measures better is kept."""

from __future__ import annotations

import time
from typing import Any

import pytest

from act.engines.process import EngineFailure
from act.quantization.scheme import Scheme
from act.results.ptq_search import Candidate
from act.training.refinement import improve
from tests.support import results

START = Scheme((), {}, {})


def candidate(name: str, drop: float, symmetric: bool = False) -> Candidate:
    return results.candidate(name, drop=drop, quality=0.9 - drop, symmetric=symmetric)


def named(name: str) -> Scheme:
    return Scheme((name,), {}, {})


def test_each_method_starts_from_the_best_so_far_and_only_better_ones_are_kept() -> None:
    starts: list[Scheme] = []
    quality = {"adaround": 0.85, "layer_wise": 0.84, "region_wise": 0.86}

    def method(name: str) -> Any:
        def run(scheme: Scheme) -> Scheme:
            starts.append(scheme)
            return named(name)

        return run

    methods: Any = {name: method(name) for name in quality}
    best, attempts = improve(
        candidate("a", 0.1), START, methods, lambda scheme: quality[scheme.layers[0]], time.monotonic() + 60
    )
    assert best == named("region_wise")
    assert starts == [START, named("adaround"), named("adaround")]
    assert [attempt.kept for attempt in attempts] == [True, False, True]
    assert [attempt.quality_before for attempt in attempts] == [0.8, 0.85, 0.85]


def test_failures_are_told_and_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def crash(scheme: Scheme) -> float:
        raise EngineFailure("crash", "ended by SIGSEGV")

    def without_gradient(scheme: Scheme) -> Scheme:
        raise RuntimeError("(NotFound) no gradient\nand much more")

    methods: Any = {
        "adaround": lambda scheme: named("x"),
        "layer_wise": lambda scheme: None,
        "region_wise": without_gradient,
    }
    with caplog.at_level("INFO"):
        best, attempts = improve(candidate("a", 0.1), START, methods, crash, time.monotonic() + 60)
    assert best == START
    assert [attempt.failure for attempt in attempts] == [
        "crash: ended by SIGSEGV",
        "nothing to compare, no time left, or a loss that is not finite",
        "(NotFound) no gradient",
    ]
    assert [attempt.quality for attempt in attempts] == [None, None, None]
    assert "ended by SIGSEGV" in caplog.text


def test_no_method_begins_after_the_deadline() -> None:
    methods: Any = {"adaround": lambda scheme: named("x")}
    best, attempts = improve(candidate("a", 0.1), START, methods, lambda scheme: 1.0, time.monotonic() - 1)
    assert best == START and attempts == []
