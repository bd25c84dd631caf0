"""Pooling: the windows that ONNX has, those at the end of what is rounded up above all."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import helper

from act.errors import InputError
from tests.formats.onnx.support import assert_same, imported, model_of, op_types, values

_FREE = ("n", "c", "h", "w")


@pytest.mark.parametrize("declared", [("n", 3, 9, 10), _FREE])
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 1, 2, 0], "dilations": [2, 1]}),
        ("AveragePool", {"kernel_shape": [4, 3], "strides": [2, 2], "pads": [2, 2, 0, 1], "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("LpPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "p": 3}),
    ],
)
def test_windows_lie_where_onnx_has_them(kind: str, attributes: dict[str, Any], declared: tuple[Any, ...]) -> None:
    node = helper.make_node(kind, ["x"], ["y"], **attributes)
    assert_same(model_of([node], {"x": declared}, ["y"], opset=19), {"x": values(2, 3, 9, 10)})


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_no_window_begins_behind_the_input(kind: str) -> None:
    node = helper.make_node(kind, ["x"], ["y"], kernel_shape=[1, 2], strides=[2, 2], ceil_mode=1)
    assert_same(model_of([node], {"x": ("n", 3, 6, 9)}, ["y"], opset=19), {"x": values(2, 3, 6, 9)})
    with pytest.raises(InputError, match="fixed one"):
        imported(model_of([node], {"x": _FREE}, ["y"], opset=19))


@pytest.mark.parametrize(
    "attributes", [{"pads": [1, 0, 1, 1]}, {"storage_order": 1}, {"pads": [0, 1, 1, 1], "ceil_mode": 1}]
)
def test_indices_are_those_of_the_whole_tensor(attributes: dict[str, Any]) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[3, 2], strides=[2, 2], **attributes)
    assert_same(
        model_of([node], {"x": (2, 3, 9, 10)}, ["y", "i"], opset=12, types={"i": 7}), {"x": values(2, 3, 9, 10)}
    )


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 7, 8), (2, 3, 4, 5, 6)])
def test_all_of_an_image_is_one_window(kind: str, shape: tuple[int, ...]) -> None:
    declared = ("n", 3, *"dhw"[: len(shape) - 2])
    model = assert_same(
        model_of([helper.make_node(kind, ["x"], ["y"])], {"x": declared}, ["y"], opset=11), {"x": values(*shape)}
    )
    if len(shape) == 4 and kind != "GlobalLpPool":
        assert op_types(model) == ["pool2d"]
