"""Reductions, with axes as an attribute and as an input."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from act.errors import InputError
from tests.formats.onnx.support import assert_nodes_same, values

FREE = {"x": ["N", 3, 4, 5]}
X = np.abs(values(2, 3, 4, 5)) + 0.1
KINDS = [
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"),
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_reductions(kind: str) -> None:
    for axes in ((2, 3), (-1,), (0, 2), None):
        for keepdims in (0, 1):
            attributes = {} if axes is None else {"axes": axes}
            assert_nodes_same(
                [helper.make_node(kind, ["x"], ["y"], keepdims=keepdims, **attributes)], {"x": X}, {}, 11, FREE
            )
            constants = {} if axes is None else {"axes": np.array(axes)}
            node = helper.make_node(kind, ["x", *constants], ["y"], keepdims=keepdims)
            assert_nodes_same([node], {"x": X}, constants, 18, FREE)


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMax", "ReduceProd", "ReduceL1", "ReduceSumSquare"])
def test_reductions_of_whole_numbers_keep_their_dtype(kind: str) -> None:
    for dtype in (np.int32, np.int64):
        x = np.array([[1, -2, 3], [4, 5, 6]], dtype)
        assert_nodes_same([helper.make_node(kind, ["x"], ["y"], axes=[1])], {"x": x}, {}, 12, {"x": ["N", 3]})


def test_more_axes_than_logsumexp_takes() -> None:
    node = helper.make_node("ReduceLogSumExp", ["x"], ["y"], axes=[2, 4], keepdims=0)
    assert_nodes_same([node], {"x": values(2, 3, 2, 2, 3) * 50}, {}, 13, {"x": ["N", 3, 2, 2, 3]})


def test_no_axes() -> None:
    none = {"axes": np.array([], np.int64)}
    for kind in ("ReduceSum", "ReduceMax", "ReduceLogSumExp"):
        assert_nodes_same(
            [helper.make_node(kind, ["x", "axes"], ["y"], noop_with_empty_axes=1)], {"x": X}, none, 18, FREE
        )
        assert_nodes_same([helper.make_node(kind, ["x", "axes"], ["y"])], {"x": X}, none, 18, FREE)
    with pytest.raises(InputError, match="along no axes"):
        assert_nodes_same(
            [helper.make_node("ReduceL1", ["x", "axes"], ["y"], noop_with_empty_axes=1)], {"x": X}, none, 18, FREE
        )
