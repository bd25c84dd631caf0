"""Which candidates are refined and go on, and whether and where training starts."""

from __future__ import annotations

import pytest

from act.results.ptq_search import Candidate
from act.strategy.candidates import training_start, worth_exporting, worth_refining
from tests.support.results import candidate

CANDIDATES = [candidate("a", quality=0.7, drop=0.1), candidate("b", quality=0.78, drop=0.02)]


@pytest.mark.parametrize(
    ("trains", "candidates", "budget", "start"),
    [
        (True, CANDIDATES, 0.01, "b"),
        (True, CANDIDATES, 0.02, None),
        (False, CANDIDATES, 0.01, None),
        (True, [], 0.01, None),
    ],
)
def test_training_starts_where_the_budget_is_missed(
    trains: bool, candidates: list[Candidate], budget: float, start: str | None
) -> None:
    found, why = training_start(candidates, budget, trains)
    assert found == start and why


def test_training_that_is_asked_for_starts_from_the_best_though_it_is_inside_the_budget() -> None:
    candidates = [candidate("one", quality=0.7), candidate("two", quality=0.8, drop=-0.1)]
    start, why = training_start(candidates, 0.01, True, always=True)
    assert start == "two" and "asks for it" in why
    assert training_start([], 0.01, True, always=True)[0] is None


def test_what_pruning_lost_beyond_hope_is_not_trained() -> None:
    for lost, expected in ((0.02, "b"), (0.0201, None)):
        start, why = training_start(CANDIDATES, 0.01, True, pruned_lost=lost)
        assert start == expected
    assert "pruning alone lost 0.0201" in why
    assert training_start(CANDIDATES, 0.01, True, always=True, pruned_lost=0.5)[0] == "b"


@pytest.mark.parametrize(
    ("budget", "kept"),
    [(0.1, ["cheap", "fair"]), (0.015, ["fair", "good"]), (0.004, ["best"]), (0.0, ["best"])],
)
def test_what_could_win_goes_on(budget: float, kept: list[str]) -> None:
    """The two cheapest inside the budget, the best, and the best that is symmetric; none twice."""
    found = [
        candidate("best", drop=0.002, cost=0.4),
        candidate("good", drop=0.005, cost=0.35),
        candidate("fair", drop=0.01, cost=0.3, symmetric=True),
        candidate("cheap", drop=0.05, cost=0.25, symmetric=True),
    ]
    assert worth_exporting(found, budget) == list(dict.fromkeys([*kept, "best", "fair"]))
    assert worth_exporting([], budget) == []


def losing(name: str, drop: float, symmetric: bool = False, cost: float = 0.5) -> Candidate:
    return candidate(name, drop=drop, quality=0.9 - drop, symmetric=symmetric, cost=cost)


def test_what_loses_little_is_not_refined() -> None:
    assert worth_refining([losing("a", 0.002), losing("b", 0.003, True)], 2, 0.0025) == ["b"]
    assert worth_refining([losing("a", 0.0), losing("b", -0.1, True)], 2, 0.0) == []


def test_the_best_and_the_best_symmetric_are_refined_first() -> None:
    found = [losing("a", 0.01), losing("b", 0.02), losing("c", 0.03, True), losing("d", 0.04, True)]
    assert worth_refining(found, 2, 0.0) == ["a", "c"]
    assert worth_refining(found, 3, 0.0) == ["a", "c", "b"]
    assert worth_refining(found, 0, 0.0) == []


def test_nothing_is_refined_that_could_not_win() -> None:
    whole, cheaper = losing("whole", -0.01), losing("cheaper", 0.1, cost=0.4)
    beaten, symmetric = losing("beaten", 0.1, cost=0.49), losing("symmetric", 0.1, True)
    assert worth_refining([whole, beaten, cheaper, symmetric], 9, 0.0) == ["symmetric", "cheaper"]
    assert worth_refining([whole, beaten, symmetric], 9, 0.0, is_symmetry_of_use=False) == []
    assert worth_refining([losing("whole", 0.0, True), symmetric], 9, 0.0) == []
