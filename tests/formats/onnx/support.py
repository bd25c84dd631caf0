"""ONNX models to import, and ONNX Runtime beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from act.formats._comparison import largest_deviation
from act.formats.onnx.importer import import_model
from act.formats.onnx.reading import checked
from act.program.model import InferenceModel
from act.samples.dataset import Array

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    opset: int = 17,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Make a model; `types` are those of inputs and outputs that are not float32."""
    kinds = {name: (types or {}).get(name, FLOAT) for name in (*inputs, *outputs)}
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kinds[name], None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def imported(proto: onnx.ModelProto) -> InferenceModel:
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return import_model(checked(copied, Path("m.onnx")))


def on_onnxruntime(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def assert_same(proto: onnx.ModelProto, feeds: Mapping[str, Array], most: float = 1e-5) -> InferenceModel:
    """Import a model, run it beside ONNX Runtime, and return it."""
    model = imported(proto)
    found, wanted = model.run(feeds), on_onnxruntime(proto, feeds)
    for have, want in zip(found, wanted):
        assert (np.asarray(have).dtype, np.asarray(have).shape) == (want.dtype, want.shape)
    assert largest_deviation([np.asarray(each) for each in found], wanted) <= most
    return model
