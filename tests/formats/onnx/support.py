"""ONNX models of few nodes, and ONNX Runtime beside the programs that they are imported as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from act.formats.onnx.importer import import_model
from act.formats.onnx.reading import checked
from act.program.model import InferenceModel
from act.samples.dataset import Array

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def values(*shape: int, seed: int = 0) -> Array:
    """Return normally distributed numbers, float32."""
    return np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32)


def node(kind: str, inputs: str, outputs: str = "y", /, **attributes: Any) -> onnx.NodeProto:
    """Make a node; commas stand between the names of its inputs, and of its outputs."""
    return helper.make_node(kind, inputs.split(","), outputs.split(","), name=f"{kind} of {outputs}", **attributes)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[object]],
    outputs: Sequence[str],
    constants: Mapping[str, object] | None = None,
    opset: int = 17,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Make a model.

    Args:
        inputs: the lengths of their axes: numbers, names, or None.
        types: those of inputs and outputs that are not float32.
    """
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
    """Return the program of a model, which stays as it is."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return import_model(checked(copied, Path("m.onnx")))


def op_types(model: InferenceModel) -> list[str]:
    """Return the types of a program's operators, in order."""
    return [op.type for op in model.ops]


def on_onnxruntime(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Return a model's outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, dict(feeds))
    return outputs


def assert_same(proto: onnx.ModelProto, feeds: Mapping[str, Array], tolerance: float = 1e-5) -> InferenceModel:
    """Return the program of a model; assert that it computes what ONNX Runtime does.

    Args:
        tolerance: what a real number may differ by, beside a share of 1e-5 of it; whole numbers are the same.
    """
    model = imported(proto)
    results, expected = model.run(feeds), on_onnxruntime(proto, feeds)
    assert len(results) == len(expected)
    for have, want in zip(map(np.asarray, results), expected):
        assert (have.dtype, have.shape) == (want.dtype, want.shape)
        share = 1e-5 if want.dtype.kind == "f" else 0
        np.testing.assert_allclose(have, want, rtol=share, atol=tolerance)
    return model


def assert_nodes_same(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    constants: Mapping[str, object],
    opset: int,
    shapes: Mapping[str, Sequence[object]] | None = None,
    tolerance: float = 1e-5,
) -> InferenceModel:
    """Return the program of nodes, of which the last has the outputs; assert that it computes what ONNX Runtime does.

    Args:
        shapes: what the model declares of an input; by default the shape of what is fed.
    """
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    lengths = {name: (shapes or {}).get(name, value.shape) for name, value in feeds.items()}
    proto = model_of(nodes, lengths, [name for name in nodes[-1].output if name], constants, opset, types)
    for output in proto.graph.output:
        output.ClearField("type")
    for output, value in zip(proto.graph.output, on_onnxruntime(proto, feeds)):
        output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    return assert_same(proto, feeds, tolerance)
