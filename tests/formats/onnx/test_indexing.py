"""Taking elements by their index and putting them in, with constant and computed indices, some negative."""

from __future__ import annotations

import numpy as np
import pytest

from act.program.paddle_setup import paddle
from act.samples.dataset import Array
from act.training.graph import make_trainable
from tests.formats.onnx.support import assert_nodes_same, node, op_types, values

LENGTHS = {"x": ["N", 4, 6]}


def test_gather_of_a_table_is_an_embedding() -> None:
    feeds = {"ids": np.array([[1, 0, 5], [3, 3, 2]])}
    model = assert_nodes_same([node("Gather", "table,ids")], feeds, {"table": values(6, 4)}, 13, {"ids": ["N", "S"]})
    assert op_types(model) == ["lookup_table_v2"]


@pytest.mark.parametrize(
    ("index", "axis", "expected"),
    [
        (0, 1, "slice"),
        (-1, 1, "slice"),
        ([1, 2], 2, "slice"),
        ([0, 2, 4], 2, "strided_slice"),
        ([3, -1, 0], 2, "index_select"),
    ],
)
def test_gather_of_constant_indices(index: int | list[int], axis: int, expected: str) -> None:
    nodes = [node("Gather", "x,i", axis=axis)]
    model = assert_nodes_same(nodes, {"x": values(2, 4, 6)}, {"i": np.array(index)}, 13, LENGTHS)
    assert op_types(model) == [expected]


def test_gather_of_computed_indices_that_may_be_negative() -> None:
    for index in (np.array([[0, -1], [3, -4]]), np.array([3, -1]), np.array(-2)):
        feeds = {"x": values(3, 4, 6), "i": index}
        assert_nodes_same([node("Gather", "x,i", axis=1)], feeds, {}, 13, LENGTHS | {"i": index.shape})


@pytest.mark.parametrize("constant", [True, False])
def test_a_gather_behind_the_first_axis_has_the_right_gradient(constant: bool) -> None:
    x, index = {"x": values(2, 4, 6)}, {"i": np.array([3, 0, 3, 1])}
    feeds, constants = (x, index) if constant else (x | index, {})
    model = assert_nodes_same([node("Gather", "x,i", axis=1)], feeds, constants, 13, LENGTHS)
    make_trainable(model, [])
    with paddle.static.program_guard(model.program):
        variables = model.program.global_block().vars
        variables["x"].stop_gradient = False
        (gradient,) = paddle.static.gradients([paddle.sum(paddle.square(variables["y"]))], [variables["x"]])

    def loss(step: Array) -> float:
        return float(np.square(model.run(feeds | {"x": x["x"] + step}, ["y"])[0]).sum(dtype=np.float64))

    steps = np.eye(48, dtype=np.float32).reshape(48, 2, 4, 6)
    differences = [(loss(step) - loss(-step)) / 2 for step in steps]
    np.testing.assert_allclose(model.run(feeds, [gradient.name])[0].reshape(-1), differences, atol=1e-4)


@pytest.mark.parametrize("constant", [True, False])
def test_elements_taken_and_put_in(constant: bool) -> None:
    index = {"i": np.array([[[0, -1], [5, 2]], [[1, 2], [3, -6]]])}
    feeds, shapes = {"x": values(2, 4, 6), "u": values(2, 2, 2)}, LENGTHS | {"u": ["N", 2, 2]}
    feeds, constants = (feeds, index) if constant else (feeds | index, {})
    taken = {name: value for name, value in feeds.items() if name != "u"}
    assert_nodes_same([node("GatherElements", "x,i", axis=2)], taken, constants, 13, LENGTHS)
    assert_nodes_same([node("ScatterElements", "x,i,u", axis=2)], feeds, constants, 13, shapes)
    assert_nodes_same([node("ScatterElements", "x,i,u", axis=2, reduction="add")], feeds, constants, 16, shapes)


@pytest.mark.parametrize("constant", [True, False])
def test_slices_taken_and_put_in(constant: bool) -> None:
    index = {"i": np.array([[[0, -1], [2, 2]], [[1, 3], [1, -2]]])}
    feeds, shapes = {"x": values(3, 4, 6), "u": values(2, 2, 6)}, LENGTHS
    feeds, constants = (feeds, index) if constant else (feeds | index, {})
    taken = {name: value for name, value in feeds.items() if name != "u"}
    assert_nodes_same([node("GatherND", "x,i")], taken, constants, 13, shapes)
    assert_nodes_same([node("ScatterND", "x,i,u")], feeds, constants, 13, shapes)


def test_gather_within_each_image() -> None:
    feeds = {"x": values(3, 4, 6), "i": np.array([[[0], [-1]], [[2], [1]], [[3], [3]]])}
    assert_nodes_same([node("GatherND", "x,i", batch_dims=1)], feeds, {}, 13, LENGTHS | {"i": ["N", 2, 1]})


@pytest.mark.parametrize("opset", [9, 10, 11])
def test_top_k(opset: int) -> None:
    nodes = [node("TopK", "x" if opset < 10 else "x,k", "v,i", axis=1, **({"k": 3} if opset < 10 else {}))]
    nodes.append(node("Cast", "i", "c", to=1))
    nodes.append(node("Add", "v,c"))
    assert_nodes_same(nodes, {"x": values(2, 4, 6)}, {} if opset < 10 else {"k": np.array([3])}, opset, LENGTHS)


def test_end_of_a_text_is_found_as_clip_does() -> None:
    nodes = [
        node("ArgMax", "ids", "last", axis=1, keepdims=0),
        node("Shape", "ids", "s"),
        node("Gather", "s,zero", "n"),
        node("Range", "zero,n,one", "rows"),
        node("Unsqueeze", "rows,minus", "r"),
        node("Unsqueeze", "last,minus", "l"),
        node("Concat", "r,l", "where", axis=1),
        node("GatherND", "x,where"),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "minus": np.array([-1])}
    feeds = {"ids": np.array([[1, 9, 0, 0], [2, 3, 4, 9]]), "x": values(2, 4, 6)}
    assert_nodes_same(nodes, feeds, constants, 14, {"ids": ["N", 4]} | LENGTHS)


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("most", [2, 100])
def test_non_max_suppression(center: int, most: int) -> None:
    boxes = np.abs(values(2, 8, 4)) + np.float32(0.5)
    feeds = {"b": boxes, "s": np.abs(values(2, 3, 8, seed=1))}
    constants = {"m": np.array([most]), "i": np.array([0.3], np.float32), "t": np.array([0.2], np.float32)}
    nodes = [node("NonMaxSuppression", "b,s,m,i,t", center_point_box=center)]
    assert_nodes_same(nodes, feeds, constants, 11, {"b": ["N", 8, 4], "s": ["N", 3, 8]})
