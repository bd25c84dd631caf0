"""Quantized operators give what ONNX Runtime gives, to the last number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from act.samples.dataset import Array
from tests.formats.onnx.support import assert_nodes_same, op_types, values

SCALE = np.array(0.037, np.float32)
X = values(2, 3, 4, 5) * 4


def bytes_of(*shape: int, dtype: type[np.integer[Any]] = np.uint8, seed: int = 0) -> Array:
    """Return whole numbers over the whole range of a dtype of 8 bits."""
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("zero", [np.array(128, np.uint8), np.array(-3, np.int8), None])
@pytest.mark.parametrize("opset", [10, 13, 21])
def test_quantizing_and_back(zero: Array | None, opset: int) -> None:
    constants = {"s": SCALE} | ({} if zero is None else {"z": zero})
    inputs = list(constants)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *inputs], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *inputs], ["y"]),
    ]
    free = {"x": ["N", 3, 4, 5]}
    assert_nodes_same(nodes[:1], {"x": X}, constants, opset, free, tolerance=0)
    assert_nodes_same(nodes, {"x": X}, constants, opset, free, tolerance=0)


@pytest.mark.parametrize("axis", [1, -1])
def test_quantizing_per_axis(axis: int) -> None:
    length = X.shape[axis]
    constants = {"s": np.abs(values(length)) + 0.01, "z": np.arange(length).astype(np.int8)}
    nodes = [
        helper.make_node(f"{kind}Linear", [x, "s", "z"], [y], axis=axis)
        for kind, x, y in (("Quantize", "x", "q"), ("Dequantize", "q", "y"))
    ]
    assert_nodes_same(nodes[:1], {"x": X}, constants, 13, {"x": ["N", 3, 4, 5]}, tolerance=0)
    assert_nodes_same(nodes, {"x": X}, constants, 13, {"x": ["N", 3, 4, 5]}, tolerance=0)


def test_a_quantized_weight_becomes_a_weight() -> None:
    for opset in (10, 13, 21):
        constants = {"w": bytes_of(5, 6, dtype=np.int8), "s": SCALE, "z": np.array(3, np.int8)}
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
            helper.make_node("Max", ["x", "v"], ["y"]),
        ]
        model = assert_nodes_same(nodes, {"x": values(5, 6)}, constants, opset)
        assert op_types(model) == ["elementwise_max"]


@pytest.mark.parametrize("x", [X, np.abs(X), -np.abs(X)])
def test_ranges_found_at_run_time(x: Array) -> None:
    assert_nodes_same(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])], {"x": x}, {}, 11, tolerance=0
    )


@pytest.mark.parametrize("length", [4, 700])
def test_products_of_whole_numbers(length: int) -> None:
    a, b = bytes_of(2, 3, length), bytes_of(length, 6, dtype=np.int8)
    free = {"a": ["N", 3, length]}
    zeros = {"az": np.array(7, np.uint8), "bz": np.arange(6).astype(np.int8)}
    assert_nodes_same(
        [helper.make_node("MatMulInteger", ["a", "b", "az", "bz"], ["y"])],
        {"a": a},
        {"b": b, **zeros},
        10,
        free,
        tolerance=0,
    )
    assert_nodes_same([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], {"a": a, "b": b}, {}, 10, tolerance=0)
    constants = {"as": SCALE, "az": np.array(120, np.uint8), "b": b, "bs": SCALE, "bz": np.array(0, np.int8)}
    constants |= {"ys": np.array(0.5, np.float32), "yz": np.array(100, np.uint8)}
    assert_nodes_same(
        [helper.make_node("QLinearMatMul", ["a", *constants], ["y"])], {"a": a}, constants, 10, free, tolerance=0
    )


@pytest.mark.parametrize(
    "attributes",
    [{"pads": [1, 0, 1, 1], "strides": [2, 2]}, {"auto_pad": "SAME_UPPER"}, {"dilations": [2, 2]}],
)
def test_convolutions_of_whole_numbers(attributes: dict[str, Any]) -> None:
    feeds, free = {"x": bytes_of(2, 3, 9, 9)}, {"x": ["N", 3, 9, 9]}
    constants = {"w": bytes_of(4, 3, 3, 3), "xz": np.array(7, np.uint8), "wz": np.array(3, np.uint8)}
    assert_nodes_same(
        [helper.make_node("ConvInteger", ["x", *constants], ["y"], **attributes)],
        feeds,
        constants,
        10,
        free,
        tolerance=0,
    )
    constants = {"xs": SCALE, "xz": np.array(120, np.uint8), "w": bytes_of(4, 3, 3, 3, dtype=np.int8)}
    constants |= {"ws": np.array([0.01, 0.02, 0.03, 0.04], np.float32), "wz": np.zeros(4, np.int8)}
    constants |= {
        "ys": np.array(0.9, np.float32),
        "yz": np.array(100, np.uint8),
        "b": np.array([100, -200, 3000, 5], np.int32),
    }
    assert_nodes_same(
        [helper.make_node("QLinearConv", ["x", *constants], ["y"], **attributes)],
        feeds,
        constants,
        10,
        free,
        tolerance=0,
    )
    constants["w"] = constants["w"][:, :, 0]
    flat = {
        name: [each[0], *each[2:3]] if name == "pads" else each[1:] if name != "auto_pad" else each
        for name, each in attributes.items()
    }
    assert_nodes_same(
        [helper.make_node("QLinearConv", ["x", *constants], ["y"], **flat)],
        {"x": feeds["x"][:, :, 0]},
        constants,
        10,
        {"x": ["N", 3, 9]},
        tolerance=0,
    )
