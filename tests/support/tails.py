"""Small detectors that choose their boxes themselves, in ONNX and in Paddle, and models that end otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from tests.support.odd_models import Odd

F = paddle.nn.functional

HEAD = """
    y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
    r = Relu (y)
    b = Conv (r, w_boxes)
    s = Conv (r, w_scores)
    b_sigmoid = Sigmoid (b)
    b_flat = Reshape (b_sigmoid, four)
    boxes = Transpose <perm = [0, 2, 1]> (b_flat)
    s_sigmoid = Sigmoid (s)
    scores = Reshape (s_sigmoid, three)
"""
NMS = """
    selected = NonMaxSuppression <center_point_box = 1> (boxes, scores, most, overlap, threshold)
    best = GatherND (scores, selected)
"""
LOOP = """
    last = Loop (most, yes, scores) <
        body = body (int64 i, bool more, float[N, 3, K] now) => (bool on, float[N, 3, K] then)
        { on = Identity (more)  then = Mul (now, two) }>
    numbers = ArgMax <axis = 1> (last)
"""


def onnx_detector(ending: str, outputs: str, batch: str = "N", opset: int = 13) -> onnx.ModelProto:
    """Return a detector of pictures [3, 8, 8] with `boxes` [N, 64, 4] and `scores` [N, 3, 64], and what is behind."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]> detector (float[{batch}, 3, 8, 8] x) => ({outputs})
        <int64 most = {{20}}, float overlap = {{0.5}}, float threshold = {{0.3}}, bool yes = {{1}}, float two = {{2.0}},
         int64[3] four = {{0, 4, -1}}, int64[3] three = {{0, 3, -1}}> {{ {HEAD} {ending} }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w": (8, 3, 3, 3), "w_boxes": (4, 8, 1, 1), "w_scores": (3, 8, 1, 1)}.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def paddle_detector() -> InferenceModel:
    """Return a detector with `multiclass_nms3` inside, whose boxes are divided by an input `scale_factor` [N, 2]."""
    return _built({"image": ((-1, 3, 8, 8), "float32"), "scale_factor": ((-1, 2), "float32")}, _detect)


def paddle_classes() -> InferenceModel:
    """Return a model that gives the number of each pixel's class, int64 [N, 8, 8]."""
    return _built({"x": ((-1, 3, 8, 8), "float32")}, lambda x: paddle.argmax(_features(x, 8, 4), axis=1))


def paddle_choice() -> InferenceModel:
    """Return a model whose output has as many values as are positive, which ONNX cannot say as Paddle does."""

    def network(x: Any) -> Any:
        y = _features(x, 8, 4)
        return paddle.masked_select(y, y > 0)

    return _built({"x": ((-1, 3, 8, 8), "float32")}, network)


def paddle_loop() -> InferenceModel:
    """Return a model that doubles its values three times, in a loop that writes over them."""

    def network(x: Any) -> Any:
        number, end = paddle.full([1], 0, "int64"), paddle.full([1], 3, "int64")
        loop = paddle.static.nn.while_loop
        return loop(lambda n, y: n < end, lambda n, y: (n + 1, y * 2), [number, _features(x, 8, 4)])[1]

    return _built({"x": ((-1, 3, 8, 8), "float32")}, network)


def _built(inputs: Any, network: Any) -> InferenceModel:
    return Odd(inputs, network, lambda rng: {}).model()


def _features(x: Any, *channels: int) -> Any:
    for count in channels:
        x = F.relu(x)
        x = paddle.static.nn.conv2d(x, count, 3, padding=1)
    return x


def _detect(image: Any, scale_factor: Any) -> Any:
    y = F.relu(_features(image, 8))
    corners = paddle.transpose(paddle.flatten(F.sigmoid(_features(y, 4)) * 8, 2), [0, 2, 1])
    first, second = corners[:, :, :2], corners[:, :, 2:]
    boxes = paddle.concat([paddle.minimum(first, second), paddle.maximum(first, second)], axis=-1)
    boxes = boxes / paddle.concat([scale_factor, scale_factor], axis=-1).unsqueeze(1)
    scores = paddle.flatten(F.sigmoid(_features(y, 3)), 2)
    block = paddle.static.default_main_program().current_block()
    found = block.create_var(name="found", dtype="float32", shape=[-1, 6])
    index = block.create_var(name="index", dtype="int32", shape=[-1, 1])
    count = block.create_var(name="count", dtype="int32", shape=[-1])
    block.append_op(
        type="multiclass_nms3",
        inputs={"BBoxes": boxes, "Scores": scores},
        outputs={"Out": found, "Index": index, "NmsRoisNum": count},
        attrs={"background_label": -1, "score_threshold": 0.3, "nms_top_k": 50, "nms_threshold": 0.5}
        | {"keep_top_k": 20, "nms_eta": 1.0, "normalized": True},
    )
    return found, count
