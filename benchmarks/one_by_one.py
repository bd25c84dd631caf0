"""A model's latency as the sum of its operators, each measured by itself: what fusing, caches and layouts cost or save
is not in it. For the comparison in `benchmarks.latency_model`, on some of the models, in fp32."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime

from act.engines.process import EngineFailure, EngineProcess
from act.onnx_graph.conversion import to_onnx
from act.program.model import InferenceModel
from act.samples.dataset import Array, Ragged, Samples
from act.settings import EngineName
from act.strategy.latency.model import Measured
from act.strategy.latency.table import Row, Table

MODELS = ("mobilenet_v1", "resnet50", "squeezenet", "shufflenet_v2", "mobilenet_v3", "recogniser")
RUNS = 9


class OneByOne:
    """Measures operators in an engine of their own; a context manager.

    Args:
        engine: where they run.
    """

    PRECISION: ClassVar[str] = "fp32, operators one by one"
    METHOD: ClassVar[str] = "one by one"

    def __init__(self, engine: EngineName) -> None:
        self._process = EngineProcess(engine, Path(), "fp32", 1, 3600)

    def __enter__(self) -> OneByOne:
        self._process.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.close()

    def add(self, found: Table, name: str, model: InferenceModel, batch: Mapping[str, Array]) -> None:
        """Measure the operators of a model, if it is one of `MODELS`, and add their sum to a table."""
        if name in MODELS:
            found.add(Row(self.PRECISION, 1, Measured(name, self._total(to_onnx(model), batch), [])))

    @classmethod
    def predicted(cls, found: Table, name: str) -> dict[str, float]:
        """Return the sum by the method's name, where there is one."""
        rows = [row for row in found.rows if row.measured.name == name and row.precision == cls.PRECISION]
        return {cls.METHOD: rows[-1].measured.seconds} if rows else {}

    def _total(self, converted: onnx.ModelProto, batch: Mapping[str, Array]) -> float:
        values = _all_values(converted, batch)
        constants = {each.name: each for each in converted.graph.initializer}
        count: Counter[bytes] = Counter()
        nodes: dict[bytes, onnx.NodeProto] = {}
        for node in converted.graph.node:
            read = [name for name in node.input if name and name not in constants]
            if node.op_type == "Constant" or any(values[name].dtype != np.float32 for name in read):
                continue  # shapes are computed in no time
            plain = onnx.NodeProto(op_type=node.op_type, attribute=node.attribute, domain=node.domain)
            shapes = [list(values[n].shape) if n in values else list(constants[n].dims) for n in node.input if n]
            key = plain.SerializeToString(deterministic=True) + repr(shapes).encode()
            count[key] += 1
            nodes.setdefault(key, node)
        return sum(times * self._alone(nodes[key], values, constants, converted) for key, times in count.items())

    def _alone(
        self, node: onnx.NodeProto, values: Mapping[str, Array], constants: Mapping[str, Any], like: onnx.ModelProto
    ) -> float:
        read = [name for name in dict.fromkeys(node.input) if name and name not in constants]
        if not read:
            return 0.0
        graph = onnx.helper.make_graph(
            [node],
            "alone",
            [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, values[n].shape) for n in read],
            [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
            [constants[name] for name in dict.fromkeys(node.input) if name in constants],
        )
        model = onnx.helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
        with tempfile.TemporaryDirectory() as name:
            path, samples = Path(name) / "alone.onnx", Path(name) / "samples"
            onnx.save(model, path)
            Samples({feed: Ragged.of([values[feed][0]]) for feed in read}).save(samples)
            try:
                self._process.load(path)
                return float(np.median(self._process.time(samples, 1, RUNS)))
            except EngineFailure:
                return 0.0


def _all_values(converted: onnx.ModelProto, batch: Mapping[str, Array]) -> dict[str, Array]:
    twin = onnx.ModelProto()
    twin.CopyFrom(converted)
    names = [name for node in twin.graph.node for name in node.output if name and node.op_type != "Constant"]
    del twin.graph.output[:]
    twin.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Any = onnxruntime.InferenceSession(twin.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {**batch, **dict(zip(names, session.run(names, dict(batch))))}
