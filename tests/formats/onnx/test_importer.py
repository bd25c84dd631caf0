"""What is computed while importing, and what the program keeps of the file: names, dtypes, free axes, order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from act.errors import InputError
from act.formats import SourceModel
from act.samples.dataset import Array
from tests.formats.onnx.support import INT64, assert_same, imported, model_of, node, op_types

TRIP = [
    helper.make_tensor_value_info("trip", INT64, []),
    helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
]
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


def running_sum(trips: int | None, limit: str) -> onnx.ModelProto:
    """Add up rows in a loop that ends after some trips, or where a row's number reaches what is computed of `limit`."""
    body = helper.make_graph(
        [
            node("Gather", "x,trip", "row", axis=1),
            node("Add", "sum,row", "sum_out"),
            node("Add", "trip,one", "next"),
            node("Less", "next,count", "go_out"),
            node("Identity", "sum_out", "scanned"),
        ],
        "body",
        [*TRIP, helper.make_empty_tensor_value_info("sum")],
        [helper.make_empty_tensor_value_info(name) for name in ("go_out", "sum_out", "scanned")],
    )
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", f"s,{limit}", "count"),
        node("ReduceSum", "x,axis", "zeros", keepdims=0),
        node("Sub", "zeros,zeros", "start"),
        helper.make_node("Loop", ["" if trips is None else "trips", "go", "start"], ["y", "z"], body=body),
    ]
    constants = {"one": np.array(1), "axis": np.array([1]), "go": np.array(True), "zero": np.array(0)}
    constants |= {} if trips is None else {"trips": np.array(trips)}
    return model_of(nodes, {"x": ["N", 3, 4, 5]}, ["y", "z"], constants)


@pytest.mark.parametrize("trips", [None, 2, 9])
def test_a_loop_whose_trips_can_be_counted_is_written_out(trips: int | None) -> None:
    """As TensorFlow's recurrent layers come: each step takes a row, and the sums of all steps are stacked."""
    assert op_types(assert_same(running_sum(trips, "one"), {"x": X})).count("stack") == 1


def test_a_loop_whose_trips_hang_on_the_input_is_refused() -> None:
    with pytest.raises(InputError, match="how often it runs is known at run time only"):
        imported(running_sum(None, "zero"))


def test_a_loop_without_end_is_refused() -> None:
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("Relu", "v", "w")],
        "body",
        [*TRIP, helper.make_empty_tensor_value_info("v")],
        [helper.make_empty_tensor_value_info(name) for name in ("on", "w")],
    )
    loop = helper.make_node("Loop", ["", "", "x"], ["y"], body=body)
    with pytest.raises(InputError, match="loops run more than 1024 times in all"):
        imported(model_of([loop], {"x": ["N", 3]}, ["y"]))


@pytest.mark.parametrize("chosen", [True, False])
def test_a_constant_chooses_a_branch(chosen: bool) -> None:
    branches = {}
    for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg")):
        inner = helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node(kind, "x", "inner")], name, [], [inner])
    proto = model_of([node("If", "c", "y", **branches)], {"x": ["N", 3, 4, 5]}, ["y"], {"c": np.array(chosen)})
    assert_same(proto, {"x": X})


def test_a_length_may_choose_a_branch() -> None:
    """Squeeze an axis where it is shorter than it can be: the branches have other shapes, but it is told which."""
    squeezed = helper.make_graph(
        [node("Squeeze", "x,zero", "a")], "then", [], [helper.make_empty_tensor_value_info("a")]
    )
    whole = helper.make_graph([node("Identity", "x", "b")], "else", [], [helper.make_empty_tensor_value_info("b")])
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Add", "n,one", "m"),
        node("Less", "m,one", "c"),
        helper.make_node("If", ["c"], ["y"], then_branch=squeezed, else_branch=whole),
    ]
    proto = model_of(nodes, {"x": ["N", 3, 4, 5]}, ["y"], {"one": np.array([1]), "zero": np.array([0])})
    assert op_types(assert_same(proto, {"x": X})) == ["assign"]


def test_what_is_decided_by_one_of_two_truth_values_is_known() -> None:
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m,zero", "g"),
        node("And", "g,never", "c"),
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            then_branch=helper.make_graph(
                [node("Flatten", "x", "a")], "then", [], [helper.make_empty_tensor_value_info("a")]
            ),
            else_branch=helper.make_graph(
                [node("Relu", "x", "b")], "else", [], [helper.make_empty_tensor_value_info("b")]
            ),
        ),
    ]
    constants = {"zero": np.float32(0), "never": np.array(False)}
    assert op_types(assert_same(model_of(nodes, {"x": ["N", 3, 4, 5]}, ["y"], constants), {"x": X})) == ["relu"]


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


@pytest.mark.parametrize(
    ("maker", "constants", "opset"),
    [
        (node("Add", "a,b", "k"), {"a": np.ones((2**17, 1)), "b": np.ones((1, 2**17))}, 17),
        (node("MatMul", "a,b", "k"), {"a": np.ones((2**17, 1)), "b": np.ones((1, 2**17))}, 17),
        (node("Gather", "a,b", "k"), {"a": np.ones((1, 2**17)), "b": np.zeros(2**17, np.int64)}, 17),
        (node("Tile", "a,b", "k"), {"a": np.ones(3), "b": np.array([2**50])}, 17),
        (node("Pad", "a", "k", pads=[0, 2**20, 2**20, 0]), {"a": np.ones((3, 3))}, 9),
        (node("Upsample", "a", "k", scales=[1.0, 1.0, 1e6, 1e6]), {"a": np.ones((1, 1, 3, 3))}, 7),
        (
            node("OneHot", "a,b,c", "k"),
            {"a": np.zeros(2**16, np.int64), "b": np.array([2**27]), "c": np.array([0.0, 1.0])},
            17,
        ),
        (node("HannWindow", "a", "k"), {"a": np.array(2**40)}, 17),
    ],
)
def test_a_constant_that_is_blown_up_is_refused(maker: onnx.NodeProto, constants: dict[str, Array], opset: int) -> None:
    arrays = {name: value.astype(np.float32) if value.dtype == float else value for name, value in constants.items()}
    proto = model_of([maker, node("ReduceMax", "k", "m"), node("Add", "x,m", "y")], {"x": ["N"]}, ["y"], arrays, opset)
    with pytest.raises(InputError, match="makes a constant of .* export the model without it"):
        imported(proto)


def test_constants_are_refused_that_are_too_large_together() -> None:
    nodes = [node("Concat", ",".join([f"k{i}"] * 4), f"k{i + 1}", axis=0) for i in range(4)]
    nodes += [node("Concat", "k4,k4,k4", f"c{i}", axis=0) for i in range(40)]
    proto = model_of([*nodes, node("Add", "x,c0", "y")], {"x": ["N"]}, ["y"], {"k0": np.ones(2**16, np.float32)})
    with pytest.raises(InputError, match="those before it make constants of 2"):
        imported(proto)


def test_what_is_slow_to_compute_of_constants_the_program_does() -> None:
    constants = {"k": np.ones((1, 2, 200, 200), np.float32), "w": np.ones((3, 2, 3, 3), np.float32)}
    nodes = [node("Conv", "k,w", "c"), node("Add", "x,c", "y")]
    model = assert_same(model_of(nodes, {"x": ["N", 1, 1, 1]}, ["y"], constants), {"x": X[:, :1, :1, :1]})
    assert "conv2d" in op_types(model)


def test_constants_are_computed_as_onnx_does() -> None:
    constants = {"a": np.array([1, -1], np.float32), "b": np.zeros(2, np.float32), "i": np.array([-7, 2**62])}
    nodes = [
        node("Div", "a,b", "q"),
        node("Div", "i,j", "d"),
        node("Mul", "i,i", "p"),
        node("Add", "x,q", "y"),
        node("Identity", "d", "z"),
        node("Identity", "p", "o"),
    ]
    proto = model_of(
        nodes,
        {"x": ["N", 2]},
        ["y", "z", "o"],
        {**constants, "j": np.array([2, 3])},
        types={"z": INT64, "o": INT64},
    )
    assert_same(proto, {"x": np.ones((3, 2), np.float32)})
