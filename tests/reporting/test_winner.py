"""The winner is the fastest inside the budget; fp32 can win and then says why; failures never win."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from act.errors import InputError
from act.reporting.winner import Choice, choose
from act.results.benchmark import FailedVariant, RanVariant, Variant
from act.settings import Budget
from tests.support.measured import entry, failed


def chosen(entries: Sequence[Variant], drop: float = 0.01, speedup: float = 1.0) -> Choice:
    rows = [row for row in entries if isinstance(row, (RanVariant, FailedVariant))]
    return choose(rows, Budget(max_quality_drop=drop, min_speedup=speedup))


FP32 = entry("openvino", "fp32", 10, 0.8)


def test_the_fastest_inside_the_budget_wins_over_the_fastest() -> None:
    choice = chosen([FP32, entry("openvino", "bf16", 4, 0.795), entry("openvino", "int8-ptq", 3, 0.75)])
    assert choice.winner.key == "openvino/bf16"
    assert "int8-ptq on OpenVINO loses 0.0500 of quality where 0.01 is allowed" in choice.why
    assert [row.inside_budget for row in choice.variants] == [True, True, False]


def test_a_pruned_model_is_judged_by_the_budget_though_it_runs_in_fp32() -> None:
    choice = chosen([FP32, entry("openvino", "pruned", 5, 0.798), entry("openvino", "int8-ptq", 6, 0.8)])
    assert choice.winner.key == "openvino/pruned" and choice.fp32.latency.median_ms == 10
    choice = chosen([FP32, entry("openvino", "pruned", 5, 0.7)])
    assert choice.winner.key == "openvino/fp32" and "pruned on OpenVINO" in choice.why


def test_a_wider_budget_gives_another_winner() -> None:
    rows = [FP32, entry("openvino", "bf16", 4, 0.795), entry("openvino", "int8-ptq", 3, 0.75)]
    choice = chosen(rows, drop=0.05)
    assert choice.winner.key == "openvino/int8-ptq"
    assert choice.why == "Nothing that was measured is faster."
    assert choice.fp32.latency.median_ms == 10


def test_the_budget_is_met_to_the_last_sample_despite_rounding() -> None:
    lost = 0.1 + 0.2 - 0.29  # a little more than 0.01
    assert lost > 0.01
    assert chosen([FP32, entry("openvino", "bf16", 4, 0.8 - lost)]).winner.name == "bf16"


def test_fp32_wins_when_everything_faster_loses_too_much_and_names_the_nearest() -> None:
    choice = chosen([FP32, entry("openvino", "bf16", 4, 0.78), entry("openvino", "int8-ptq", 3, 0.7)])
    assert choice.winner.name == "fp32"
    assert "Nearest: bf16 on OpenVINO (4.00 ms) loses 0.0200" in choice.why


def test_fp32_wins_when_nothing_is_faster_and_names_the_nearest() -> None:
    choice = chosen([FP32, entry("openvino", "bf16", 11, 0.8), entry("openvino", "int8-ptq", 14, 0.8)])
    assert choice.winner.name == "fp32"
    assert choice.why == (
        "fp32 stays, because nothing is faster. Nearest: bf16 on OpenVINO with 11.0 ms against 10.0 ms."
    )
    assert choice.variants[1].misses == ["is slower than fp32 (0.91\N{MULTIPLICATION SIGN})"]


def test_fp32_wins_when_nothing_else_ran() -> None:
    choice = chosen([FP32, failed("openvino", "bf16", "crash", "ended by SIGSEGV")])
    assert choice.why == "fp32 stays, because nothing else could be measured."
    assert choice.variants[1].misses == ["ended by SIGSEGV"]


def test_the_least_speedup_is_asked_of_candidates_and_not_of_fp32() -> None:
    rows = [FP32, entry("openvino", "bf16", 8, 0.8)]
    assert chosen(rows, speedup=1.25).winner.name == "bf16"
    choice = chosen(rows, speedup=1.5)
    assert choice.winner.name == "fp32"
    assert "is 1.25\N{MULTIPLICATION SIGN} as fast as fp32 where 1.50\N{MULTIPLICATION SIGN} is asked for" in choice.why


def test_the_fastest_engine_wins_though_another_gains_more_on_its_own_fp32() -> None:
    rows = [
        FP32,
        entry("openvino", "bf16", 4, 0.8),
        entry("onnxruntime", "fp32", 30, 0.8),
        entry("onnxruntime", "int8-ptq", 5, 0.8, fp32=(30, 0.8)),
    ]
    assert chosen(rows).winner.key == "openvino/bf16"
    assert chosen([rows[0], *rows[2:]]).winner.key == "onnxruntime/int8-ptq"


def test_the_drop_is_judged_on_the_same_engine() -> None:
    rows = [
        FP32,
        entry("paddle_inference", "fp32", 12, 0.7),
        entry("paddle_inference", "bf16", 3, 0.7, fp32=(12, 0.7)),
    ]
    choice = chosen(rows)
    assert choice.winner.key == "paddle_inference/bf16"
    assert choice.fp32.quality.value == 0.7


def test_equal_medians_go_to_the_smaller_drop_then_to_the_smaller_file() -> None:
    smaller = entry("openvino", "int8-ptq", 4, 0.796, size=300)
    bigger = entry("openvino", "bf16", 4, 0.796, size=1000)
    better = entry("onnxruntime", "int8-ptq", 4, 0.799)
    reference = entry("onnxruntime", "fp32", 10, 0.8)
    assert chosen([FP32, bigger, smaller]).winner.name == "int8-ptq"
    assert chosen([FP32, bigger, smaller, reference, better]).winner.key == "onnxruntime/int8-ptq"


def test_without_fp32_on_its_engine_a_candidate_cannot_win() -> None:
    rows = [
        FP32,
        failed("onnxruntime", "fp32", "timeout", "not done within its time limit of 5 s"),
        entry("onnxruntime", "int8-ptq", 1, 0.8, fp32=None),
    ]
    choice = chosen(rows)
    assert choice.winner.key == "openvino/fp32"
    assert choice.variants[2].misses == ["fp32 failed on this engine: nothing to compare with"]


def test_no_engine_at_all_is_an_error_with_the_causes() -> None:
    rows = [
        failed("openvino", "fp32", "missing", "no module named openvino"),
        failed("onnxruntime", "fp32", "crash", "ended by SIGILL"),
    ]
    with pytest.raises(InputError, match="openvino: no module named openvino; onnxruntime: ended by SIGILL"):
        chosen(rows)
