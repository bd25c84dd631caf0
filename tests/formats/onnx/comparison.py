"""Small ONNX models, run by ONNX Runtime and as the programs that they are imported as."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from act.formats.onnx.importer import import_model
from act.formats.onnx.reading import checked
from act.program.model import InferenceModel
from act.samples.dataset import Array

Shape = Sequence[int | str | None]


def imported(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    constants: Mapping[str, Array],
    opset: int,
    shapes: Mapping[str, Shape] | None = None,
    tolerance: float = 1e-5,
) -> InferenceModel:
    """Return the program of a model whose last node has its outputs; assert that it computes what ONNX Runtime does.

    `shapes` says what the model declares of an input; by default the shape of what is fed.
    """
    declared = {name: list((shapes or {}).get(name, value.shape)) for name, value in feeds.items()}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), declared[name])
            for name, value in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in nodes[-1].output if name],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(feeds))
    for value, result in zip(graph.output, expected):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(result.dtype)
    proto.graph.CopyFrom(graph)
    model = import_model(checked(proto, Path("model.onnx")))
    for have, want in zip(model.run(dict(feeds)), expected):
        assert np.asarray(have).shape == want.shape
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=tolerance)
    return model


def values(*shape: int, seed: int = 0) -> Array:
    """Return normally distributed numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
