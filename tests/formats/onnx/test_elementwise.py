"""Arithmetic, comparisons, choices, bounds and casts: what is computed, and by which operators of Paddle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from act.errors import InputError
from act.program.model import InferenceModel
from act.samples.dataset import Array
from tests.formats.onnx.support import assert_nodes_same, node, op_types, values

FREE = {"x": ["N", 3, 4, 5]}
X = values(2, 3, 4, 5)


@pytest.mark.parametrize("opset", [7, 13])
@pytest.mark.parametrize("constant", [np.array(2, np.float32), np.full((1, 1, 1), 0.3, np.float32)])
def test_arithmetic_with_one_number_is_a_scale(constant: Array, opset: int) -> None:
    for kind, inputs in (("Add", "x,c"), ("Add", "c,x"), ("Mul", "c,x"), ("Sub", "x,c"), ("Sub", "c,x")):
        assert op_types(assert_nodes_same([node(kind, inputs)], {"x": X}, {"c": constant}, opset, FREE)) == ["scale"]
    # The inverse of 0.3 is no float32.
    expected = "scale" if constant.item() == 2 else "elementwise_div"
    assert op_types(assert_nodes_same([node("Div", "x,c")], {"x": X}, {"c": constant}, opset, FREE)) == [expected]
    assert op_types(assert_nodes_same([node("Div", "c,x")], {"x": X}, {"c": constant}, opset, FREE)) == [
        "elementwise_div"
    ]


@pytest.mark.parametrize("shape", [(3, 1, 1), (5,), (1, 3, 4, 1)])
def test_constants_stand_second_as_weights(shape: tuple[int, ...]) -> None:
    for kind, op_type in (("Add", "elementwise_add"), ("Mul", "elementwise_mul"), ("Max", "elementwise_max")):
        model = assert_nodes_same([node(kind, "c,x")], {"x": X}, {"c": values(*shape, seed=1)}, 9, FREE)
        assert op_types(model) == [op_type]
        assert model.weight(model.ops[0].input("Y")[0]).shape == shape
    assert_nodes_same([node("Div", "c,x")], {"x": X}, {"c": values(*shape, seed=1)}, 9, FREE)


def test_lone_numbers_survive_saving(tmp_path: Path) -> None:
    number = np.array(0.3, np.float32)
    model = assert_nodes_same([node("Div", "x,c", "d"), node("Max", "d,c")], {"x": X}, {"c": number}, 13, FREE)
    model.save(tmp_path)
    np.testing.assert_array_equal(InferenceModel.load(tmp_path).run({"x": X})[0], model.run({"x": X})[0])
    assert_nodes_same([node("Max", "x,c")], {"x": np.array(3, np.float32)}, {"c": number}, 13)
    assert_nodes_same([node("Add", "x,c")], {"x": np.array(3, np.float32)}, {"c": values(2)}, 13)


def test_whole_numbers() -> None:
    x, three = {"x": np.array([7, -7, 9, -9])}, {"c": np.array(3)}
    for kind, attributes in (("Div", {}), ("Mod", {}), ("Mod", {"fmod": 1}), ("Pow", {}), ("Equal", {}), ("Max", {})):
        assert_nodes_same([node(kind, "x,c", **attributes)], x, three, 13, {"x": ["N"]})
        assert_nodes_same([node(kind, "c,x", **attributes)], {"x": np.array([1, 2, 5])}, three, 13, {"x": ["N"]})


def test_halves_are_rounded_to_even_numbers() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 8388609, 1e10, -3.7], np.float32)
    assert_nodes_same([node("Round", "x")], {"x": x}, {}, 11, tolerance=0)


def test_floats_that_differ_by_little_are_not_equal() -> None:
    feeds = {"x": np.array([0, 1e-9, -1e-9, 1], np.float32)}
    assert_nodes_same([node("Equal", "x,c")], feeds, {"c": np.array(0, np.float32)}, 13)
    assert op_types(assert_nodes_same([node("Equal", "x,c")], feeds, {"c": np.array(1, np.float32)}, 13)) == ["equal"]


@pytest.mark.parametrize("kind", ["Asinh", "Acosh", "Atanh"])
def test_inverse_hyperbolic_functions_are_exact(kind: str) -> None:
    domain = {"Asinh": [-1e3, -1e-6, 0, 1e-3, 1e5], "Acosh": [1, 1.0001, 5, 1e5], "Atanh": [-0.999, 1e-6, 0.5]}[kind]
    assert_nodes_same([node(kind, "x")], {"x": np.array(domain, np.float32)}, {}, 11, tolerance=1e-12)


FLAGS = X[:, :1, :, :] > 0


@pytest.mark.parametrize(
    ("feeds", "constants", "shapes"),
    [
        ({"x": X}, {"c": FLAGS[:1], "z": np.array(-np.inf, np.float32)}, FREE),
        ({"c": FLAGS, "x": X}, {"z": np.array(-1e9, np.float32)}, {"c": ["N", 1, "H", "W"], "x": ["N", 3, "H", "W"]}),
        ({"c": FLAGS, "x": X, "z": values(1, 3, 1, 1)}, {}, {"c": ["A", 1, "B", 5], "x": ["C", 3, 4, "D"]}),
        ({"c": FLAGS[:, 0, :, :1]}, {"x": values(1, 3), "z": values(3)}, {"c": ["N", 4, 1]}),
        ({"c": FLAGS}, {"x": np.array(2**40 + 1), "z": np.array(0)}, {"c": ["N", 1, 4, 5]}),
    ],
)
def test_where_broadcasts(feeds: dict[str, Array], constants: dict[str, Array], shapes: dict[str, Any]) -> None:
    assert_nodes_same([node("Where", "c,x,z")], feeds, constants, 9, shapes)


@pytest.mark.parametrize(
    ("low", "high", "op_type"),
    [(0, 6, "relu6"), (-1, 1, "clip"), (0, None, "relu"), (0.5, None, "clip"), (None, 1, "clip")],
)
def test_clip(low: float | None, high: float | None, op_type: str) -> None:
    bounds = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
    older = assert_nodes_same(
        [node("Clip", "x", **{k: float(v) for k, v in bounds.items()})], {"x": X * 5}, {}, 7, FREE
    )
    constants = {name: np.array(value, np.float32) for name, value in bounds.items()}
    newer = [node("Clip", "x," + ",".join(name if name in bounds else "" for name in ("min", "max")))]
    assert op_types(older) == op_types(assert_nodes_same(newer, {"x": X * 5}, constants, 12, FREE)) == [op_type]
    assert_nodes_same(newer, {"x": X * 5, **constants}, {}, 12, FREE)
    whole = {name: np.array(2**40 * int(value)) for name, value in bounds.items()}
    assert_nodes_same(newer, {"x": np.array([1, -(2**50), 2**50])}, whole, 12)


def test_casts() -> None:
    for to in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8):
        for x in (np.abs(X * 9), np.array([0, 1, 100], np.int8), np.array([True, False])):
            assert_nodes_same([node("Cast", "x", to=to)], {"x": x}, {}, 13, {"x": ["N", *x.shape[1:]]})


def test_dropout_is_taken_for_inference_alone() -> None:
    assert op_types(assert_nodes_same([node("Dropout", "x", ratio=0.3)], {"x": X}, {}, 7, FREE)) == ["assign"]
    ratio = {"r": np.array(0.3, np.float32)}
    assert_nodes_same([node("Dropout", "x,r", "y,mask")], {"x": X}, ratio, 13, FREE)
    with pytest.raises(InputError, match="as in training"):
        assert_nodes_same([node("Dropout", "x,r,t")], {"x": X}, {**ratio, "t": np.array(True)}, 13, FREE)


def test_lengths_as_floats() -> None:
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape,last", "length"),
        node("Cast", "length", "float", to=TensorProto.FLOAT),
        node("Sqrt", "float", "root"),
        node("Div", "x,root", "divided"),
        node("Mul", "divided,float"),
    ]
    assert_nodes_same(nodes, {"x": X}, {"last": np.array(3)}, 13, {"x": ["N", 3, 4, "W"]})


@pytest.mark.parametrize("kind", [TensorProto.UINT16, TensorProto.UINT32])
def test_negative_numbers_wrap_around_where_cast_to_unsigned_ones(kind: int) -> None:
    nodes = [node("Cast", "x", "u", to=kind), node("Cast", "u", to=TensorProto.INT64)]
    assert_nodes_same(nodes, {"x": np.array([[-1, 5, -70000, 2**33]])}, {}, 13, {"x": ["N", 4]})


def test_negative_constants_wrap_around_where_cast_to_unsigned_ones() -> None:
    nodes = [node("Cast", "a", "u", to=TensorProto.UINT32), node("Cast", "u", "c", to=TensorProto.FLOAT)]
    nodes.append(node("Add", "x,c"))
    assert_nodes_same(nodes, {"x": values(3, 2)}, {"a": np.array([-1, 7])}, 14, {"x": ["N", 2]})
