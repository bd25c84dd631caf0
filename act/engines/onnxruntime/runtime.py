"""ONNX Runtime on the CPU: runs fp32 and quantized ONNX models with its default provider.

It has no bfloat16 kernels on the CPU; a quantized model is fused as far as its graph optimiser knows the patterns.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from act.engines.base import Engine, Runner, RuntimePrecision, count_kernels
from act.samples.dataset import Array

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
_KERNEL_EVENT = "_kernel_time"
# A model whose kernels do hardly anything, and how often it runs.
_IDLE_KERNELS, _IDLE_SHAPE, _IDLE_RUNS = 64, (1, 16, 8, 8), 30
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
        outputs: list[Array] = session.run(self._output_names, dict(feeds))
        return outputs

    def profile(self, feeds: Mapping[str, Array], runs: int) -> list[dict[str, Any]]:
        """Take it from ONNX Runtime's profiler, less what that takes itself; the precision is that of the output."""
        # Only here: what is timed and whose memory is measured need not know it.
        import onnx

        from act.onnx_graph.operator_names import name_all, named_operators

        with tempfile.TemporaryDirectory() as folder:
            # Fused operators have no names, by which alone the profiler's events can be told apart: they get some, and
            # the model is run as it was optimised.
            optimised = Path(folder) / "optimised.onnx"
            options = self._options()
            options.optimized_model_filepath = str(optimised)
            self._open(options)
            model = onnx.load(optimised)
            name_all(model.graph)
            named = named_operators(model.graph)
            optimised.unlink()
            onnx.save(model, optimised, save_as_external_data=model.ByteSize() > _MOST_BYTES)
            # Counting costs time, so the session that is timed as a whole does without.
            options = self._options()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = onnxruntime.InferenceSession(str(optimised), options, providers=self._providers)
            whole: list[float] = []
            for _ in range(1 + runs):
                started = time.perf_counter()
                self._run_in(session, feeds)
                whole.append(time.perf_counter() - started)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        # The counters hold whole microseconds, so that the mean of many tells more than their median.
        # The first run, which allocates memory, is none of them.
        quick = sorted(range(1, len(whole)), key=whole.__getitem__)[: max(1, runs // 2)]
        seconds: dict[int, list[float]] = {}
        kernels: dict[int, dict[str, Any]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_EVENT):
                told = event["args"]
                place = int(told["node_index"])
                seconds.setdefault(place, []).append(event["dur"] / 1e6)
                kind, shape = next(iter((told["output_type_shape"] or [{"": []}])[0].items()))
                operator = named[event["name"].removesuffix(_KERNEL_EVENT)]
                kernels[place] = {
                    "kind": told["op_name"],
                    "precision": _PRECISIONS.get(kind, kind),
                    "shape": shape,
                    "inputs": _activations(told["input_type_shape"], operator.constants),
                    "weights": [size for size in operator.constants if np.prod(size) > 1],
                    "operators": [told["op_name"], *operator.fused],
                    "attributes": operator.attributes,
                }
        # What stands in a branch or a loop runs as often as it likes.
        means = {
            place: np.mean(np.array(times)[quick] if len(times) == len(whole) else times)
            for place, times in seconds.items()
        }
        own = _profilers_own()
        return [{**kernels[place], "seconds": max(0.0, float(means[place]) - own)} for place in sorted(kernels)]

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
        # Only here: what is timed and whose memory is measured need not know it.
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
            self._open(options)
            return onnx.load(options.optimized_model_filepath, load_external_data=False).graph

    def describe(self) -> dict[str, Any]:
        """Return the provider and the number of threads."""
        return {"provider": self._session.get_providers()[0], "threads": self._threads}


def _precision(kind: str) -> str:
    return "int8" if kind in _INT8 else "fp32"


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


@lru_cache(maxsize=1)
def _profilers_own() -> float:
    """Seconds that the profiler adds to each kernel, for it writes down shapes before it stops the clock.

    Told by kernels that take a fraction of it (here 0.4 of 2 microseconds): what they are said to take, less what a
    whole run takes for each of them where nothing is counted.
    """
    from onnx import TensorProto, helper

    names = [str(place) for place in range(_IDLE_KERNELS + 1)]
    nodes = [helper.make_node("Relu", [read], [made], name=made) for read, made in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, _IDLE_SHAPE) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "idle", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    feeds = {names[0]: np.zeros(_IDLE_SHAPE, np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        taken = []
        for counts in (False, True):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.log_severity_level = 3
            options.enable_profiling = counts
            options.profile_file_prefix = str(Path(folder) / "idle")
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            for _ in range(_IDLE_RUNS):
                started = time.perf_counter()
                session.run(None, feeds)
                taken.append(time.perf_counter() - started)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    told = [
        event["dur"] / 1e6 for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_EVENT)
    ]
    counted = np.quantile(np.reshape(told, (_IDLE_RUNS, _IDLE_KERNELS)).sum(axis=1), 0.1)
    plain = np.quantile(taken[:_IDLE_RUNS], 0.1)
    return max(0.0, float(counted - plain)) / _IDLE_KERNELS
