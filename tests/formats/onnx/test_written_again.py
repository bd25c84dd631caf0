"""Operators that Paddle2ONNX would write as something else, written as ONNX again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from act.onnx_graph.conversion import to_onnx
from act.samples.dataset import Array
from tests.formats.onnx.support import assert_same, model_of, node, on_onnxruntime, values

BOXES = np.array([[0, 0, 5, 5], [1, 2, 7, 6], [3, 3, 5, 8]], np.float32)


def gelu() -> tuple[onnx.ModelProto, dict[str, Array]]:
    proto = model_of([node("Gelu", "x", approximate="tanh")], {"x": ["N", 6]}, ["y"], opset=20)
    return proto, {"x": 3 * values(4, 6)}


def boxes_by_half_pixels() -> tuple[onnx.ModelProto, dict[str, Array]]:
    cut = node("RoiAlign", "x,r,i", output_height=3, output_width=2, sampling_ratio=2, spatial_scale=0.9)
    proto = model_of([cut], {"x": (1, 3, "h", "w"), "r": ("k", 4), "i": ("k",)}, ["y"], types={"i": 7})
    return proto, {"x": values(1, 3, 10, 10), "r": BOXES, "i": np.zeros(3, np.int64)}


def padded_to_even(mode: str) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Pad rows by 9 - height, which cuts where that is negative, and columns by height - 2."""
    nodes = [
        node("Shape", "x", "h", start=2, end=3),
        node("Sub", "nine,h", "rows"),
        node("Sub", "h,two", "columns"),
        node("Concat", "none,none,rows,columns,none,none,none,none", "p", axis=0),
        node("Pad", "x,p", mode=mode),
    ]
    constants = {"nine": np.array([9]), "two": np.array([2]), "none": np.array([0])}
    return model_of(nodes, {"x": ["N", 3, "H", "W"]}, ["y"], constants), {"x": values(2, 3, 7, 8)}


def padded_as_pytorch_writes_it() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Pad rows by amounts that PyTorch lists from the last axis on, in pairs, which its exporter turns round."""
    nodes = [
        node("Shape", "x", "h", start=2, end=3),
        node("Sub", "nine,h", "rows"),
        node("Concat", "none,none,rows,none,none,none,none,none", "listed", axis=0),
        node("Reshape", "listed,pairs", "a"),
        node("Slice", "a,last,before,none,last", "b"),
        node("Transpose", "b", "c", perm=[1, 0]),
        node("Reshape", "c,last", "p"),
        node("Pad", "x,p"),
    ]
    constants = {"nine": np.array([9]), "none": np.array([0]), "pairs": np.array([-1, 2])}
    constants |= {"last": np.array([-1]), "before": np.array([-(2**63) + 1])}
    return model_of(nodes, {"x": ["N", 3, "H", "W"]}, ["y"], constants), {"x": values(2, 3, 7, 8)}


def padded_as_tf2onnx_writes_it() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Pad rows by amounts in the order of the channels last, which tf2onnx takes apart and joins anew."""
    amounts = [f"p{number}" for number in range(8)]
    nodes = [
        node("Shape", "x", "h", start=2, end=3),
        node("Sub", "h,nine", "less"),
        node("Neg", "less", "rows"),
        node("Max", "rows,none", "more"),
        node("Concat", "none,none,none,none,none,more,none,none", "listed", axis=0),
        node("Split", "listed,ones", ",".join(amounts), axis=0),
        node("Concat", ",".join(amounts[at] for at in (0, 3, 1, 2, 4, 7, 5, 6)), "p", axis=0),
        node("Pad", "x,p"),
    ]
    constants = {"nine": np.array([9]), "none": np.array([0]), "ones": np.ones(8, np.int64)}
    return model_of(nodes, {"x": ["N", 3, "H", "W"]}, ["y"], constants), {"x": values(2, 3, 7, 8)}


@pytest.mark.parametrize(
    ("proto", "feeds"),
    [
        gelu(),
        boxes_by_half_pixels(),
        padded_to_even("constant"),
        padded_to_even("reflect"),
        padded_as_pytorch_writes_it(),
        padded_as_tf2onnx_writes_it(),
    ],
    ids=["gelu", "boxes", "pads", "reflections", "PyTorch's pads", "tf2onnx's pads"],
)
def test_the_written_model_computes_the_same(proto: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    model = assert_same(proto, feeds)
    for have, want in zip(on_onnxruntime(to_onnx(model), feeds), on_onnxruntime(proto, feeds)):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


def test_a_computed_pad_cuts_where_negative() -> None:
    proto, _ = padded_to_even("constant")
    for height in (10, 12):
        assert_same(proto, {"x": values(1, 3, height, 4)})
