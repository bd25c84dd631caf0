"""ONNX Runtime on the CPU: runs fp32 and quantized ONNX models with its default provider.

It has no bfloat16 kernels on the CPU; a quantized model is fused as far as its graph optimiser knows the patterns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from act.engines.base import Engine, Runner, RuntimePrecision, count_kernels
from act.engines.onnxruntime import profiler
from act.samples.dataset import Array

if TYPE_CHECKING:
    from act.onnx_graph.operator_names import OnnxOperator

# Operators of the optimised graph that multiply matrices.
_INT8 = (
    *("QLinearConv", "QLinearMatMul", "QGemm", "QAttention"),
    *("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"),
)
_FP32 = (
    *("Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"),
    *("Attention", "MultiHeadAttention", "LSTM", "GRU"),
)
# What the profiler calls types -> as other engines call them.
_PRECISIONS = {"float": "f32", "float16": "f16", "uint8": "u8", "int8": "i8", "int32": "i32", "int64": "i64"}
_MOST_BYTES = 2**31 - 2**20  # of a protobuf
_BLOCKED = "_nchwc"
_OF_WEIGHTS = " of weights"
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


class OnnxRuntime(Engine):
    """ONNX Runtime's `CPUExecutionProvider`, nodes in sequence."""

    def __init__(self) -> None:
        self._session: Any = None
        self._path = Path()
        self._providers: list[Any] = []
        self._output_names: list[str] = []
        self._threads = 1

    def version(self) -> str:
        return str(onnxruntime.__version__)

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32", "int8")

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        self._path, self._threads = path, threads
        self._providers = self._choose_providers(precision)
        self._session = self._open(self._options())
        self._output_names = [output.name for output in self._session.get_outputs()]

    def _options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        return options

    def _open(self, options: Any) -> Any:
        return onnxruntime.InferenceSession(str(self._path), options, providers=self._providers)

    def _choose_providers(self, precision: RuntimePrecision) -> list[Any]:
        """Return what the library takes as `providers`: names, or a name with its options."""
        return ["CPUExecutionProvider"]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return self._run_in(self._session, feeds)

    def streams(self, count: int) -> list[Runner]:
        # A session each: in one, all streams would share the threads of a single inference.
        sessions = [self._open(self._options()) for _ in range(count)]
        return [partial(self._run_in, session) for session in sessions]

    def _run_in(self, session: Any, feeds: Mapping[str, Array]) -> list[Array]:
        return session.run(self._output_names, dict(feeds))

    def profile(self, feeds: Mapping[str, Array], runs: int) -> list[dict[str, Any]]:
        """Take it from ONNX Runtime's profiler, less what that takes itself; the precision is that of the output."""
        import onnx  # only here: what is timed and whose memory is measured need not know it

        from act.onnx_graph.operator_names import named_operators

        with tempfile.TemporaryDirectory() as folder:
            # Fused operators have no names, by which alone the profiler's events can be told apart: they get some, and
            # the model is run as it was optimised.
            optimised = self._optimise(Path(folder))
            model = onnx.load(optimised)
            for number, node in enumerate(model.graph.node):
                node.name = f"{number}: {node.op_type}"
            operators = named_operators(model.graph)
            optimised.unlink()
            onnx.save(model, optimised, save_as_external_data=model.ByteSize() > _MOST_BYTES)
            # The first run, which allocates memory, does not count.
            whole, events = profiler.run(str(optimised), self._options(), self._providers, feeds, 1 + runs)
        # The counters hold whole microseconds, so that the mean of many tells more than their median.
        quick = sorted(range(1, len(whole)), key=whole.__getitem__)[: max(1, runs // 2)]
        seconds: dict[int, list[float]] = {}
        kernels: dict[int, dict[str, Any]] = {}
        for event in events:
            index = int(event.arguments["node_index"])
            seconds.setdefault(index, []).append(event.seconds)
            kernels[index] = _kernel(event, operators[event.node])
        own = profiler.own_seconds()
        for index, times in seconds.items():
            # What stands in a branch or a loop runs as often as it likes.
            mean = np.mean(np.array(times)[quick] if len(times) == len(whole) else times)
            kernels[index]["seconds"] = max(0.0, float(mean) - own)
        return [kernels[index] for index in sorted(kernels)]

    def operators(self) -> dict[str, dict[str, Any]]:
        """Read the optimised graph as it is written down; weights that each run dequantizes anew are a kind apart."""
        graph = self._optimised_graph()
        constants = {initialiser.name for initialiser in graph.initializer}
        told = []
        for node in graph.node:
            of_weight = node.op_type in _CONVERSIONS and node.input[0] in constants
            told.append((f"{node.op_type}{_OF_WEIGHTS}" if of_weight else node.op_type, _precision(node.op_type)))
        return count_kernels(told, (*_INT8, *_FP32), (*_CONVERSIONS, *(kind + _OF_WEIGHTS for kind in _CONVERSIONS)))

    def kernels(self) -> list[dict[str, Any]]:
        """Read the optimised graph as it is written down."""
        found = []
        for node in self._optimised_graph().node:
            # A convolution on blocks of channels makes a tensor of no name, and bears that of its original's.
            blocked = node.name.endswith(_BLOCKED)
            names = [node.name.removesuffix(_BLOCKED)] if blocked else [name for name in node.output if name]
            found.append({"kind": node.op_type, "precision": _precision(node.op_type), "names": names})
        return found

    def _optimised_graph(self) -> Any:
        import onnx  # only here, as in `profile`

        with tempfile.TemporaryDirectory() as folder:
            return onnx.load(self._optimise(Path(folder)), load_external_data=False).graph

    def _optimise(self, folder: Path) -> Path:
        """Write the optimised model into a folder, and return its file."""
        options = self._options()
        options.optimized_model_filepath = str(folder / "optimised.onnx")
        self._open(options)
        return folder / "optimised.onnx"

    def describe(self) -> dict[str, Any]:
        """Return the provider and the number of threads."""
        return {"provider": self._session.get_providers()[0], "threads": self._threads}


def _precision(kind: str) -> str:
    return "int8" if kind in _INT8 else "fp32"


def _kernel(event: profiler.Event, operator: OnnxOperator) -> dict[str, Any]:
    """Describe the kernel of an event as `Engine.profile` does, but for its time."""
    kind, shape = next(iter((event.arguments["output_type_shape"] or [{"": []}])[0].items()))
    return {
        "kind": event.arguments["op_name"],
        "precision": _PRECISIONS.get(kind, kind),
        "shape": shape,
        "inputs": _activations(event.arguments["input_type_shape"], operator.constants),
        "weights": [size for size in operator.constants if np.prod(size) > 1],
        "operators": [event.arguments["op_name"], *operator.fused],
        "attributes": operator.attributes,
    }


def _activations(told: list[dict[str, list[int]]], constants: list[list[int]]) -> list[dict[str, Any]]:
    """Return what a kernel reads without its constants, of which the profiler lists those that it has not repacked."""
    left = list(constants)
    found = []
    for each in told:
        kind, shape = next(iter(each.items()))
        if shape in left:
            left.remove(shape)
        else:
            found.append({"shape": shape, "precision": _PRECISIONS.get(kind, kind)})
    return found
