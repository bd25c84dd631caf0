"""The first operator of an ONNX model that computes something else in Paddle than in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from act.engines.process import EngineFailure, EngineProcess
from act.formats._comparison import LARGEST_DEVIATION
from act.formats.onnx.reading import read
from act.program.model import InferenceModel
from act.program.outputs import deviation
from act.samples.dataset import Array, Ragged, Samples

_TIME_LIMIT_SECONDS = 300


def first_difference(path: Path, model: InferenceModel, batch: Mapping[str, Array]) -> str:
    """Return the node, its type and its tensor, as in "node `conv_3` (Conv), tensor `x.3`"; empty where none is found.

    Args:
        batch: what both are run with.
    """
    source = read(path)
    ends = {value.name for value in source.graph.output}
    nodes = [(node, name) for node in source.graph.node for name in node.output if name and model.has(name)]
    source.graph.output.extend(onnx.ValueInfoProto(name=name) for _, name in nodes if name not in ends)
    names = [value.name for value in source.graph.output]
    with tempfile.TemporaryDirectory() as scratch:
        twin = Path(scratch) / "model.onnx"
        try:
            onnx.save(source.proto, twin)
        except ValueError:  # larger than a file without external data can be
            return ""
        Samples({name: Ragged.of(list(values)) for name, values in batch.items()}).save(Path(scratch) / "samples")
        try:
            with EngineProcess("onnxruntime", twin, "fp32", 1, _TIME_LIMIT_SECONDS) as process:
                process.load()
                found = process.tensors(Path(scratch) / "samples")
        except EngineFailure:
            return ""
    truth = dict(zip(names, found))
    for node, name in nodes:
        try:
            computed = np.asarray(model.run(batch, [name])[0])
        except Exception:  # Paddle raises a dozen kinds
            return f"node `{node.name}` ({node.op_type}), tensor `{name}`, which Paddle cannot compute"
        if name in truth and deviation([computed], [truth[name]]) > LARGEST_DEVIATION:
            return f"node `{node.name}` ({node.op_type}), tensor `{name}`"
    return ""
