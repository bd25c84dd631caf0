"""One small network in the forms that people have it in: those that need no environment apart from ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from act.formats import SourceModel
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.samples.dataset import Array
from tests.formats.onnx.support import model_of, node
from tests.formats.paddle3.support import Net, imported, tensor
from tests.support.prepare_networks import build

F = paddle.nn.functional
PICTURE = (3, 16, 16)
EPSILON = 1e-3


def weights(seed: int = 0) -> dict[str, Array]:
    """Draw the network's weights in PyTorch's layout, float32.

    A convolution with a batch norm, a depthwise and a pointwise one around which a residual goes, a mean over all
    positions, and five classes. The first has no stride: with one of 2 it reads blocks of pixels on ONNX Runtime, which
    is slower behind a transpose, so that pictures with the channels last would go without.
    """
    rng = np.random.default_rng(seed)
    shapes = {"first": (8, 3, 3, 3), "depth": (8, 1, 3, 3), "point": (8, 8, 1, 1), "last": (8, 5)}
    biases = {"mean": 8, "shift": 8, "depth_bias": 8, "point_bias": 8, "last_bias": 5}
    drawn = {name: rng.normal(size=shape) / 2 for name, shape in shapes.items()}
    drawn |= {name: rng.normal(size=length) / 4 for name, length in biases.items()}
    drawn |= {name: rng.uniform(0.5, 1.5, 8) for name in ("gamma", "variance")}
    return {name: values.astype(np.float32) for name, values in drawn.items()}


def pictures(count: int = 4) -> Array:
    """Draw inputs, float32 [count, 3, 16, 16]."""
    return np.random.default_rng(7).normal(size=(count, *PICTURE)).astype(np.float32)


def paddle_2(w: Mapping[str, Array], folder: Path) -> InferenceModel:
    """Write a program and its weights."""

    def parameter(name: str) -> Any:
        return paddle.create_parameter(list(w[name].shape), "float32", name)

    def network(x: Any) -> Any:
        x = F.conv2d(x, parameter("first"))
        norm = {"weight": parameter("gamma"), "bias": parameter("shift"), "epsilon": EPSILON}
        x = F.relu(F.batch_norm(x, parameter("mean"), parameter("variance"), **norm))
        y = F.relu(F.conv2d(x, parameter("depth"), parameter("depth_bias"), padding=1, groups=8))
        x = F.relu(x + F.conv2d(y, parameter("point"), parameter("point_bias")))
        return F.softmax(F.linear(x.mean([2, 3]), parameter("last"), parameter("last_bias")))

    model = build(network, (1, *PICTURE))
    for name in w:
        model.set_weight(name, w[name])
    folder.mkdir()
    model.save(folder)
    return SourceModel.find(folder).load()


def paddle_3(w: Mapping[str, Array], folder: Path) -> InferenceModel:
    """Write what Paddle 3 writes."""
    net, map_ = Net(), [-1, 8, 14, 14]
    put = {name: net.parameter(name, values) for name, values in w.items()}

    def convolved(x: int, name: str, groups: int = 1, padding: int = 0) -> int:
        settings = {"strides": [1, 1], "paddings": [padding] * 2, "dilations": [1, 1], "groups": groups}
        kind = "depthwise_conv2d" if groups > 1 else "conv2d"
        form = {"padding_algorithm": "EXPLICIT", "data_format": "NCHW"}
        y: int = net.op(kind, [x, put[name]], [tensor(map_)], **settings, **form)
        if f"{name}_bias" in put:
            shape, wide = net.ints(1, 8, 1, 1), tensor([1, 8, 1, 1])
            y = net.op("add", [y, net.op("reshape", [put[f"{name}_bias"], shape], [wide])], [tensor(map_)])
        return y

    def rectified(x: int) -> int:
        result: int = net.op("relu", [x], [tensor(map_)])
        return result

    x = convolved(net.data("x", [-1, *PICTURE]), "first")
    norm = [put[name] for name in ("mean", "variance", "gamma", "shift")]
    how = {"is_test": True, "momentum": 0.9, "epsilon": EPSILON, "data_format": "NCHW"}
    flags = {"use_global_stats": True, "trainable_statistics": False}
    x = net.op("batch_norm_", [x, *norm], [tensor(map_), *[tensor([8])] * 4, tensor([0])], **how, **flags)[0]
    x = rectified(x)
    y = rectified(convolved(x, "depth", groups=8, padding=1))
    x = rectified(net.op("add", [x, convolved(y, "point")], [tensor(map_)]))
    x = net.op("mean", [x, net.ints(2, 3)], [tensor([-1, 8])], keepdim=False)
    classes = tensor([-1, 5])
    x = net.op("matmul", [x, put["last"]], [classes], transpose_x=False, transpose_y=False)
    x = net.op("softmax", [net.op("add", [x, put["last_bias"]], [classes])], [classes], axis=-1)
    net.fetch(x, classes)
    net.save(folder)
    return imported(folder)


def onnx_of_pytorch(w: Mapping[str, Array], folder: Path) -> InferenceModel:
    """Write what PyTorch's exporter writes: the batch norm folded, and a `Gemm` of the transposed weight."""
    nodes = [
        node("Conv", "x,first,first_bias", "a", kernel_shape=[3, 3], pads=[0, 0, 0, 0]),
        node("Relu", "a", "b"),
        node("Conv", "b,depth,depth_bias", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=8),
        node("Relu", "c", "d"),
        node("Conv", "d,point,point_bias", "e", kernel_shape=[1, 1]),
        node("Add", "b,e", "f"),
        node("Relu", "f", "g"),
        node("ReduceMean", "g", "h", axes=[2, 3], keepdims=0),
        node("Gemm", "h,last,last_bias", "i", transB=1),
        node("Softmax", "i", "y", axis=-1),
    ]
    return _imported(nodes, ["N", *PICTURE], {**_folded(w), "last": w["last"].T}, folder)


def onnx_of_tf2onnx(w: Mapping[str, Array], folder: Path) -> InferenceModel:
    """Write what tf2onnx writes: a transpose behind the input, padding by name, the channels' biases apart."""
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t,first,first_bias", "a", kernel_shape=[3, 3], auto_pad="VALID"),
        node("Relu", "a", "b"),
        node("Conv", "b,depth,depth_bias", "c", kernel_shape=[3, 3], auto_pad="SAME_UPPER", group=8),
        node("Relu", "c", "d"),
        node("Conv", "d,point,point_bias", "e", kernel_shape=[1, 1], auto_pad="VALID"),
        node("Add", "b,e", "f"),
        node("Relu", "f", "g"),
        node("ReduceMean", "g", "h", axes=[2, 3], keepdims=0),
        node("MatMul", "h,last", "j"),
        node("Add", "j,last_bias", "i"),
        node("Softmax", "i", "y", axis=-1),
    ]
    height, width = PICTURE[1:]
    return _imported(nodes, ["N", height, width, 3], _folded(w), folder)


FORMS: Mapping[str, Callable[[Mapping[str, Array], Path], InferenceModel]] = {
    "paddle 2": paddle_2,
    "paddle 3": paddle_3,
    "onnx": onnx_of_pytorch,
    "onnx of tensorflow": onnx_of_tf2onnx,
}


def _folded(w: Mapping[str, Array]) -> dict[str, Array]:
    """Return the weights with the batch norm in the first convolution, as exporters write them."""
    factor = w["gamma"] / np.sqrt(w["variance"] + EPSILON)
    first = {"first": w["first"] * factor[:, None, None, None], "first_bias": w["shift"] - w["mean"] * factor}
    return {**{name: w[name] for name in w if name not in ("gamma", "shift", "mean", "variance")}, **first}


def _imported(nodes: list[onnx.NodeProto], shape: list[object], values: Mapping[str, Array], folder: Path) -> Any:
    folder.mkdir()
    onnx.save(model_of(nodes, {"x": shape}, ["y"], values), folder / "model.onnx")
    return SourceModel.find(folder).load()
