"""Activations: what is computed, and by which operators of Paddle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.formats.onnx.support import assert_nodes_same, node, op_types, values

FREE = {"x": ["N", 3, 4, 5]}
X = values(2, 3, 4, 5) * 4


@pytest.mark.parametrize(
    ("kind", "opset", "attributes", "types"),
    [
        ("LeakyRelu", 7, {"alpha": 0.2}, ["leaky_relu"]),
        ("HardSigmoid", 7, {"alpha": 1 / 6}, ["hard_sigmoid"]),
        ("HardSwish", 14, {}, ["hard_swish"]),
        ("Elu", 7, {"alpha": 0.5}, ["elu"]),
        ("Selu", 7, {}, ["selu"]),
        ("Selu", 7, {"gamma": 0.5}, ["elu", "scale"]),
        ("Celu", 12, {}, ["elu"]),
        ("Celu", 12, {"alpha": 2.0}, ["scale", "elu", "scale"]),
        ("Gelu", 20, {}, ["gelu"]),
        ("Mish", 18, {}, ["mish"]),
        ("Softplus", 7, {}, ["softplus"]),
        ("ThresholdedRelu", 10, {"alpha": 0.3}, ["thresholded_relu"]),
    ],
)
def test_activations_are_one_operator(kind: str, opset: int, attributes: dict[str, Any], types: list[str]) -> None:
    model = assert_nodes_same([node(kind, "x", **attributes)], {"x": X}, {}, opset, FREE)
    assert op_types(model) == types


@pytest.mark.parametrize(
    ("slope", "mode"),
    [
        ((1,), "all"),
        ((), "all"),
        ((3, 1, 1), "channel"),
        ((1, 3, 1, 1), "channel"),
        ((5,), "element"),
        ((3, 4, 5), "element"),
    ],
)
def test_slopes_of_prelu_are_weights(slope: tuple[int, ...], mode: str) -> None:
    for opset in (7, 16):
        model = assert_nodes_same([node("PRelu", "x,s")], {"x": X}, {"s": np.asarray(values(*slope))}, opset, FREE)
        assert [(op.type, op.attr("mode")) for op in model.ops] == [("prelu", mode)]


def test_slopes_that_prelu_does_not_take() -> None:
    free = {"x": ["N", 3, "H", "W"]}
    assert_nodes_same([node("PRelu", "x,s")], {"x": X}, {"s": values(4, 1)}, 9, free)
    assert_nodes_same([node("PRelu", "x,s")], {"x": X, "s": values(3, 1, 1)}, {}, 16, free)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [1, 2, -1, None])
def test_softmax_of_flattened_axes_and_of_one(kind: str, axis: int | None) -> None:
    attributes = {} if axis is None else {"axis": axis}
    for opset in (7, 11, 13):
        model = assert_nodes_same([node(kind, "x", **attributes)], {"x": X}, {}, opset, FREE)
        flattens = opset < 13 and axis != -1
        assert ("reshape2" in op_types(model)) == flattens
    if axis != 2:
        assert_nodes_same([node(kind, "x", **attributes)], {"x": values(2, 6)}, {}, 9, {"x": ["N", 6]})
