"""Resizing: Paddle's interpolation where it computes the same, free axes and sizes that are computed included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from act.errors import InputError
from tests.formats.onnx.support import assert_same, imported, model_of, op_types, values

_FREE = ("n", 3, "h", "w")
_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def _model(
    declared: Sequence[Any],
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    opset: int = 13,
    **attributes: Any,
) -> onnx.ModelProto:
    """Make a model of one node."""
    constants = {"scales": np.array(scales or [], np.float32), "sizes": np.array(sizes or [], np.int64)}
    if opset < 11:
        node = helper.make_node("Resize" if opset == 10 else "Upsample", ["x", "scales"], ["y"], **attributes)
        del constants["sizes"]
    else:
        inputs = ["x", "", "scales"] if scales else ["x", "", "", "sizes"]
        node = helper.make_node("Resize", inputs, ["y"], **attributes)
        del constants["sizes" if scales else "scales"]
    return model_of([node], {"x": declared}, ["y"], constants, opset)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (_NEAREST, "nearest_interp_v2"),
        ({"mode": "nearest"}, "nearest_interp_v2"),
        ({"mode": "linear"}, "bilinear_interp_v2"),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, "bilinear_interp_v2"),
        ({"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, "bilinear_interp_v2"),
        ({"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"}, "bicubic_interp_v2"),
    ],
)
def test_free_axes_are_resized_by_one_operator(attributes: dict[str, Any], expected: str) -> None:
    model = assert_same(_model(_FREE, [1, 1, 2, 2], **attributes), {"x": values(2, 3, 6, 7)})
    assert op_types(model) == [expected]


@pytest.mark.parametrize(("opset", "mode"), [(9, "nearest"), (9, "linear"), (10, "nearest"), (10, "linear")])
def test_old_models_are_resized(opset: int, mode: str) -> None:
    assert_same(_model(_FREE, [1, 1, 2, 3], opset=opset, mode=mode), {"x": values(2, 3, 6, 7)})


@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        ((2, 3, 7), [1, 1, 2]),
        ((1, 2, 4, 5, 6), [1, 1, 2, 2, 2]),
        ((2, 6, 7, 3), [1, 2, 2, 1]),
        ((2, 3, 6, 7), [1, 1, 2, 1]),
    ],
)
@pytest.mark.parametrize("attributes", [_NEAREST, {"mode": "linear"}])
def test_any_axes_are_resized(shape: tuple[int, ...], scales: list[float], attributes: dict[str, Any]) -> None:
    declared = ["n", *(length if length == 3 else f"axis {axis}" for axis, length in enumerate(shape[1:]))]
    assert any(
        "interp_v2" in kind
        for kind in op_types(assert_same(_model(declared, scales, **attributes), {"x": values(*shape)}))
    )


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"mode": "nearest", "nearest_mode": "ceil"},
        {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
        {"mode": "linear"},
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    ],
)
def test_what_paddle_has_not_is_computed_by_constants(attributes: dict[str, Any], coordinates: str) -> None:
    x = {"x": values(2, 3, 6, 7)}
    attributes = {**attributes, "coordinate_transformation_mode": coordinates}
    assert_same(_model(("n", 3, 6, 7), scales=[1, 1, 1.7, 0.6], opset=19, **attributes), x)
    assert_same(_model(("n", 3, 6, 7), sizes=[2, 3, 1, 5], opset=19, **attributes), x)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_downsampling_is_smoothed_where_the_model_says_so(mode: str) -> None:
    proto = _model((1, 1, 16, 17), [1, 1, 0.4, 0.6], opset=18, mode=mode, antialias=1)
    assert_same(proto, {"x": values(1, 1, 16, 17)})


def test_what_cannot_be_computed_without_lengths_is_refused() -> None:
    with pytest.raises(InputError, match="fixed sizes"):
        imported(_model(_FREE, [1, 1, 2, 2], mode="nearest", nearest_mode="ceil"))


def _sizes(axes: str, factor: float | None) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Return the nodes that compute sizes: those of another tensor, or of the input by a factor."""
    nodes = [
        helper.make_node("Shape", [axes], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "four"], ["plane"]),
        helper.make_node("Shape", ["x"], ["own"]),
        helper.make_node("Slice", ["own", "zero", "two"], ["first"]),
        helper.make_node("Concat", ["first", "plane" if factor is None else "whole"], ["sizes"], axis=0),
    ]
    scaled = [
        helper.make_node("Cast", ["plane"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "factor"], ["product"]),
        helper.make_node("Floor", ["product"], ["floor"]),
        helper.make_node("Cast", ["floor"], ["whole"], to=onnx.TensorProto.INT64),
    ]
    constants = {name: np.array([value], np.int64) for name, value in (("zero", 0), ("two", 2), ("four", 4))}
    if factor is None:
        return nodes, constants
    return [*nodes[:4], *scaled, nodes[4]], {**constants, "factor": np.array(factor, np.float32)}


@pytest.mark.parametrize("factor", [None, 2.0, 1.5])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_sizes_are_computed(mode: str, factor: float | None) -> None:
    nodes, constants = _sizes("z" if factor is None else "x", factor)
    resize = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode=mode)
    add = helper.make_node("Relu", ["z"], ["other"])
    proto = model_of([*nodes, resize, add], {"x": _FREE, "z": ("n", 5, "H", "W")}, ["y", "other"], constants, 13)
    model = assert_same(proto, {"x": values(2, 3, 6, 7), "z": values(2, 5, 13, 12)})
    if factor == 2.0:
        # A constant ratio needs no lengths.
        assert "shape" not in op_types(model)


def test_scales_may_be_quotients_of_lengths() -> None:
    nodes = [
        *(helper.make_node("Shape", [name], [f"{name} shape"]) for name in "xz"),
        *(helper.make_node("Slice", [f"{name} shape"], [f"{name} plane"], starts=[2], ends=[4]) for name in "xz"),
        *(helper.make_node("Cast", [f"{name} plane"], [f"{name} real"], to=onnx.TensorProto.FLOAT) for name in "xz"),
        helper.make_node("Div", ["z real", "x real"], ["ratio"]),
        helper.make_node("Concat", ["ones", "ratio"], ["scales"], axis=0),
        helper.make_node("Upsample", ["x", "scales"], ["y"], mode="linear"),
    ]
    proto = model_of(nodes, {"x": _FREE, "z": ("n", 5, "H", "W")}, ["y"], {"ones": np.ones(2, np.float32)}, 9)
    assert_same(proto, {"x": values(2, 3, 6, 7), "z": values(2, 5, 12, 14)})
