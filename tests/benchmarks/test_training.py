"""The comparisons of pruning name exactly the figures that were missed."""

from __future__ import annotations

from typing import Any

from benchmarks.training import mobilenet, transformer


def measured(times: float, lost: float, quality: float = 0.97) -> dict[str, Any]:
    return {
        "quality": quality,
        "times_fp32": {"value": times, "low": 0.98 * times, "high": 1.02 * times},
        "loss": {"value": lost},
    }


GOOD = {
    "channels": measured(1.5, 0.004),
    "unstructured": measured(1.0, 0.009),
    "two_of_four": measured(1.0, 0.01),
}
FASTER = {"than pruning": {"value": 1.4}, "than int8": {"value": 1.1}}


def test_a_run_that_reaches_everything_misses_nothing() -> None:
    assert mobilenet.misses(GOOD, FASTER) == []


def test_each_missed_figure_is_named() -> None:
    found = {**GOOD, "channels": measured(1.2, 0.011), "two_of_four": measured(1.0, 0.02)}
    missed = mobilenet.misses(found, {**FASTER, "than int8": {"value": 0.9}})
    wanted = ("1.20 times as fast as fp32", "channels loses 0.0110", "two_of_four loses 0.0200", "than int8")
    assert len(missed) == 4 and all(any(part in miss for miss in missed) for part in wanted)
    assert any("no int8 model" in miss for miss in mobilenet.misses(GOOD, {}))


def test_the_encoder() -> None:
    good = {"fp32": measured(1, 0), "pruned": measured(1.4, 0.002), "pruned int8-ptq-1": measured(2, 0.005)}
    assert transformer.misses(good) == []
    missed = transformer.misses({"fp32": measured(1, 0, 0.9), "pruned": measured(1.01, 0.02)})
    assert len(missed) == 4
