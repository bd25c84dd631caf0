"""The rounds are fair, and what fails in them stays where it belongs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from act.engines.process import EngineFailure, EngineProcess, LoadInfo, WarmUp
from act.settings import Timing
from act.timing.rounds import TimedModel, time_in_rounds
from act.timing.side_by_side import Measured, figures_of, measure_side_by_side

WARM = WarmUp(runs=20, seconds=0.1, first_seconds=0.01, steady=True)
CRASH = EngineFailure("crash", "ended by SIGSEGV")
REFUSAL = EngineFailure("error", "the axis is fixed")


class Process:
    """Stands for an engine process: answers at once, and tells a list what it was asked.

    Args:
        fails: by what it is asked, or by the turn of some inputs, what it then fails with.
    """

    pid = 1

    def __init__(self, name: str, told: list[tuple[str, str]], fails: Mapping[str, EngineFailure]) -> None:
        self.name, self.told, self.fails, self.closed = name, told, fails, False

    def _asked(self, what: str) -> None:
        self.told.append((what, self.name))
        if what in self.fails:
            raise self.fails[what]

    def warm_up(self, samples: Path, batch: int, seconds: float) -> WarmUp:
        self._asked(f"warm up {samples}")
        return WARM

    def time(self, samples: Path, batch: int, runs: int) -> list[float]:
        turn = sum(each == (f"time {samples}", self.name) for each in self.told)
        self._asked(f"time {samples}")
        if f"turn {turn} of {samples}" in self.fails:
            raise self.fails[f"turn {turn} of {samples}"]
        return [0.01] * runs

    def throughput(self, samples: Path, batch: int, streams: int, seconds: float) -> float:
        self._asked(f"{streams} streams")
        return 100.0

    def peak_rss_bytes(self) -> int:
        return 1000

    def operators(self) -> dict[str, Any]:
        self._asked("operators")
        return {"multiplying": {"int8": {"Conv": 1}}}

    def profile(self, samples: Path, batch: int) -> list[dict[str, Any]]:
        self._asked("profile")
        kernels = [("Conv", "u8", 0.001), ("Reorder", "f32", 0.0004), ("Conv", "u8", 0.002), ("Conv", "f32", 0.004)]
        return [{"kind": kind, "precision": precision, "seconds": each} for kind, precision, each in kernels]

    def close(self) -> None:
        self.closed = True


def timed(name: str, told: list[tuple[str, str]], fails: Mapping[str, EngineFailure] | None = None) -> TimedModel:
    return TimedModel(cast(EngineProcess, Process(name, told, fails or {})), Path("0"), 1, 2)


def measured(
    names: str, shapes: int = 1, streams: int = 1, **fails: dict[str, EngineFailure]
) -> tuple[list[Measured], list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    everything = []
    for name in names:
        process = cast(EngineProcess, Process(name, told, fails.get(name, {})))
        inputs = [TimedModel(process, Path(str(shape)), 1, 2, {"x": [1, shape + 1]}) for shape in range(shapes)]
        everything.append(Measured(process, inputs, LoadInfo("1", ["fp32"], 0.1, 1000, {})))
    settings = Timing(rounds=6, runs_per_round=2, seconds=0, streams=streams)
    measure_side_by_side(everything, {"a": everything[0]}, 1, settings, lambda done: None)
    return everything, told


def test_every_round_has_everyone_once_in_an_order_of_its_own() -> None:
    told: list[tuple[str, str]] = []
    models = [timed(name, told) for name in "abcde"]
    counted: list[int] = []
    time_in_rounds(models, 6, after_round=counted.append)
    orders = ["".join(name for _, name in told[start : start + 5]) for start in range(0, 30, 5)]
    assert counted == [1, 2, 3, 4, 5, 6] and len(told) == 30
    assert all(sorted(order) == list("abcde") for order in orders) and len(set(orders)) > 3
    assert all(model.rounds == [[0.01, 0.01]] * 6 and model.typical_seconds == 0.01 for model in models)


def test_who_fails_or_took_long_takes_no_further_turns_and_the_others_go_on() -> None:
    told: list[tuple[str, str]] = []
    models = [timed("a", told), timed("b", told, {"turn 2 of 0": CRASH})]
    time_in_rounds(models, 4)
    assert [len(model.rounds) for model in models] == [4, 2] and models[1].failure is CRASH
    time_in_rounds(models[:1], 4, most_seconds=0.1)
    assert len(models[0].rounds) == 5, "four rounds took 0.08 s"


def test_small_models_get_more_rounds_for_the_time_that_is_wanted() -> None:
    model = timed("a", [])
    time_in_rounds([model], 3, least_seconds=0.05)
    assert len(model.rounds) > 3
    failed = timed("b", [])
    failed.failure = CRASH
    time_in_rounds([failed], 3, least_seconds=3600)
    assert failed.rounds == []


def test_a_refused_shape_is_missing_alone_and_the_first_fails_the_row() -> None:
    (one, two), told = measured("ab", shapes=2, a={"warm up 1": REFUSAL}, b={"warm up 0": REFUSAL})
    assert one.failure is None and one.timed[1].failure is REFUSAL and two.failure is REFUSAL
    assert ("time 1", "a") not in told and ("time 0", "b") not in told and ("time 1", "b") not in told
    entry = figures_of(one, one, 1, seed=0).model_dump()
    assert [shape["inputs"] for shape in entry["shapes"]] == [{"x": [1, 1]}, {"x": [1, 2]}]
    assert entry["shapes"][0]["speedup"]["value"] == 1 and entry["shapes"][1]["failure"]["cause"] == "the axis is fixed"
    assert entry["throughput"] is None
    assert figures_of(two, one, 1, seed=0).model_dump()["failure"] == {"kind": "error", "cause": "the axis is fixed"}
    assert cast(Process, two.process).closed and not cast(Process, one.process).closed


def test_a_crash_ends_a_row_and_one_in_the_streams_costs_only_the_throughput() -> None:
    (one, two, three), told = measured("abc", streams=4, a={"turn 2 of 0": CRASH}, b={"4 streams": CRASH})
    assert one.failure is CRASH and told.count(("time 0", "a")) == 3
    assert two.failure is None and two.streams_failure is CRASH and ("4 streams", "a") not in told
    assert figures_of(two, None, 4, seed=0).model_dump()["throughput"]["failure"]["cause"] == "ended by SIGSEGV"
    assert figures_of(two, None, 4, seed=0).model_dump()["operators"]["multiplying"] == {"int8": {"Conv": 1}}
    throughput = figures_of(three, None, 4, seed=0).model_dump()["throughput"]
    assert (throughput["streams"], throughput["per_second"], len(three.streams)) == (4, 100, 3)
    assert three.main.rounds == [[0.01, 0.01]] * 6 and three.peak_rss_bytes == 1000


def test_kernels_are_added_up_by_kind_and_precision_and_a_refusal_leaves_none() -> None:
    (one, two), _ = measured("ab", b={"profile": EngineFailure("crash", "gone")})
    groups = [(each.kind, each.precision, each.count) for each in one.kernels]
    assert groups == [("Conv", "f32", 1), ("Conv", "u8", 2), ("Reorder", "f32", 1)]
    assert [each.ms for each in one.kernels] == pytest.approx([4, 3, 0.4])
    assert two.kernels == [] and two.failure is None
