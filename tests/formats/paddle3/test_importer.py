"""Programs of Paddle 3 compute in Paddle 2.6 what their operators say, and keep their names and axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.errors import InputError
from act.formats import SourceModel
from act.formats.paddle3.table import Computed, rows
from tests.formats.paddle3.support import Array, Net, attribute, dtype_of, tensor, values

from paddle.base.framework import OpProtoHolder  # isort: skip

X = values((2, 4, 6))
WRITTEN = Path(__file__).parent / "written"
Build = Callable[[Net, int], tuple[int, dict[str, Any]]]


def scalars(net: Net, *each: int) -> int:
    """Stack numbers without axes, as lists of lengths are written."""
    parts = net.op("0.combine", each, [{"#": "0.t_vec", "D": [tensor([], "int64")] * len(each)}])
    stacked: int = net.op("stack", [parts], [tensor([len(each)], "int64")], axis=0)
    return stacked


def length(net: Net, x: int, axis: int, rank: int = 3) -> int:
    """Read one length of a tensor when it runs."""
    shape = net.op("shape64", [x], [tensor([rank], "int64")])
    ends = {"axes": [0], "infer_flags": [1], "decrease_axis": [0]}
    number: int = net.op("slice", [shape, net.ints(axis), net.ints(axis + 1)], [tensor([], "int64")], **ends)
    return number


def reshaped(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    shape = scalars(net, length(net, x, 0), net.full(24, [], "int64"))
    return net.op("reshape", [x, shape], [tensor([-1, 24])]), tensor([-1, 24])


def expanded(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    shape = scalars(net, length(net, x, 0), net.full(4, [], "int64"), length(net, x, 2))
    one = net.parameter("row", np.arange(6, dtype=np.float32).reshape(1, 1, 6))
    wide = net.op("expand", [one, shape], [tensor([-1, 4, -1])])
    return net.op("add", [x, wide], [tensor([-1, 4, 6])]), tensor([-1, 4, 6])


def split(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    both = [tensor([-1, 1, 6]), tensor([-1, 3, 6])]
    whole = net.op("split", [x, net.ints(1, 3), net.full(1, [1], "int32")], [{"#": "0.t_vec", "D": both}])
    _, second = net.op("0.split", [whole], both)
    return second, both[1]


def reduced(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    return net.op("sum", [x, net.ints()], [tensor([])], dtype=dtype_of("Undefined(ALL_DTYPE)"), keepdim=False), tensor(
        []
    )


def normalised(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    scale, bias = net.parameter("scale", values((6,), 1)), net.parameter("bias", values((6,), 2))
    types = [tensor([-1, 4, 6]), tensor([-1, 4]), tensor([-1, 4])]
    result = net.op("layer_norm", [x, scale, bias], types, epsilon=1e-5, begin_norm_axis=2)
    return result[0], types[0]


def without_scale(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    types = [tensor([-1, 4, 6]), tensor([-1, 4]), tensor([-1, 4])]
    return net.op("layer_norm", [x, 0, 0], types, epsilon=1e-5, begin_norm_axis=2)[0], types[0]


def resized(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    picture = net.op("unsqueeze", [x, net.ints(1)], [tensor([-1, 1, 4, 6])])
    size = net.op(
        "cast",
        [scalars(net, net.full(8, [], "int64"), net.full(12, [], "int64"))],
        [tensor([2], "int32")],
        dtype=dtype_of("int32"),
    )
    how = {"data_format": "NCHW", "out_d": -1, "out_h": -1, "out_w": -1, "scale": [], "interp_method": "nearest"}
    type_ = tensor([-1, 1, 8, 12])
    return net.op("nearest_interp", [picture, size, 0, 0], [type_], **how, align_corners=False, align_mode=0), type_


def counted(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    ends = [net.full(each, [1], "float64") for each in (0.0, 6.0, 1.0)]
    row = net.op("arange", ends, [tensor([6], "int64")], dtype=dtype_of("int64"))
    real = net.op("cast", [row], [tensor([6])], dtype=dtype_of("float32"))
    return net.op("multiply", [x, real], [tensor([-1, 4, 6])]), tensor([-1, 4, 6])


def counted_at_run_time(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    ends = [net.full(0, [1], "int64"), length(net, x, 2), net.full(1, [1], "int64")]
    row = net.op("arange", ends, [tensor([-1], "int64")], dtype=dtype_of("int64"))
    real = net.op("cast", [row], [tensor([-1])], dtype=dtype_of("float32"))
    return net.op("multiply", [x, real], [tensor([-1, 4, 6])]), tensor([-1, 4, 6])


def replaced(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    slices = {name: {"#": "1.a_intarray", "D": value} for name, value in (("axes", [1]), ("decrease_axes", []))}
    values_ = [{"#": "1.a_scalar", "D": ["float32", 7.0]}]
    bounds = [net.ints(1), net.ints(3), net.ints(1)]
    attributes = {**slices, "none_axes": [], "shape": [1], "values": values_}
    return net.op("set_value_", [x, *bounds], [tensor([-1, 4, 6])], **attributes), tensor([-1, 4, 6])


def masked(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    mask = net.op("greater_than", [x, net.full(0.0, [])], [tensor([-1, 4, 6], "bool")])
    return net.op("masked_fill", [x, mask, net.full(-1.0)], [tensor([-1, 4, 6])]), tensor([-1, 4, 6])


def largest(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    how = {"keepdims": False, "flatten": False, "dtype": dtype_of("int32")}
    type_ = tensor([-1, 4], "int32")
    return net.op("argmax", [x, net.full(-1, [1], "int64")], [type_], **how), type_


def infinite(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    shape = {"#": "1.a_intarray", "D": []}
    value = {"#": "0.a_f64", "VD": "-INF"}
    low = net.op("full", [], [tensor([])], shape=shape, value=value, dtype=dtype_of("float32"))
    return net.op("maximum", [x, low], [tensor([-1, 4, 6])]), tensor([-1, 4, 6])


def halved(net: Net, x: int) -> tuple[int, dict[str, Any]]:
    half = net.op("cast", [x], [tensor([-1, 4, 6], "float16")], dtype=dtype_of("float16"))
    weight = net.parameter("half", np.full((6,), 0.5, np.float16))
    product = net.op("multiply", [half, weight], [tensor([-1, 4, 6], "float16")])
    return net.op("cast", [product], [tensor([-1, 4, 6])], dtype=dtype_of("float32")), tensor([-1, 4, 6])


def layer_norm(x: Array) -> Array:
    result: Array = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return result


def with_sevens(x: Array) -> Array:
    result = x.copy()
    result[:, 1:3] = 7
    return result


CASES: list[tuple[Build, Callable[[Array], Array]]] = [
    (reshaped, lambda x: x.reshape(-1, 24)),
    (expanded, lambda x: x + np.arange(6)),
    (split, lambda x: x[:, 1:]),
    (reduced, lambda x: x.sum()),
    (normalised, lambda x: layer_norm(x) * values((6,), 1) + values((6,), 2)),
    (without_scale, layer_norm),
    (resized, lambda x: x[:, None].repeat(2, 2).repeat(2, 3)),
    (counted, lambda x: x * np.arange(6)),
    (counted_at_run_time, lambda x: x * np.arange(6)),
    (replaced, with_sevens),
    (masked, lambda x: np.where(x > 0, -1, x)),
    (largest, lambda x: x.argmax(-1)),
    (infinite, lambda x: x),
    (halved, lambda x: x / 2),
]


@pytest.mark.parametrize(("build", "expected"), CASES, ids=[build.__name__ for build, _ in CASES])
def test_operators_compute_what_numpy_does(build: Build, expected: Callable[[Array], Array], tmp_path: Path) -> None:
    net = Net()
    number, type_ = build(net, net.data("x", [-1, 4, 6]))
    net.fetch(number, type_)
    model = net.load(tmp_path)
    for batch in (X, X[:1]):
        (found,) = model.run({"x": batch})
        np.testing.assert_allclose(found, expected(batch), rtol=1e-5, atol=1e-5)
    assert (
        found.dtype
        == model.fetch_specs()[0].dtype
        == type_["D"][0]["#"].replace("0.t_f", "float").replace("0.t_i", "int")
    )


def test_a_length_that_follows_from_the_others_is_not_computed(tmp_path: Path) -> None:
    net = Net()
    number, type_ = reshaped(net, net.data("x", [-1, 4, 6]))
    net.fetch(number, type_)
    assert [op.type for op in net.load(tmp_path).ops] == ["reshape2"]


def test_names_and_free_axes_are_the_files(tmp_path: Path) -> None:
    net = Net()
    second, first = net.data("b/second", [-1, 3], "int64"), net.data("a.first", [-1, 3], "int64")
    total = net.op("add", [second, first], [tensor([-1, 3], "int64")])
    for number, name in ((total, "sum"), (total, "again"), (first, "as it came")):
        net.fetch(number, tensor([-1, 3], "int64"), name)
    model = net.load(tmp_path)
    assert [(spec.name, spec.shape) for spec in model.feed_specs()] == [("b/second", (-1, 3)), ("a.first", (-1, 3))]
    assert model.fetch_names == ["sum", "again", "as it came"]
    one, two = np.ones((2, 3), np.int64), np.full((2, 3), 2)
    found = model.run({"b/second": one, "a.first": two})
    assert [int(each.max()) for each in found] == [3, 3, 2]


def test_what_paddle_3_wrote_computes_what_it_computed() -> None:
    source = SourceModel.find(WRITTEN)
    assert source.format == "paddle3"
    model = source.load()
    arrays = np.load(WRITTEN / "arrays.npz")
    found = model.run({name: arrays[name] for name in model.feed_names})
    for name, value in zip(model.fetch_names, found):
        np.testing.assert_allclose(value, arrays[name], rtol=1e-5, atol=1e-5)


def test_the_table_knows_the_slots_and_attributes_of_paddle() -> None:
    holder = OpProtoHolder.instance()
    for name, row in rows().items():
        proto = holder.get_op_proto(row.type)
        inputs, outputs = ({each.name for each in slots} for slots in (proto.inputs, proto.outputs))
        attributes = {each.name for each in proto.attrs}
        computed = [each for each in row.inputs if isinstance(each, Computed)]
        slots = {each for each in row.inputs if isinstance(each, str)}
        slots |= {slot for each in computed for slot in (each.tensor, each.tensors) if slot is not None}
        assert slots <= inputs, name
        assert {each.name for each in proto.outputs if not each.dispensable} <= set(row.outputs) <= outputs, name
        assert {*row.attributes.values(), *row.fixed, *(each.attribute for each in computed)} <= attributes, name


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no_such_operator", {}, r"these operators cannot be imported: `pd_op\.no_such_operator`"),
    ("relu", {"invented": 3}, r"operation 1 \(pd_op\.relu\): has an attribute `invented`"),
    ("cumprod", {"dim": 1, "exclusive": True, "reverse": False}, "its `exclusive` is True"),
    ("softmax", {"axis": {"#": "0.a_i64", "D": 2**40}}, "its `axis` is 1099511627776"),
    ("softmax", {"axis": 7}, r"operation 1 \(pd_op\.softmax\): Paddle 2\.6 does not take it"),
]


@pytest.mark.parametrize(("name", "attributes", "message"), REFUSED)
def test_what_cannot_be_taken_is_named(name: str, attributes: dict[str, Any], message: str, tmp_path: Path) -> None:
    net = Net()
    result = net.op(name, [net.data("x", [-1, 4, 6])], [tensor([-1, 4, 6])], **attributes)
    net.fetch(result, tensor([-1, 4, 6]))
    with pytest.raises(InputError, match=message) as error:
        net.load(tmp_path)
    assert "\n" not in str(error.value)


def test_control_flow_is_refused(tmp_path: Path) -> None:
    net = Net()
    x = net.data("x", [-1, 4, 6])
    net.op("if", [x], [tensor([-1, 4, 6])])
    net.ops[-1]["regions"] = [{"#": "region_1", "blocks": []}]
    with pytest.raises(InputError, match=r"pd_op\.if\): control flow"):
        net.load(tmp_path)


def test_another_shape_than_the_file_says_is_refused(tmp_path: Path) -> None:
    net = Net()
    result = net.op("flatten", [net.data("x", [-1, 4, 6])], [tensor([-1, 25])], start_axis=1, stop_axis=2)
    net.fetch(result, tensor([-1, 25]))
    with pytest.raises(InputError, match=r"of shape \[-1, 24\] here, and of \[-1, 25\] in the file"):
        net.load(tmp_path)


def test_an_attribute_may_be_left_out(tmp_path: Path) -> None:
    net = Net()
    result = net.op("softmax", [net.data("x", [-1, 4, 6])], [tensor([-1, 4, 6])], axis={"#": "NULL"})
    net.fetch(result, tensor([-1, 4, 6]))
    (found,) = net.load(tmp_path).run({"x": X})
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    assert attribute({"#": "NULL"}) == {"#": "NULL"}
