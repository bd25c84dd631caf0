"""Operators that change shapes, as exporters write them, with a batch that stays free."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.formats.onnx.support import assert_nodes_same, node, op_types, values


def test_windows_of_a_swin_transformer_need_no_lengths_at_run_time() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s,zero", "n"),
        node("Unsqueeze", "n,first", "n1"),
        node("Concat", "n1,rest", "shape", axis=0),
        node("Reshape", "x,shape", "a"),
        node("Transpose", "a", "b", perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", "b,windows", "c"),
        node("Relu", "c", "r"),
        node("Shape", "r", "s2"),
        node("Gather", "s2,zero", "n2"),
        node("Cast", "n2", "f", to=1),
        node("Div", "f,four", "q"),
        node("Cast", "q", "q64", to=7),
        node("Unsqueeze", "q64,first", "q1"),
        node("Concat", "q1,back", "shape2", axis=0),
        node("Reshape", "r,shape2", "d"),
        node("Transpose", "d", "e", perm=[0, 1, 3, 2, 4, 5]),
        node("Concat", "n1,image", "shape3", axis=0),
        node("Reshape", "e,shape3"),
    ]
    constants = {
        "zero": np.array(0),
        "first": np.array([0]),
        "rest": np.array([2, 4, 2, 4, 3]),
        "windows": np.array([-1, 16, 3]),
        "back": np.array([2, 2, 4, 4, -1]),
        "four": np.array(4, np.float32),
        "image": np.array([64, 3]),
    }
    model = assert_nodes_same(nodes, {"x": values(3, 8, 8, 3)}, constants, 13, {"x": ["N", 8, 8, 3]})
    assert set(op_types(model)) == {"reshape2", "transpose2", "relu"}
    shapes = [op.attr("shape") for op in model.ops if op.type == "reshape2"]
    assert shapes == [[0, 2, 4, 2, 4, 3], [-1, 16, 3], [-1, 2, 2, 4, 4, 3], [0, 64, 3]]


def test_channel_shuffle_keeps_the_batch_free() -> None:
    nodes = [
        node("Reshape", "x,a", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t,b"),
    ]
    constants = {"a": np.array([-1, 2, 3, 4, 4]), "b": np.array([-1, 6, 4, 4])}
    model = assert_nodes_same(nodes, {"x": values(2, 6, 4, 4)}, constants, 9, {"x": ["N", 6, 4, 4]})
    assert op_types(model) == ["reshape2", "transpose2", "reshape2"]


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad(opset: int, mode: str) -> None:
    x, pads = values(2, 3, 5, 4), [0, 0, 1, 2, 0, 0, 2, 1]
    shapes = {"x": ["N", 3, 5, 4]}
    if opset < 11:
        assert_nodes_same([node("Pad", "x", mode=mode, pads=pads)], {"x": x}, {}, opset, shapes)
    else:
        assert_nodes_same([node("Pad", "x,p", mode=mode)], {"x": x}, {"p": np.array(pads)}, opset, shapes)


def test_pad_of_named_axes_cuts_where_negative() -> None:
    constants = {"p": np.array([-1, 2, 1, -1]), "v": np.array(1.5, np.float32), "a": np.array([-1, 1])}
    assert_nodes_same([node("Pad", "x,p,v,a")], {"x": values(2, 3, 5)}, constants, 18, {"x": ["N", 3, 5]})


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [2**63 - 1], [2], [2]),
        ([-1], [-(2**63)], [3], [-1]),
        ([-2, 4], [0, -(2**63)], [3, 2], [-2, -3]),
        ([-3, 0], [-1, 9], [-1, 1], [1, 1]),
        ([0], [-1], [0], [1]),
    ],
)
def test_slice(starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> None:
    constants = {name: np.array(each) for name, each in zip("abcd", (starts, ends, axes, steps))}
    feeds, shapes = {"x": values(3, 4, 6, 5)}, {"x": ["N", 4, 6, 5]}
    assert_nodes_same([node("Slice", "x,a,b,c,d")], feeds, constants, 11, shapes)
    if all(step == 1 for step in steps):
        assert_nodes_same([node("Slice", "x", starts=starts, ends=ends, axes=axes)], feeds, {}, 9, shapes)


def test_slice_up_to_a_length_that_is_known_at_run_time() -> None:
    nodes = [
        node("Shape", "ids", "s"),
        node("Gather", "s,one", "n"),
        node("Unsqueeze", "n,first", "n1"),
        node("Slice", "table,first,n1,one1", "p"),
        node("Add", "x,p"),
    ]
    constants = {"one": np.array(1), "first": np.array([0]), "one1": np.array([1]), "table": values(1, 9, 4)}
    feeds = {"ids": np.zeros((2, 5), np.int64), "x": values(2, 5, 4)}
    assert_nodes_same(nodes, feeds, constants, 13, {"ids": ["N", "S"], "x": ["N", "S", 4]})


def test_expand_with_a_shape_of_where_as_pytorch_writes_it() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s,zero", "n"),
        node("Unsqueeze", "n,first", "n1"),
        node("Concat", "n1,rest", "shape", axis=0),
        node("ConstantOfShape", "three", "ones", value=helper.make_tensor("v", 7, [1], [1])),
        node("Mul", "ones,minus", "m"),
        node("Equal", "shape,m", "e"),
        node("Where", "e,ones,shape", "w"),
        node("Expand", "cls,w", "c"),
        node("Concat", "c,x", axis=1),
    ]
    constants = {
        "zero": np.array(0),
        "first": np.array([0]),
        "rest": np.array([-1, -1]),
        "three": np.array([3]),
        "minus": np.array(-1),
        "cls": values(1, 1, 8),
    }
    assert_nodes_same(nodes, {"x": values(3, 4, 8)}, constants, 13, {"x": ["N", 4, 8]})


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_split_in_uneven_parts(opset: int) -> None:
    nodes = [node("Split", "x" if opset < 13 else "x,s", "a,b", axis=1, **({"split": [1, 3]} if opset < 13 else {}))]
    nodes.append(node("Concat", "b,a", axis=1))
    assert_nodes_same(
        nodes, {"x": values(2, 4, 3)}, {} if opset < 13 else {"s": np.array([1, 3])}, opset, {"x": ["N", 4, 3]}
    )


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("lengths", [["N", 12, 2, 3], ["N", 12, "H", "W"]])
def test_depth_to_space_and_back(mode: str, lengths: list[object]) -> None:
    nodes = [node("DepthToSpace", "x", "d", blocksize=2, mode=mode), node("SpaceToDepth", "d", blocksize=2)]
    assert_nodes_same(nodes, {"x": values(2, 12, 2, 3)}, {}, 13, {"x": lengths})


def test_heads_of_a_text_model_need_no_lengths_at_run_time() -> None:
    """Import embeddings, positions cut to the text's length, and heads, whose lengths PyTorch computes."""
    nodes = [
        node("Shape", "ids", "n", start=0, end=1),
        node("Shape", "ids", "s", start=1, end=2),
        node("Slice", "positions,first,s,one,one", "p"),
        node("Gather", "words,ids", "w"),
        node("Gather", "places,p", "q"),
        node("Add", "w,q", "x"),
        node("Concat", "n,s,heads", "cut", axis=0),
        node("Reshape", "x,cut", "h"),
        node("Transpose", "h", "t", perm=[0, 2, 1, 3]),
        node("Transpose", "h", "k", perm=[0, 2, 3, 1]),
        node("MatMul", "t,k", "a"),
        node("Softmax", "a", "b", axis=-1),
        node("MatMul", "b,t", "c"),
        node("Transpose", "c", "d", perm=[0, 2, 1, 3]),
        node("Concat", "n,s,rest", "joined", axis=0),
        node("Reshape", "d,joined"),
    ]
    constants = {
        "positions": np.arange(9)[None],
        "words": values(20, 8),
        "places": values(9, 8),
        "first": np.array([0]),
        "one": np.array([1]),
        "heads": np.array([-1, 4]),
        "rest": np.array([-1]),
    }
    model = assert_nodes_same(nodes, {"ids": np.array([[3, 1, 4], [1, 5, 9]])}, constants, 15, {"ids": ["N", "S"]})
    assert [op.attr("shape") for op in model.ops if op.type == "reshape2"] == [[0, 0, 2, 4], [0, 0, 8]]
    assert "fill_constant" not in op_types(model)
