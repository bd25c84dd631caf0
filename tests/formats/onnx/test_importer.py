"""What is computed while importing, and what the program keeps of the file: names, dtypes, free axes, order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from act.errors import InputError
from act.formats import SourceModel
from tests.formats.onnx.support import INT64, assert_same, imported, model_of, node, op_types

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)


def test_names_dtypes_and_free_axes_are_those_of_the_file() -> None:
    nodes = [
        node("Relu", "in/put:0", "hidden/0"),
        node("Identity", "hidden/0", "out/put:1"),
        node("Shape", "in/put:0", "s"),
    ]
    proto = model_of(nodes, {"in/put:0": ["batch", 3, "height", 5]}, ["out/put:1", "s"], types={"s": INT64})
    model = assert_same(proto, {"in/put:0": X})
    assert [(spec.name, spec.dtype, spec.shape) for spec in model.feed_specs()] == [
        ("in/put:0", "float32", (-1, 3, -1, 5))
    ]
    assert [(spec.name, spec.dtype) for spec in model.fetch_specs()] == [("out/put:1", "float32"), ("s", "int64")]
    assert model.fetch_specs()[0].shape == (-1, 3, -1, 5)


def test_an_input_and_a_constant_may_be_outputs_and_one_tensor_two() -> None:
    nodes = [node("Relu", "x", "a"), node("Identity", "a", "b"), node("Identity", "x", "c"), node("Identity", "k", "d")]
    proto = model_of(nodes, {"x": ["N", 3, 4, 5]}, ["a", "b", "c", "d"], {"k": np.arange(3, dtype=np.float32)})
    assert_same(proto, {"x": X})


def test_half_precision_is_computed_in_single_and_fed_as_it_is() -> None:
    half = onnx.TensorProto.FLOAT16
    nodes = [node("Add", "x,k", "a"), node("Cast", "a", "b", to=half), node("Relu", "b", "y")]
    constants = {"k": np.arange(5, dtype=np.float16)}
    proto = model_of(nodes, {"x": ["N", 3, 4, 5]}, ["y"], constants, types={"x": half, "y": half})
    model = assert_same(proto, {"x": X.astype(np.float16)}, 5e-3)
    assert model.feed_specs()[0].dtype == model.fetch_specs()[0].dtype == "float16"
    assert model.dtype("a") == "float32"


def test_what_exporters_write_to_keep_the_batch_free_is_one_reshape() -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("Shape", "r", "s"),
        node("Gather", "s,zero", "n"),
        node("Unsqueeze", "n,axes", "n1"),
        node("Gather", "s,two", "h"),
        node("Mul", "h,five", "hw"),
        node("Unsqueeze", "hw,axes", "hw1"),
        node("Concat", "n1,three,hw1", "t", axis=0),
        node("Reshape", "r,t", "y"),
    ]
    constants = {
        "zero": np.array(0),
        "two": np.array(2),
        "axes": np.array([0]),
        "five": np.array(5),
        "three": np.array([3]),
    }
    proto = model_of(nodes, {"x": ["N", 3, "H", 5]}, ["y"], constants)
    model = assert_same(proto, {"x": X})
    assert op_types(model) == ["relu", "reshape2"]
    assert list(model.ops[1].attr("shape")) == [0, 3, -1]


def test_an_expand_to_a_shape_with_holes_is_decided_while_importing() -> None:
    """As PyTorch writes `expand(n, -1, -1)`: -1 is replaced by 1 where a comparison with -1 says so."""
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s,from,to", "n"),
        node("Concat", "n,holes", "wanted", axis=0),
        node("ConstantOfShape", "rank", "ones", value=helper.make_tensor("one", INT64, [1], [1])),
        node("Equal", "wanted,minus", "is_hole"),
        node("Where", "is_hole,ones,wanted", "t"),
        node("Expand", "k,t", "y"),
    ]
    constants = {
        "from": np.array([0]),
        "to": np.array([1]),
        "holes": np.array([-1, -1]),
        "rank": np.array([3]),
        "minus": np.array([-1, -1, -1]),
        "k": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    }
    assert_same(model_of(nodes, {"x": ["N", 3, 4, 5]}, ["y"], constants), {"x": X})


def test_constants_are_computed_once() -> None:
    nodes = [node("Transpose", "k", "kt", perm=[1, 0]), node("Mul", "kt,two", "w"), node("MatMul", "x,w", "y")]
    constants = {"k": np.arange(10, dtype=np.float32).reshape(2, 5), "two": np.float32(2)}
    model = assert_same(model_of(nodes, {"x": ["N", 3, 4, 5]}, ["y"], constants), {"x": X})
    assert op_types(model) == ["matmul_v2"] and model.is_weight(model.ops[0].input("Y")[0])


@pytest.mark.parametrize("chosen", [True, False])
def test_a_constant_chooses_a_branch(chosen: bool) -> None:
    branches = {}
    for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg")):
        inner = helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node(kind, "x", "inner")], name, [], [inner])
    proto = model_of([node("If", "c", "y", **branches)], {"x": ["N", 3, 4, 5]}, ["y"], {"c": np.array(chosen)})
    assert_same(proto, {"x": X})


def test_functions_are_written_out() -> None:
    opsets = [helper.make_opsetid("", 17)]
    body = [node("Relu", "a", "t"), node("Neg", "t", "b")]
    proto = model_of([helper.make_node("Twice", ["x"], ["y"], domain="own")], {"x": ["N", 3, 4, 5]}, ["y"])
    proto.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    model = assert_same(proto, {"x": X})
    assert op_types(model) == ["relu", "scale"]


def test_nothing_that_no_output_needs_is_kept() -> None:
    model = imported(model_of([node("Relu", "x", "y"), node("Neg", "x", "z")], {"x": ["N", 3]}, ["y"]))
    assert op_types(model) == ["relu"]


def test_the_program_survives_being_saved(tmp_path: Path) -> None:
    proto = model_of([node("Add", "x,k", "y")], {"x": ["N", 3, 4, 5]}, ["y"], {"k": np.float32(1.5)})
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    (tmp_path / "saved").mkdir()
    SourceModel.find(path).load().save(tmp_path / "saved")
    saved = SourceModel.find(tmp_path / "saved").load()
    np.testing.assert_allclose(saved.run({"x": X})[0], X + 1.5, rtol=1e-6)


def test_an_operator_that_paddle_does_not_take_is_named() -> None:
    proto = model_of(
        [node("Conv", "x,k", "y")], {"x": ["N", 3, 4, 5]}, ["y"], {"k": np.zeros((2, 7, 3, 3), np.float32)}
    )
    with pytest.raises(InputError, match=r"m.onnx: node `Conv of y` \(Conv, opset 17\): "):
        imported(proto)
