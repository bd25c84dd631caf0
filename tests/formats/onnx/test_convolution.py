"""Convolutions: one operator of Paddle for one, whatever their padding and however many axes they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.formats.onnx.support import assert_same, imported, model_of, op_types, values

_PLANE, _FREE = (2, 4, 9, 10), ("n", "c", "h", "w")


@pytest.mark.parametrize(
    ("shape", "declared", "weight", "opset", "attributes", "kinds"),
    [
        (_PLANE, _FREE, (6, 4, 3, 3), 7, {"pads": [1, 1, 1, 1], "strides": [2, 2]}, ["conv2d"]),
        (_PLANE, _FREE, (8, 1, 3, 3), 12, {"pads": [0, 1, 2, 0], "group": 4}, ["depthwise_conv2d"]),
        (_PLANE, _FREE, (6, 4, 3, 3), 11, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, ["conv2d"]),
        (_PLANE, _PLANE, (6, 4, 3, 3), 11, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, ["conv2d"]),
        ((2, 4, 15), ("n", 4, "l"), (6, 4, 3), 13, {"pads": [2, 1], "dilations": [2]}, ["unsqueeze2", "conv2d"]),
        ((1, 3, 6, 7, 8), ("n", 3, "d", "h", "w"), (4, 3, 3, 3, 2), 13, {"pads": [1, 0, 1, 0, 1, 1]}, ["conv3d"]),
    ],
)
def test_a_convolution_keeps_its_weight_and_its_free_axes(
    shape: tuple[int, ...],
    declared: tuple[Any, ...],
    weight: tuple[int, ...],
    opset: int,
    attributes: dict[str, Any],
    kinds: list[str],
) -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)
    constants = {"w": values(*weight, seed=1), "b": values(weight[0], seed=2)}
    model = assert_same(model_of([node], {"x": declared}, ["y"], constants, opset), {"x": values(*shape)})
    assert op_types(model)[: len(kinds) + 1] == [*kinds, "elementwise_add"]
    assert model.weight("w").size == constants["w"].size


@pytest.mark.parametrize(
    ("shape", "weight", "attributes"),
    [
        (_PLANE, (4, 6, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        (_PLANE, (4, 3, 3, 3), {"strides": [2, 2], "pads": [0, 1, 1, 0], "group": 2}),
        (_PLANE, (4, 6, 4, 4), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        (_PLANE, (4, 6, 3, 3), {"strides": [2, 2], "output_shape": [18, 20]}),
        (_PLANE, (4, 6, 3, 3), {"strides": [2, 1], "dilations": [2, 3], "pads": [1, 2, 1, 2]}),
        ((2, 4, 9), (4, 6, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
        ((1, 4, 4, 5, 6), (4, 6, 2, 2, 2), {"strides": [2, 2, 2]}),
        ((1, 4, 4, 5, 6), (4, 6, 3, 3, 3), {"strides": [2, 2, 2], "pads": [1] * 6, "output_padding": [1, 1, 1]}),
    ],
)
def test_a_transposed_convolution_has_the_size_that_onnx_says(
    shape: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)
    proto = model_of([node], {"x": ["n", *shape[1:]]}, ["y"], {"w": values(*weight, seed=1)}, 11)
    kinds = op_types(assert_same(proto, {"x": values(*shape)}))
    # Paddle2ONNX writes those over two axes alone.
    assert kinds[0] == "conv3d" if len(shape) == 5 else "conv2d_transpose" in kinds


def test_a_weight_may_be_computed() -> None:
    nodes = [helper.make_node("Add", ["w", "w"], ["v"]), helper.make_node("Conv", ["x", "v"], ["y"])]
    model = model_of(nodes, {"x": _PLANE, "w": (6, 4, 3, 3)}, ["y"], opset=13)
    assert_same(model, {"x": values(*_PLANE), "w": values(6, 4, 3, 3, seed=1)}, 1e-4)


def test_offsets_of_zero_make_a_deformable_convolution_a_plain_one() -> None:
    weight, x, offsets = values(6, 4, 3, 3, seed=1), values(*_PLANE), np.zeros((2, 18, 9, 9), np.float32)
    node = helper.make_node("DeformConv", ["x", "w", "o"], ["y"], pads=[1, 0, 1, 1])
    deformable = imported(model_of([node], {"x": _PLANE, "o": offsets.shape}, ["y"], {"w": weight}, 19))
    plain = imported(
        model_of([helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 0, 1, 1])], {"x": _PLANE}, ["y"], {"w": weight})
    )
    found, wanted = deformable.run({"x": x, "o": offsets})[0], plain.run({"x": x})[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
