"""Files that are damaged, or hostile, end with one line that says what and where."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from act.errors import InputError
from act.formats import SourceModel
from act.formats.onnx.reading import checked, known_shapes, without_values
from tests.formats.onnx.support import model_of

RELU = helper.make_node("Relu", ["x"], ["y"], name="first")


def plain() -> onnx.ModelProto:
    return model_of([RELU], {"x": ["N", 3]}, ["y"])


def cycle() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], name="one"), helper.make_node("Relu", ["a"], ["b"], name="two")]
    return model_of(nodes, {"x": ["N", 3]}, ["b"])


def twice() -> onnx.ModelProto:
    return model_of([RELU, RELU], {"x": ["N", 3]}, ["y"])


def nowhere() -> onnx.ModelProto:
    return model_of([helper.make_node("Relu", ["z"], ["y"], name="only")], {"x": ["N", 3]}, ["y"])


def no_output() -> onnx.ModelProto:
    model = plain()
    del model.graph.output[:]
    return model


def gigantic() -> onnx.ModelProto:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"], name="sum")]
    return model_of(nodes, {"x": ["N", 3]}, ["y"], {"s": np.array([2**40, 2**20])})


def expanded() -> onnx.ModelProto:
    nodes = [helper.make_node("Expand", ["c", "s"], ["e"], name="big"), helper.make_node("Add", ["x", "e"], ["y"])]
    return model_of(nodes, {"x": ["N", 3]}, ["y"], {"s": np.array([2**20, 2**20]), "c": np.zeros(1, np.float32)})


def damaged_tensor() -> onnx.ModelProto:
    model = model_of(
        [helper.make_node("Add", ["x", "c"], ["y"])], {"x": ["N", 3]}, ["y"], {"c": np.zeros(3, np.float32)}
    )
    model.graph.initializer[0].dims[0] = 2**40
    return model


def old() -> onnx.ModelProto:
    return model_of([RELU], {"x": ["N", 3]}, ["y"], opset=5)


def unknown() -> onnx.ModelProto:
    return model_of([helper.make_node("Wizardry", ["x"], ["y"], name="wand")], {"x": ["N", 3]}, ["y"])


def strange_name() -> onnx.ModelProto:
    node = helper.make_node("Wizardry", ["x"], ["y"], name="a\nb\x1b[31m\u2028")
    return model_of([node], {"x": ["N", 3]}, ["y"])


def text() -> onnx.ModelProto:
    return model_of([RELU], {"x": ["N", 3]}, ["y"], types={"x": onnx.TensorProto.STRING})


def with_functions(*bodies: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Make a model that calls `f0`; the functions `f0`, `f1`, ... compute `b` from `a`."""
    model = model_of([helper.make_node("f0", ["x"], ["y"], domain="own")], {"x": ["N", 3]}, ["y"])
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    model.functions.extend(
        helper.make_function("own", f"f{index}", ["a"], ["b"], nodes, opsets) for index, nodes in enumerate(bodies)
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def call(number: int, source: str = "a", target: str = "b") -> onnx.NodeProto:
    return helper.make_node(f"f{number}", [source], [target], domain="own")


def inside_if(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Put a node into both branches of an `If`."""
    outputs = [helper.make_empty_tensor_value_info(node.output[0])]
    branch = helper.make_graph([node], "branch", [], outputs)
    condition = numpy_helper.from_array(np.array(True))
    return [
        helper.make_node("Constant", [], ["c"], value=condition),
        helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=branch),
    ]


def recursive() -> onnx.ModelProto:
    return with_functions([call(0)])


def recursive_inside() -> onnx.ModelProto:
    return with_functions(inside_if(call(1, "a", "r")), inside_if(call(0, "a", "r")))


def exponential() -> onnx.ModelProto:
    chain = ["a", *(f"t{index}" for index in range(9)), "b"]
    bodies = [[call(level, *ends) for ends in pairwise(chain)] for level in range(1, 10)]
    return with_functions(*bodies, [helper.make_node("Relu", ["a"], ["b"])])


def deep() -> onnx.ModelProto:
    bodies = [inside_if(call(level, "a", "r")) for level in range(1, 12)]
    return with_functions(*bodies, [helper.make_node("Relu", ["a"], ["b"])])


def defined_twice() -> onnx.ModelProto:
    model = with_functions([helper.make_node("Relu", ["a"], ["b"])])
    model.functions.append(model.functions[0])
    return model


def called_wrongly() -> onnx.ModelProto:
    model = with_functions([helper.make_node("Relu", ["a"], ["b"])])
    model.graph.node[0].input.append("x")
    return model


def two_opsets() -> onnx.ModelProto:
    model = plain()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    return model


def no_opset() -> onnx.ModelProto:
    model = plain()
    model.opset_import[0].domain = "own"
    return model


def input_twice() -> onnx.ModelProto:
    model = plain()
    model.graph.input.append(model.graph.input[0])
    return model


def weight_twice() -> onnx.ModelProto:
    model = model_of(
        [helper.make_node("Add", ["x", "c"], ["y"])], {"x": ["N", 3]}, ["y"], {"c": np.ones(3, np.float32)}
    )
    model.graph.initializer.append(model.graph.initializer[0])
    return model


def weight_computed() -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", ["x"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    return model_of(nodes, {"x": ["N", 3]}, ["y"], {"c": np.ones(3, np.float32)})


REFUSED: list[tuple[Callable[[], onnx.ModelProto], str]] = [
    (cycle, r"node `one` \(Add\) needs what it computes itself"),
    (twice, "tensor `y` is computed twice"),
    (input_twice, "two of its inputs are called `x`"),
    (weight_twice, "two of its initialisers are called `c`"),
    (weight_computed, "tensor `c` is an input or weight, and computed, too"),
    (nowhere, r"node `only` \(Relu, opset 17\): its input `z` is nowhere computed"),
    (no_output, "has no outputs"),
    (gigantic, r"ConstantOfShape.*a constant of 1.15e\+18 values"),
    (expanded, r"node `big` \(Expand.*a constant of 1.1e\+12 values"),
    (damaged_tensor, "tensor `c` is damaged"),
    (old, "is of opset 5; export the model with one of 7 to"),
    (unknown, r"node `wand` \(Wizardry.*these operators cannot be imported: `Wizardry`"),
    (strange_name, r"node `a\\nb\\x1b\[31m\\u2028` \(Wizardry"),
    (text, "`x`, an input or output, is of string"),
    (recursive, "function `f0` calls itself"),
    (recursive_inside, "function `f0` calls itself"),
    (exponential, "function `f.` has [0-9]{7,} nodes"),
    (deep, "lie more than 16 deep in one another"),
    (defined_twice, "function `f0` is defined twice"),
    (called_wrongly, "its functions cannot be read: .*parameters"),
    (two_opsets, "names two opset versions of ONNX's own operators"),
    (no_opset, "names no opset version of ONNX's own operators"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_what_cannot_be_read_is_refused_in_one_line(
    make: Callable[[], onnx.ModelProto], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(InputError, match=words) as caught:
        SourceModel.find(path).load()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08\x07\x12", b"\x08\x09:\x00", bytes(range(256)) * 4],
    ids=["empty", "cut", "no nodes", "noise"],
)
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no ONNX model"):
        SourceModel.find(path)


def external(location: str, folder: Path, **entries: str) -> Path:
    """Write a model whose one tensor lies in another file."""
    model = model_of([helper.make_node("Add", ["x", "c"], ["y"])], {"x": ["N", 3]}, ["y"])
    tensor = numpy_helper.from_array(np.arange(3, dtype=np.float32), "c")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_and_belongs_to_the_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    path = external("weights.bin", tmp_path)
    source = SourceModel.find(path)
    assert [file.name for file in source.files] == ["model.onnx", "weights.bin"]
    assert source.load().weight("c").tolist() == [0, 1, 2]
    assert [file.name for file in sorted(source.copy_to(tmp_path / "copy").parent.iterdir())] == [
        "model.onnx",
        "weights.bin",
    ]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../secret", "does not lie in the model's folder"),
        ("/etc/passwd", "does not lie in the model's folder"),
        ("link", "does not lie in the model's folder"),
        ("*/_ORT_MEM_ADDR_/*", "no such file"),
        ("", "does not lie in the model's folder"),
        ("gone.bin", "no such file"),
        ("short.bin", "asks for bytes that short.bin does not have"),
        ("nul\0", "does not lie in the model's folder"),
        ("long" * 1000, "does not lie in the model's folder"),
        ("circle", "does not lie in the model's folder"),
    ],
)
def test_external_data_stays_in_the_folder(location: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(12))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "circle").symlink_to("circle")
    (inside / "short.bin").write_bytes(bytes(4))
    with pytest.raises(InputError, match=words):
        SourceModel.find(external(location, inside, offset="0", length="12")).load()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"length": "8"}, r"tensor `c` of shape \[3\] takes 12 bytes, but the model says 8"),
        ({"length": "16"}, "takes 12 bytes, but the model says 16"),
        ({"length": "many"}, "asks for bytes that weights.bin does not have"),
        ({"offset": "-4"}, "asks for bytes that weights.bin does not have"),
        ({"offset": "8"}, "asks for bytes that weights.bin does not have"),
    ],
)
def test_external_data_has_the_length_of_its_tensor(entries: dict[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    path = external("weights.bin", tmp_path, **entries)
    with pytest.raises(InputError, match=words):
        SourceModel.find(path).load()


def test_no_more_than_its_tensor_is_read_of_external_data(tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as file:
        file.write(np.arange(5, dtype=np.float32).tobytes())
        file.truncate(2**40)
    assert SourceModel.find(external("weights.bin", tmp_path, offset="4")).load().weight("c").tolist() == [1, 2, 3]


def test_external_data_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    path = external("weights.bin", tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="tensor `c` says twice where its values lie"):
        SourceModel.find(path)


def test_a_model_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(plain().SerializeToString())
    assert SourceModel.find(path).format == "onnx"


def test_several_models_in_a_folder_want_a_name(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(plain().SerializeToString())
    with pytest.raises(InputError, match=r"several models in this folder \(a.onnx, b.onnx\)"):
        SourceModel.find(tmp_path)
    assert SourceModel.find(tmp_path, "b.onnx").files[0].name == "b.onnx"


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of(nodes, {"x": ["N", 3]}, ["y"]).SerializeToString())
    model = SourceModel.find(path).load()
    assert [op.output("Out")[0] for op in model.ops] == ["a", "y"]


def short_data() -> onnx.ModelProto:
    """Have shape inference read past the end of a tensor's values."""
    shape = onnx.TensorProto(name="s", data_type=onnx.TensorProto.INT64, dims=[2], raw_data=b"\0")
    model = model_of([helper.make_node("Reshape", ["x", "s"], ["y"])], {"x": ["N", 3]}, ["y"])
    model.graph.initializer.append(shape)
    return model


def no_strides() -> onnx.ModelProto:
    """Have shape inference divide by zero."""
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 0])
    return model_of([node], {"x": ["N", 3, 8, 8]}, ["y"])


def long_range() -> onnx.ModelProto:
    """Have shape inference write out 2**33 numbers."""
    ends = {"start": np.array(0), "limit": np.array(2**33), "step": np.array(1)}
    nodes = [
        helper.make_node("Range", list(ends), ["r"]),
        helper.make_node("Cast", ["r"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    return model_of(nodes, {"x": ["N"]}, ["y"], ends)


@pytest.mark.parametrize("make", [short_data, no_strides, long_range])
def test_shape_inference_may_crash(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    assert known_shapes(checked(make(), tmp_path / "model.onnx")) == {}


def test_shapes_are_inferred_without_large_values_and_what_the_file_says_of_them() -> None:
    large = numpy_helper.from_array(np.ones((1, 2000), np.float32), "k")
    inside = [helper.make_node("Constant", [], ["k"], value=large), helper.make_node("MatMul", ["x", "w"], ["m"])]
    inside.append(helper.make_node("Add", ["m", "k"], ["b"]))
    branch = helper.make_graph(
        inside,
        "branch",
        [],
        [helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [7, 7])],
        [numpy_helper.from_array(np.ones((3, 2000), np.float32), "w")],
        value_info=[helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, [7, 7])],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=large),
        helper.make_node("If", ["f"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["i", "c"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["N", 3], "f": []}, ["y"], types={"f": onnx.TensorProto.BOOL})
    known = checked(model, Path("m.onnx"))
    shapes = known_shapes(known)
    assert shapes["y"][1] == shapes["i"][1] == 2000
    assert shapes["y"][0] == shapes["x"][0]
    assert without_values(known.proto).ByteSize() < 2000


def test_axes_without_names_are_not_equal_to_axes_with_any() -> None:
    inputs: dict[str, list[object]] = {
        "a": [None, None],
        "b": ["N", "input 0 axis 1"],
        "c": ["N", "N"],
        "d": ["N", "input 0 axis 1"],
    }
    model = model_of([helper.make_node("Relu", ["a"], ["y"])], inputs, ["y"])
    shapes = known_shapes(checked(model, Path("m.onnx")))
    assert shapes["y"] == shapes["a"] and shapes["b"] == shapes["d"]
    assert len({*shapes["a"], *shapes["b"], *shapes["c"]}) == 5 and shapes["b"][0] == shapes["c"][0]
