"""The winner is the fastest inside the budget; fp32 can win and then says why; failures never win."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from act.errors import InputError
from act.reporting.winner import Choice, choose
from act.results.benchmark import FailedVariant, MeasuredQuality, RanVariant, Variant
from act.settings import Budget
from tests.support.measured import entry, failed


def chosen(entries: Sequence[Variant], drop: float = 0.01, speedup: float = 1.0) -> Choice:
    rows = [row for row in entries if isinstance(row, (RanVariant, FailedVariant))]
    return choose(rows, Budget(max_quality_drop=drop, min_speedup=speedup))


FP32 = entry("openvino", "fp32", 10, 0.8)
GIVEN = entry("openvino", "given", 10, 0.8, is_reference=True)


def test_the_fastest_inside_the_budget_wins_over_the_fastest() -> None:
    choice = chosen([FP32, entry("openvino", "bf16", 4, 0.795), entry("openvino", "int8-ptq", 3, 0.75)])
    assert choice.winner.key == "openvino/bf16"
    assert "int8-ptq on OpenVINO loses 0.0500 of quality where 0.01 is allowed" in choice.why
    assert [row.inside_budget for row in choice.variants] == [True, True, False]


def test_a_pruned_model_is_judged_by_the_budget_though_it_runs_in_fp32() -> None:
    choice = chosen([FP32, entry("openvino", "pruned", 5, 0.798), entry("openvino", "int8-ptq", 6, 0.8)])
    assert choice.winner.key == "openvino/pruned" and choice.reference.latency.median_ms == 10
    choice = chosen([FP32, entry("openvino", "pruned", 5, 0.7)])
    assert choice.winner.key == "openvino/fp32" and "pruned on OpenVINO" in choice.why


def test_a_wider_budget_gives_another_winner() -> None:
    rows = [FP32, entry("openvino", "bf16", 4, 0.795), entry("openvino", "int8-ptq", 3, 0.75)]
    choice = chosen(rows, drop=0.05)
    assert choice.winner.key == "openvino/int8-ptq"
    assert choice.why == "Nothing that was measured is faster."
    assert choice.reference.latency.median_ms == 10


def test_a_bound_on_the_worst_part_refuses_what_keeps_less_of_it() -> None:
    def keeping(share: float, name: str, milliseconds: float) -> RanVariant:
        notes = {"worst_part": "output `scores`, axis 2, index 4"}
        quality = MeasuredQuality.model_validate({"value": 0.8, "worst_part": share, "notes": notes})
        return entry("openvino", name, milliseconds, 0.8).model_copy(update={"quality": quality})

    kept, lost = keeping(0.97, "bf16", 4), keeping(0.4, "int8-ptq", 3)
    choice = choose([FP32, kept, lost], Budget(min_worst_part=0.9))
    assert choice.winner.name == "bf16"
    assert choice.variants[2].misses == ["keeps 0.4000 of output `scores`, axis 2, index 4 where 0.9 is asked for"]
    assert choose([FP32, kept, lost], Budget()).winner.name == "int8-ptq"


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


def test_all_engines_are_compared_with_the_given_model_where_it_is_fastest() -> None:
    rows = [
        GIVEN,
        entry("openvino", "fp32", 9, 0.8, is_reference=False),
        entry("onnxruntime", "given", 30, 0.8),
        entry("onnxruntime", "fp32", 30, 0.8),
        entry("onnxruntime", "int8-ptq", 12, 0.8),
    ]
    choice = chosen(rows)
    assert choice.reference.key == "openvino/given" and choice.winner.key == "openvino/fp32"
    # 2.5 times as fast as fp32 on its own engine, and no gain for the user.
    assert choice.variants[4].misses == ["is slower than the given model (0.83\N{MULTIPLICATION SIGN})"]
    rows[0] = GIVEN.model_copy(update={"precision": "int8"})
    assert chosen(rows).variants[4].misses == ["is slower than the given int8 model (0.83\N{MULTIPLICATION SIGN})"]


def test_an_engine_that_loses_quality_in_fp32_is_charged_with_it() -> None:
    choice = chosen([FP32, entry("paddle_inference", "fp32", 3, 0.7), entry("paddle_inference", "bf16", 2, 0.7)])
    assert choice.winner.key == "openvino/fp32" and choice.reference.quality.value == 0.8


def test_the_given_model_stays_in_a_sentence_of_its_own() -> None:
    choice = chosen([GIVEN, entry("openvino", "fp32", 11, 0.8, is_reference=False)])
    assert choice.why.startswith("The given model stays, because nothing is faster. Nearest: fp32 on OpenVINO")


def test_equal_medians_go_to_the_smaller_drop_then_to_the_smaller_file() -> None:
    smaller = entry("openvino", "int8-ptq", 4, 0.796, size=300)
    bigger = entry("openvino", "bf16", 4, 0.796, size=1000)
    better = entry("onnxruntime", "int8-ptq", 4, 0.799)
    reference = entry("onnxruntime", "fp32", 10, 0.8)
    assert chosen([FP32, bigger, smaller]).winner.name == "int8-ptq"
    assert chosen([FP32, bigger, smaller, reference, better]).winner.key == "onnxruntime/int8-ptq"


def test_no_engine_at_all_is_an_error_with_the_causes() -> None:
    rows = [
        failed("openvino", "fp32", "missing", "no module named openvino"),
        failed("onnxruntime", "fp32", "crash", "ended by SIGILL"),
    ]
    with pytest.raises(InputError, match="openvino: no module named openvino; onnxruntime: ended by SIGILL"):
        chosen(rows)
