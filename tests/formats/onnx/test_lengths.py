"""What is computed of lengths that are known when the model runs only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from act.errors import InputError
from act.formats.onnx.dimension import TooDeep, dimension, factors, truncated_quotient
from tests.formats.onnx.support import INT64, assert_same, imported, model_of, node, on_onnxruntime

LENGTHS = [node("Shape", "x", "s"), node("Gather", "s,two", "h"), node("Gather", "s,three", "w")]
WHOLE = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "three": np.array(3), "ten": np.array(10)}
REAL = {
    "zero.": np.float32(0),
    "half.": np.float32(0.5),
    "one.": np.float32(1),
    "four.": np.float32(4),
    "ten.": np.float32(10),
}
AXES = {"first": np.array([0]), "rows": np.array([2])}
SHAPES = ((2, 3, 7, 9), (1, 3, 4, 6), (1, 3, 20, 2))
FLOAT, INT32, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.DOUBLE


def _assert_same(nodes: Sequence[onnx.NodeProto], kind: int = INT64, more: Mapping[str, object] | None = None) -> None:
    """Assert that the last node's outcome `y` is ONNX Runtime's for inputs of several shapes."""
    used = {name for each in (*LENGTHS, *nodes) for name in each.input}
    constants = {name: value for name, value in {**WHOLE, **REAL, **AXES}.items() if name in used} | dict(more or {})
    proto = model_of([*LENGTHS, *nodes], {"x": ["N", 3, "H", "W"]}, ["y"], constants, types={"y": kind})
    model = imported(proto)
    for shape in SHAPES:
        feeds = {"x": np.ones(shape, np.float32)}
        (have,), (want,) = model.run(feeds), on_onnxruntime(proto, feeds)
        assert (np.asarray(have).dtype, np.shape(have)) == (want.dtype, want.shape)
        np.testing.assert_allclose(have, want, rtol=1e-6)


@pytest.mark.parametrize("kind", ["Max", "Min"])
@pytest.mark.parametrize("inputs", ["h", "h,w", "h,w,three", "ten,h,w,two"])
def test_all_inputs_of_max_and_min_count(kind: str, inputs: str) -> None:
    _assert_same([node(kind, inputs)])


def test_all_constants_of_max_and_min_count() -> None:
    constants = {name: np.float32(value) for name, value in (("a", 1), ("b", 2), ("c", 3))}
    nodes = [node("Max", "a,b,c", "m"), node("Min", "c,b,a", "n"), node("Add", "m,n", "k"), node("Mul", "x,k", "y")]
    assert_same(model_of(nodes, {"x": ["N", 3]}, ["y"], constants), {"x": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize("kind", ["Identity", "Neg", "Sqrt", "Round", "Exp"])
def test_real_lengths_keep_their_fractions(kind: str) -> None:
    _assert_same([node("Cast", "h", "f", to=FLOAT), node("Mul", "f,half.", "p"), node(kind, "p")], FLOAT)


@pytest.mark.parametrize("chosen", [True, False])
def test_real_lengths_keep_their_fractions_through_a_branch(chosen: bool) -> None:
    branches = {}
    for name, factor in (("then_branch", "half."), ("else_branch", "four.")):
        output = helper.make_tensor_value_info(f"{name}.inner", FLOAT, None)
        body = [node("Mul", f"f,{factor}", f"{name}.product"), node("Mul", f"{name}.product,half.", f"{name}.inner")]
        branches[name] = helper.make_graph(body, name, [], [output])
    _assert_same(
        [node("Cast", "h", "f", to=FLOAT), node("If", "c", "y", **branches)],
        FLOAT,
        {"c": np.array(chosen), "half.": REAL["half."], "four.": REAL["four."]},
    )


@pytest.mark.parametrize("count", [20, 300])
def test_lengths_that_share_much_take_no_time(count: int) -> None:
    nodes = [node("Min", "h,one", "p0")]
    nodes += [node("Add", f"p{index},p{index}", f"q{index}") for index in range(count)]
    nodes += [node("Sub", f"q{index},p{index}", f"p{index + 1}") for index in range(count)]
    nodes = [nodes[0], *(each for pair in zip(nodes[1 : count + 1], nodes[count + 1 :]) for each in pair)]
    _assert_same([*nodes, node("Identity", f"p{count}")])


def test_powers_of_a_length_take_no_time() -> None:
    nodes = [node("Min", "h,one", "p0"), *(node("Mul", f"p{i},p{i}", f"p{i + 1}") for i in range(40))]
    _assert_same([*nodes, node("Unsqueeze", "p40,first", "e"), node("Expand", "one,e", "y")])


def test_a_length_of_too_many_steps_is_no_length() -> None:
    length = dimension("axis", "x", 0)
    with pytest.raises(TooDeep, match="fixed"):
        for _ in range(1000):
            length = length + dimension("axis", "x", 1)


def test_lengths_computed_alike_are_the_same() -> None:
    height, width = (dimension("axis", "x", axis) for axis in (2, 3))
    assert (height + 1) * width is (height + 1) * width
    assert height * width is not width * height
    assert factors(height * width) == factors(width * height)


def test_a_quotient_rounds_down_where_it_cannot_be_negative() -> None:
    height = dimension("axis", "x", 2)
    assert truncated_quotient(height + 2 - 1, 2).kind == "//"
    assert truncated_quotient(height - 1, 2).kind == "truncated //"
    assert (height * 0.5).truncate().kind == "floor"
    assert (height * -0.5).truncate().kind == "truncate"


@pytest.mark.parametrize("divisor", ["two", "three"])
def test_whole_numbers_are_divided_towards_0(divisor: str) -> None:
    _assert_same([node("Sub", "two,h", "d"), node("Div", f"d,{divisor}", "y")])


def test_a_cast_cuts_towards_0() -> None:
    nodes = [node("Cast", "h", "f", to=FLOAT), node("Sub", "ten.,f", "d"), node("Div", "d,four.", "q")]
    _assert_same([*nodes, node("Cast", "q", "y", to=INT64)])


@pytest.mark.parametrize("kind", ["BOOL", "INT8", "UINT8", "INT32", "INT64", "FLOAT"])
def test_a_length_is_cast_to_each_type(kind: str) -> None:
    nodes = [node("Mul", "h,thousand", "t"), node("Cast", "t", "c", to=getattr(onnx.TensorProto, kind))]
    _assert_same([*nodes, node("Cast", "c", "y", to=FLOAT)], FLOAT, {"thousand": np.array(1000)})


@pytest.mark.parametrize("offset", ["one", "three"])
def test_bounds_and_indices_count_from_the_end_where_an_axis_is_short(offset: str) -> None:
    """Cut up to `length - offset`, and take that element; an axis of fewer elements makes these negative."""
    nodes = [
        node("Sub", f"w,{offset}", "e"),
        node("Gather", "x,e", "g", axis=3),
        node("Unsqueeze", "e,first", "e1"),
        node("Slice", "x,first,e1,last", "t"),
        node("ReduceSum", "t,last", "u", keepdims=0),
        node("Add", "g,u", "y"),
    ]
    _assert_same(nodes, FLOAT, {"last": np.array([3])})


def test_a_range_up_to_half_a_length_ends_above_it() -> None:
    nodes = [node("Cast", "h", "f", to=FLOAT), node("Mul", "f,half.", "p"), node("Range", "zero.,p,one.", "r")]
    _assert_same([*nodes, node("Shape", "r", "y")])


@pytest.mark.parametrize(
    ("bad", "value"),
    [
        (node("Slice", "x,zero,one,k", "y"), [9]),
        (node("Unsqueeze", "x,k", "y"), [0, 0]),
        (node("TopK", "x,k", "y,z", axis=16), [1]),
    ],
)
def test_axes_that_are_not_there_break_no_rule(bad: onnx.NodeProto, value: list[int]) -> None:
    constants = {"zero": np.array([0]), "one": np.array([1]), "k": np.array(value)}
    with suppress(InputError):
        imported(model_of([bad], {"x": ["N", 3, "H", "W"]}, ["y"], constants))


def test_tensors_may_be_called_as_the_ends_of_paddles_programs() -> None:
    nodes = [node("Add", "x,fetch", "feed"), node("Relu", "feed", "y")]
    proto = model_of(nodes, {"x": ["N", 3]}, ["y"], {"fetch": np.ones(3, np.float32)})
    assert_same(proto, {"x": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize(("x", "y", "role"), [("feed", "y", "input"), ("x", "fetch", "output")])
def test_inputs_and_outputs_may_not(x: str, y: str, role: str) -> None:
    with pytest.raises(InputError, match=f"its {role} is called `fe.*rename"):
        imported(model_of([node("Relu", x, y)], {x: ["N", 3]}, [y]))


@pytest.mark.parametrize("divisor", [3, 7])
def test_products_beyond_32_bits_are_computed_in_64(divisor: int) -> None:
    nodes = [node("Mul", "h,w", "a"), node("Mul", "a,large", "b"), node("Div", "b,small", "y")]
    _assert_same(nodes, more={"large": np.array(10**9 + 7), "small": np.array(divisor)})


def test_scales_of_a_computed_length_normalize_as_tensorflow_writes_layer_norms() -> None:
    one, zero = (numpy_helper.from_array(np.array([value], np.float32)) for value in (1, 0))
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("Shape", "t", "s"),
        node("Gather", "s,second", "c", axis=0),
        node("ConstantOfShape", "c", "ones", value=one),
        node("ConstantOfShape", "c", "zeros", value=zero),
        node("ReduceMean", "t", "m", axes=[0, 2], keepdims=0),
        node("Mul", "t,t", "q"),
        node("ReduceMean", "q", "v", axes=[0, 2], keepdims=0),
        node("BatchNormalization", "t,ones,zeros,m,v", "y"),
    ]
    proto = model_of(nodes, {"x": ["N", "L", 6]}, ["y"], {"second": np.array([1])})
    assert_same(proto, {"x": np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)})
