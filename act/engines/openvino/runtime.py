"""OpenVINO on the CPU: reads ONNX, fuses quantize/dequantize pairs into int8 kernels, runs the rest in f32 or bf16.

Its inference-precision hint decides what is not quantized: left alone it would choose bf16 by itself on CPUs that have
it, so that "fp32" must be asked for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from act.engines.base import Engine, Runner, RuntimePrecision, count_kernels
from act.samples.dataset import Array

_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "int8+bf16": "bf16"}
_KERNEL_KEYS = ("layerType", "runtimePrecision", "execOrder", "originalLayersNames")
# Layer types that multiply matrices, those that only quantize, and the precisions in the words of the settings.
_MULTIPLYING = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq", "RNNCell")
_CONVERSIONS = ("FakeQuantize",)
_PRECISIONS = {"i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "fp16", "f32": "fp32"}
# Of a convolution that OpenVINO has split off its bias.
_HELPERS = ("/WithoutBiases",)
# Counters are read before and after so many seconds of runs; read more often, what they cut off would count.
_TOGETHER_SECONDS = 0.03
# The standard deviation of what is cut off of a count, and of how unevenly a disturbance falls on kernels, as a share.
_CUT_OFF_SECONDS, _DISTURBED = 0.29e-6, 0.1
_NOT_WORK = ("Input", "Output", "Const", "Parameter", "Result")


class OpenVino(Engine):
    """OpenVINO's CPU plugin, one stream, tuned for latency."""

    def __init__(self) -> None:
        self._core = openvino.Core()
        self._compiled: Any = None
        self._request: Any = None

    def version(self) -> str:
        return str(openvino.__version__).split("-")[0]

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        names: list[RuntimePrecision] = ["fp32"]
        if "BF16" in capabilities:
            names.append("bf16")
        if "INT8" in capabilities:
            names.append("int8")
        if "BF16" in capabilities and "INT8" in capabilities:
            names.append("int8+bf16")
        return tuple(names)

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        self._path = path
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            # It alone among the engines would tie its threads to cores: with other work on one of those it took three
            # times as long, while the others moved over.
            "ENABLE_CPU_PINNING": "NO",
        }
        self._compiled = self._core.compile_model(str(path), "CPU", self._settings)
        self._request = self._compiled.create_infer_request()

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return _infer(self._request, feeds)

    def streams(self, count: int) -> list[Runner]:
        settings = {
            **self._settings,
            "NUM_STREAMS": str(count),
            "INFERENCE_NUM_THREADS": str(count * int(self._settings["INFERENCE_NUM_THREADS"])),
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        compiled = self._core.compile_model(str(self._path), "CPU", settings)
        return [partial(_infer, compiled.create_infer_request()) for _ in range(count)]

    def profile(self, feeds: Mapping[str, Array], runs: int) -> list[dict[str, Any]]:
        # Counting costs time, so the model that is timed as a whole is compiled without it.
        compiled = self._core.compile_model(str(self._path), "CPU", {**self._settings, "PERF_COUNT": "YES"})
        counters = _Counters(compiled.create_infer_request(), feeds)
        together = max(1, int(_TOGETHER_SECONDS / counters.run()))
        bursts = [counters.burst(min(together, runs - made)) for made in range(0, runs, together)]
        quick = sorted(bursts, key=lambda burst: burst.seconds / burst.runs)[: max(1, len(bursts) // 2)]
        seconds = counters.seconds(quick)
        # Only here: what is timed and whose memory is measured need not know ONNX.
        import onnx

        from act.onnx_graph.operator_names import named_operators

        named = named_operators(onnx.load(self._path, load_external_data=False).graph)
        kernels = []
        for node in compiled.get_runtime_model().get_ordered_ops():
            info = {key: value.astype(str) for key, value in node.get_rt_info().items() if key in _KERNEL_KEYS}
            if info["layerType"] in _NOT_WORK or node.get_friendly_name() not in seconds:
                continue
            made_of = [named[name] for name in info["originalLayersNames"].split(",") if name in named]
            sources = [each.get_source_output() for each in node.inputs()]
            kernels.append(
                {
                    "kind": info["layerType"],
                    "names": _listed(info["originalLayersNames"]),
                    "precision": info["runtimePrecision"],
                    "makes": _made_in(node.output(0)),
                    "shape": _shape(node.output(0)),
                    "seconds": seconds[node.get_friendly_name()],
                    "inputs": [
                        {"shape": _shape(source), "precision": _made_in(source)}
                        for source in sources
                        if not _is_constant(source.get_node())
                    ],
                    "weights": [
                        shape
                        for source in sources
                        if _is_constant(source.get_node()) and np.prod(shape := _shape(source)) > 1
                    ],
                    "operators": [operator.type for operator in made_of],
                    "attributes": next((operator.attributes for operator in made_of if operator.attributes), {}),
                    "order": int(info["execOrder"]),
                }
            )
        return sorted(kernels, key=lambda kernel: kernel.pop("order"))

    def operators(self) -> dict[str, dict[str, Any]]:
        told = ((kernel["kind"], kernel["precision"]) for kernel in self.kernels())
        return count_kernels(told, _MULTIPLYING, _CONVERSIONS)

    def kernels(self) -> list[dict[str, Any]]:
        """Read the execution graph, where each node lists the layers that were fused into it."""
        found = []
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            kind, precision, names = (
                node.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision", "originalLayersNames")
            )
            if kind not in _NOT_WORK:
                precision = _PRECISIONS.get(precision, precision)
                found.append({"kind": kind, "precision": precision, "names": _listed(names)})
        return found

    def describe(self) -> dict[str, Any]:
        """Return the settings in force, and how many executed layers run in each precision."""
        layers: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            if info["layerType"].astype(str) not in _NOT_WORK:
                layers[info["runtimePrecision"].astype(str)] += 1
        return {
            "inference_precision": self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
            "threads": int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            "streams": int(self._compiled.get_property("NUM_STREAMS")),
            "layers_by_precision": dict(layers.most_common()),
        }


@dataclass(frozen=True)
class _Burst:
    """Some runs: from which on, how many, their seconds, and those of each executed node in all of them."""

    first: int
    runs: int
    seconds: float
    counted: dict[str, float]


class _Counters:
    """Runs a request whose nodes are counted; the first run, which allocates memory, is made at once.

    The counters hold means of all runs so far, cut off to whole microseconds. What a node took in a burst is the
    difference of two counts, which what was cut off makes uncertain; the mean of all runs is not, but some of those
    were disturbed. So each node's time is the mean of both, weighted by how uncertain they are.
    """

    def __init__(self, request: Any, feeds: Mapping[str, Array]) -> None:
        self._request, self._feeds, self._made, self._spent = request, dict(feeds), 0, 0.0
        self.run()
        self._first, self._spent = self._counted(), 0.0

    def run(self) -> float:
        """Run once; the seconds that it took."""
        started = time.perf_counter()
        self._request.infer(self._feeds)
        seconds = time.perf_counter() - started
        self._made += 1
        self._spent += seconds
        return seconds

    def burst(self, runs: int) -> _Burst:
        """Run so many times."""
        first, before = self._made, self._counted()
        seconds = sum(self.run() for _ in range(runs))
        return _Burst(first, runs, seconds, _difference(self._counted(), before))

    def seconds(self, bursts: Sequence[_Burst]) -> dict[str, float]:
        """Return the seconds of each executed node in one run of these bursts."""
        runs = sum(burst.runs for burst in bursts)
        others = self._made - 1
        slowed = sum(burst.seconds for burst in bursts) / runs / (self._spent / others)
        squares = sum(burst.first**2 + (burst.first + burst.runs) ** 2 for burst in bursts)
        cut_off = _CUT_OFF_SECONDS * squares**0.5 / runs
        found = {}
        for name, total in _difference(self._counted(), self._first).items():
            usual = max(0.0, total / others * slowed)
            here = sum(burst.counted[name] for burst in bursts) / runs
            disturbed = _DISTURBED * usual
            found[name] = usual + (here - usual) * disturbed**2 / (disturbed**2 + cut_off**2)
        return found

    def _counted(self) -> dict[str, float]:
        entries = self._request.get_profiling_info()
        return {entry.node_name: entry.real_time.total_seconds() * self._made for entry in entries}


def _difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}


def _listed(names: str) -> list[str]:
    """Return the operators that an executed node stands for, without those that OpenVINO made itself."""
    return [name for name in names.split(",") if name and not name.endswith(_HELPERS)]


def _shape(output: Any) -> list[int]:
    shape = output.get_partial_shape()
    return [] if shape.rank.is_dynamic else [size.get_length() if size.is_static else -1 for size in shape]


def _made_in(output: Any) -> str:
    """Return the precision of an output of an executed node."""
    precisions = output.get_node().get_rt_info()["outputPrecisions"].astype(str).split(",")
    return str(precisions[min(output.get_index(), len(precisions) - 1)])


def _is_constant(node: Any) -> bool:
    """Tell whether a node of the executed graph is the same in every run."""
    if node.get_rt_info()["layerType"].astype(str) == "Const":
        return True
    sources = [each.get_source_output().get_node() for each in node.inputs()]
    return bool(sources) and all(_is_constant(source) for source in sources)


def _infer(request: Any, feeds: Mapping[str, Array]) -> list[Array]:
    results = request.infer(dict(feeds), share_inputs=True)
    return [np.asarray(results[output]) for output in request.model_outputs]
