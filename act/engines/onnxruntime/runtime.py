"""ONNX Runtime on the CPU, and on NVIDIA GPUs with CUDA or TensorRT: runs fp32 and quantized ONNX models.

It has no bfloat16 kernels on the CPU; a quantized model is fused as far as its graph optimiser knows the patterns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnxruntime

from act.engines.base import Engine, ExecutedKernel, Runner, RuntimePrecision
from act.engines.onnxruntime import profiler
from act.samples.dataset import Array

if TYPE_CHECKING:
    from act.onnx_graph.graph import FusedOperator

# Operators of the optimised graph that multiply matrices.
_INT8 = (
    *("QLinearConv", "QLinearMatMul", "QGemm", "QAttention"),
    *("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"),
)
_FP32 = (
    *("Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "MatMulNBits", "Gemm", "FusedGemm"),
    *("Attention", "MultiHeadAttention", "LSTM", "GRU"),
)
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_OF_WEIGHTS = " of weights"
# What the profiler calls types -> as other engines call them.
_PRECISIONS = {"float": "f32", "float16": "f16", "uint8": "u8", "int8": "i8", "int32": "i32", "int64": "i64"}
_MOST_BYTES = 2**31 - 2**20  # of a protobuf
_BLOCKED = "_nchwc"


class OnnxRuntime(Engine):
    """ONNX Runtime's `CPUExecutionProvider`, nodes in sequence."""

    provider: ClassVar[str] = "CPUExecutionProvider"
    offered: ClassVar[tuple[RuntimePrecision, ...]] = ("fp32", "int8")
    multiplying = (*_INT8, *_FP32)
    conversions = (*_CONVERSIONS, *(kind + _OF_WEIGHTS for kind in _CONVERSIONS))

    def version(self) -> str:
        return str(onnxruntime.__version__)

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        self._load(path, precision, threads, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)

    def load_unoptimised(self, path: Path, threads: int) -> None:
        self._load(path, "fp32", threads, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)

    def _load(self, path: Path, precision: RuntimePrecision, threads: int, level: Any) -> None:
        self._path, self._threads, self._level = path, threads, level
        self._providers = self._choose_providers(precision)
        self._session = self._open()
        self._output_names = [output.name for output in self._session.get_outputs()]

    def _open(self, optimised: str = "") -> Any:
        """Open a session, and write the optimised model to a file where one is named."""
        options = profiler.session_options(self._threads)
        options.graph_optimization_level = self._level
        options.optimized_model_filepath = optimised
        return onnxruntime.InferenceSession(str(self._path), options, providers=self._providers)

    def _choose_providers(self, precision: RuntimePrecision) -> list[Any]:
        """Return what the library takes as `providers`: names, or a name with its options."""
        return [self.provider]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return self._run_in(self._session, feeds)

    def streams(self, count: int) -> list[Runner]:
        # A session each: in one, all streams would share the threads of a single inference.
        return [partial(self._run_in, self._open()) for _ in range(count)]

    def _run_in(self, session: Any, feeds: Mapping[str, Array]) -> list[Array]:
        return session.run(self._output_names, dict(feeds))

    def profile(self, feeds: Mapping[str, Array], runs: int) -> list[dict[str, Any]]:
        """Take it from ONNX Runtime's profiler, less what that takes itself; the precision is that of the output."""
        import onnx  # only here: what is timed and whose memory is measured need not know it

        from act.onnx_graph.graph import named_operators

        with tempfile.TemporaryDirectory() as folder:
            # Fused operators have no names, by which alone the profiler's events can be told apart: they get some, and
            # the model is run as it was optimised.
            optimised = f"{folder}/optimised.onnx"
            self._open(optimised)
            model = onnx.load(optimised)
            for number, node in enumerate(model.graph.node):
                node.name = f"{number}: {node.op_type}"
            operators = named_operators(model.graph)
            Path(optimised).unlink()
            onnx.save(model, optimised, save_as_external_data=model.ByteSize() > _MOST_BYTES)
            # The first run, which allocates memory, does not count.
            whole, events = profiler.run(optimised, self._threads, self._providers, feeds, 1 + runs)
        # The counters hold whole microseconds, so that the mean of many tells more than their median.
        quick = sorted(range(1, len(whole)), key=whole.__getitem__)[: max(1, runs // 2)]
        by_node: dict[int, list[profiler.Event]] = {}
        for event in events:
            by_node.setdefault(int(event.arguments["node_index"]), []).append(event)
        kernels = []
        for _, (*before, last) in sorted(by_node.items()):
            times = np.array([event.seconds for event in (*before, last)])
            # What stands in a branch or a loop runs as often as it likes.
            mean = float(np.mean(times[quick] if len(times) == len(whole) else times))
            kernel = _kernel(last, operators[last.node])
            kernels.append({**kernel, "seconds": max(0.0, mean - profiler.own_seconds())})
        return kernels

    def kernels(self) -> list[ExecutedKernel]:
        """Read the optimised graph as it is written down; weights that each run dequantizes anew are a kind apart."""
        import onnx  # only here, as in `profile`

        with tempfile.TemporaryDirectory() as folder:
            self._open(f"{folder}/optimised.onnx")
            graph = onnx.load(f"{folder}/optimised.onnx", load_external_data=False).graph
        constants = {initialiser.name for initialiser in graph.initializer}
        found = []
        for node in graph.node:
            of_weight = node.op_type in _CONVERSIONS and node.input[0] in constants
            # A convolution on blocks of channels makes a tensor of no name, and bears that of its original's.
            blocked = node.name.endswith(_BLOCKED)
            names = [node.name.removesuffix(_BLOCKED)] if blocked else [name for name in node.output if name]
            precision = "int8" if node.op_type in _INT8 else "fp32"
            found.append(ExecutedKernel(node.op_type + _OF_WEIGHTS * of_weight, precision, names))
        return found

    def describe(self) -> dict[str, Any]:
        return {"provider": self._session.get_providers()[0], "threads": self._threads}


class OnnxRuntimeCuda(OnnxRuntime):
    """ONNX Runtime's `CUDAExecutionProvider`, first GPU.

    Left alone, ONNX Runtime falls back to the CPU with a warning when a provider does not start. Here that is an error.
    """

    provider = "CUDAExecutionProvider"
    offered: ClassVar[tuple[RuntimePrecision, ...]] = ("fp32",)

    def lacks(self) -> str | None:
        if self.provider in onnxruntime.get_available_providers():
            return None
        return (
            f"this ONNX Runtime {onnxruntime.__version__} is built without {self.provider}: install `onnxruntime-gpu` "
            "of the same version in place of `onnxruntime`, or run on the CPU (use_gpu: false)"
        )

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        super().load(path, precision, threads)
        first = self._session.get_providers()[0]
        if first != self.provider:
            raise RuntimeError(
                f"{self.provider} did not start and ONNX Runtime fell back to {first}: check the driver and the CUDA, "
                "cuDNN and TensorRT libraries that this version asks for"
            )

    def _choose_providers(self, precision: RuntimePrecision) -> list[Any]:
        return [self.provider, OnnxRuntime.provider]


class TensorRt(OnnxRuntimeCuda):
    """ONNX Runtime's `TensorrtExecutionProvider`; int8 takes the scales of the QDQ operators."""

    provider = "TensorrtExecutionProvider"
    offered = ("fp32", "fp16", "int8")

    def _choose_providers(self, precision: RuntimePrecision) -> list[Any]:
        options = {"trt_fp16_enable": precision == "fp16", "trt_int8_enable": precision == "int8"}
        return [(self.provider, options), OnnxRuntimeCuda.provider, OnnxRuntime.provider]


def _kernel(event: profiler.Event, operator: FusedOperator) -> dict[str, Any]:
    """Describe the kernel of an event as `Engine.profile` does, but for its time."""
    told, constants = event.arguments, list(operator.constants)
    output = _described((told["output_type_shape"] or [{"": []}])[0])
    inputs = []
    # The profiler lists the constants too, but for those that it has repacked.
    for each in map(_described, told["input_type_shape"]):
        if each["shape"] in constants:
            constants.remove(each["shape"])
        else:
            inputs.append(each)
    return {
        "kind": told["op_name"],
        **output,
        "inputs": inputs,
        "weights": [shape for shape in operator.constants if np.prod(shape) > 1],
        "operators": [told["op_name"], *operator.fused],
        "attributes": operator.attributes,
    }


def _described(told: dict[str, list[int]]) -> dict[str, Any]:
    ((kind, shape), *_) = told.items()
    return {"precision": _PRECISIONS.get(kind, kind), "shape": shape}
