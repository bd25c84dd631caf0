"""ONNX's own tests of single operators, on what the importer makes of them."""

from __future__ import annotations

from collections import Counter

from benchmarks.onnx_nodes import Outcome, known_operators, operators, run_apart

LEAST_PASSED, LEAST_OPERATORS = 0.97, 110

# Tests that come to something else, and why that is right, or of no matter.
DIFFERENT = {
    **dict.fromkeys(
        ("2D_int8_float32", "2D_int8_float16", "3D_int8_float32", "3D_int8_float16"),
        "the sum overflows in the test; here it is cut off, as in ONNX Runtime",
    ),
    **dict.fromkeys(("same_values", "same_values_2d", "same_values_largest"), "the order of equal values is open"),
    **dict.fromkeys(("empty_set", "empty_set_non_reduced_axis_zero"), "Paddle takes no empty tensors: an error"),
    **dict.fromkeys(
        ("downsample_scales_linear_align_corners", "downsample_scales_cubic_align_corners"),
        "by the length of the result and not by the scale, as in ONNX Runtime",
    ),
    "l2normalization_axis_0": "a vector of zeros stays one",
}


def test_nearly_all_of_onnxs_own_tests_pass_and_nothing_is_silently_wrong() -> None:
    scope = known_operators()
    assert len(scope) >= LEAST_OPERATORS
    names = [name for kind, tests in operators().items() if kind in scope for name in tests]
    outcomes = list(run_apart(names))
    assert len(outcomes) == len(names)
    counts = Counter(each.outcome for each in outcomes)
    wrong = [each for each in outcomes if each.outcome in ("failed", "crashed") and not is_known(each)]
    assert not wrong, "\n".join(f"{each.test}: {each.message}" for each in wrong)
    assert (counts["passed"] + counts["constant"]) / len(names) >= LEAST_PASSED, counts


def is_known(outcome: Outcome) -> bool:
    return any(outcome.test.endswith(ending) for ending in DIFFERENT)
