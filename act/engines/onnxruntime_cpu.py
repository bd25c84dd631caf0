"""ONNX Runtime on the CPU: runs fp32 and quantized ONNX models with its default provider.

It has no bfloat16 kernels on the CPU; a quantized model is fused as far as its graph optimiser knows the patterns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from act.engines.base import Engine, RuntimePrecision
from act.samples import Array


class OnnxRuntime(Engine):
    """ONNX Runtime's `CPUExecutionProvider`, nodes in sequence."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._session: Any = None
        self._output_names: list[str] = []
        self._threads = 1

    def version(self) -> str:
        return str(onnxruntime.__version__)

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32", "int8")

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._output_names = [output.name for output in self._session.get_outputs()]
        self._threads = threads

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        outputs: list[Array] = self._session.run(self._output_names, dict(feeds))
        return outputs

    def describe(self) -> dict[str, Any]:
        """The provider and the number of threads."""
        return {"provider": self._session.get_providers()[0], "threads": self._threads}
