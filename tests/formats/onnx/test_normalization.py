"""Normalization: one operator of Paddle for one where its limits allow that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.formats.onnx.support import assert_same, model_of, op_types, values

_SHAPE = (2, 6, 5, 7)


def _channels(count: int) -> dict[str, Any]:
    return {name: np.abs(values(6, seed=seed)) for seed, name in enumerate("sbmv"[:count])}


@pytest.mark.parametrize("opset", [7, 9, 15])
@pytest.mark.parametrize("epsilon", [1e-3, 0.05])
def test_a_batch_norm_is_one_operator(opset: int, epsilon: float) -> None:
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y"], epsilon=epsilon)
    proto = model_of([node], {"x": ("n", "c", "h", "w")}, ["y"], _channels(4), opset)
    assert op_types(assert_same(proto, {"x": values(*_SHAPE)})) == ["batch_norm"]


@pytest.mark.parametrize(
    ("kind", "count", "attributes", "opset", "expected"),
    [
        ("InstanceNormalization", 2, {}, 7, "instance_norm"),
        ("InstanceNormalization", 2, {"epsilon": 0.05}, 7, None),
        ("GroupNormalization", 2, {"num_groups": 3}, 21, "group_norm"),
        ("LpNormalization", 0, {"axis": 1, "p": 1}, 11, None),
        ("LRN", 0, {"size": 3, "alpha": 0.1, "bias": 2.0}, 7, None),
        ("MeanVarianceNormalization", 0, {"axes": [2, 3]}, 13, None),
    ],
)
def test_images_are_normalized(
    kind: str, count: int, attributes: dict[str, Any], opset: int, expected: str | None
) -> None:
    node = helper.make_node(kind, ["x", *"sb"[:count]], ["y"], **attributes)
    proto = model_of([node], {"x": ("n", 6, "h", "w")}, ["y"], _channels(count), opset)
    model = assert_same(proto, {"x": values(*_SHAPE)})
    assert expected is None or op_types(model) == [expected]


@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 6, 3, 4, 5)])
def test_groups_are_normalized_over_any_axes(shape: tuple[int, ...]) -> None:
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=3)
    proto = model_of([node], {"x": ("n", *shape[1:])}, ["y"], _channels(2), 21)
    assert_same(proto, {"x": values(*shape)})


@pytest.mark.parametrize(("axis", "shape"), [(-1, (6,)), (2, (5, 6)), (0, (2, 4, 5, 6))])
def test_a_layer_norm_takes_the_last_axes(axis: int, shape: tuple[int, ...]) -> None:
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y", "mean", "inverse"], axis=axis)
    proto = model_of([node], {"x": (2, 4, 5, 6)}, ["y", "mean", "inverse"], {"s": values(*shape)}, 17)
    model = assert_same(proto, {"x": values(2, 4, 5, 6)})
    assert ("layer_norm" in op_types(model)) == (axis != 0)
