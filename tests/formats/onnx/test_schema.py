"""Nodes that are not as ONNX has them: what they lack, and values that it gives no meaning."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from act.errors import InputError
from tests.formats.onnx.support import imported, model_of, node

WEIGHT = {
    "w": np.ones((3, 3, 1, 1), np.float32),
    "i": np.array([1, 1]),
    "s": np.array([1.0, 1.0, 2.0, 2.0], np.float32),
}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (node("Concat", "x,x"), "lacks its attribute axis"),
        (node("Gather", "x"), "lacks its input indices"),
        (node("Conv", "x,"), "lacks its input W"),
        (node("Softmax", "x", axis=1.5), "attribute axis is not of the type"),
        (node("Relu", "nothing"), "`nothing` is nowhere computed"),
        (node("ReduceMax", "x", axes=[1], keepdims=2), "attribute keepdims is 2, neither 0 nor 1"),
        (node("Conv", "x,w", auto_pad="SAME"), "attribute auto_pad is `SAME`, not one of NOTSET"),
        (node("Conv", "x,w", strides=[0, 1]), r"attribute strides is \[0, 1\], less than 1"),
        (node("Conv", "x,w", group=0), "attribute group is 0, less than 1"),
        (node("MaxPool", "x", kernel_shape=[0, 1]), r"attribute kernel_shape is \[0, 1\], less than 1"),
        (node("Resize", "x,,s", mode="cubical"), "attribute mode is `cubical`, not one of cubic"),
        (node("DepthToSpace", "x", blocksize=1, mode="RCD"), "attribute mode is `RCD`, not one of CRD"),
        (node("Softmax", "x", axis=7), "names axis 7 of a tensor of 4 axes"),
        (node("Concat", "x,x", axis=-5), "names axis -5 of a tensor of 4 axes"),
        (node("Squeeze", "x,i"), "names an axis twice"),
    ],
)
def test_a_node_that_is_not_as_onnx_has_it_is_refused(bad: onnx.NodeProto, why: str) -> None:
    constants = {name: value for name, value in WEIGHT.items() if name in bad.input}
    with pytest.raises(InputError, match=f"{why}.*export the model again"):
        imported(model_of([bad], {"x": ["N", 3, 4, 5]}, ["y"], constants, 17))
