"""OpenVINO on the CPU: left alone it would choose bf16 on CPUs that have it, so that fp32 must be asked for."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from act.engines.base import Engine, ExecutedKernel, Runner, RuntimePrecision
from act.samples.dataset import Array

_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "int8+bf16": "bf16"}
_KERNEL_KEYS = ("layerType", "runtimePrecision", "originalLayersNames", "execOrder")
_PRECISIONS = {"i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "fp16", "f32": "fp32"}
# Of a convolution that OpenVINO has split off its bias.
_HELPERS = ("/WithoutBiases",)
_NOT_WORK = ("Input", "Output", "Const", "Parameter", "Result")


class OpenVino(Engine):
    """OpenVINO's CPU plugin, one stream, tuned for latency."""

    multiplying = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq", "RNNCell")
    conversions = ("FakeQuantize",)

    def __init__(self) -> None:
        self._core = openvino.Core()

    def version(self) -> str:
        return str(openvino.__version__).split("-")[0]

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        needs: dict[RuntimePrecision, set[str]] = {"bf16": {"BF16"}, "int8": {"INT8"}, "int8+bf16": {"BF16", "INT8"}}
        capabilities = set(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        return ("fp32", *(name for name, needed in needs.items() if needed <= capabilities))

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
        seconds = seconds_of_nodes(compiled.create_infer_request(), dict(feeds), runs)
        import onnx  # only here: what is timed and whose memory is measured need not know it

        from act.onnx_graph.graph import named_operators

        named = named_operators(onnx.load(self._path, load_external_data=False).graph)
        kernels = []
        for node, info, names in _executed(compiled):
            if node.get_friendly_name() not in seconds:
                continue
            made_of = [named[name] for name in names if name in named]
            sources = [each.get_source_output() for each in node.inputs()]
            constants = [_shape(source) for source in sources if _is_constant(source.get_node())]
            activations = [source for source in sources if not _is_constant(source.get_node())]
            kernels.append(
                {
                    "kind": info["layerType"],
                    "names": names,
                    "precision": info["runtimePrecision"],
                    "makes": _made_in(node.output(0)),
                    "shape": _shape(node.output(0)),
                    "seconds": seconds[node.get_friendly_name()],
                    "inputs": [{"shape": _shape(each), "precision": _made_in(each)} for each in activations],
                    "weights": [shape for shape in constants if np.prod(shape) > 1],
                    "operators": [operator.type for operator in made_of],
                    "attributes": next((operator.attributes for operator in made_of if operator.attributes), {}),
                    "order": int(info["execOrder"]),
                }
            )
        return sorted(kernels, key=lambda kernel: kernel.pop("order"))

    def kernels(self) -> list[ExecutedKernel]:
        """Read the execution graph, where each node lists the layers that were fused into it."""
        told = [(info["layerType"], info["runtimePrecision"], names) for _, info, names in _executed(self._compiled)]
        return [ExecutedKernel(kind, _PRECISIONS.get(precision, precision), names) for kind, precision, names in told]

    def describe(self) -> dict[str, Any]:
        layers = Counter(info["runtimePrecision"] for _, info, _ in _executed(self._compiled))
        return {
            "inference_precision": self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
            "threads": int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            "streams": int(self._compiled.get_property("NUM_STREAMS")),
            "layers_by_precision": dict(layers.most_common()),
        }


def seconds_of_nodes(
    request: Any, feeds: Mapping[str, Array], runs: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Measure how long each executed node takes in one run of a request with `PERF_COUNT`.

    The counters hold means of all runs so far, cut off to whole microseconds, so that only the mean of many tells. It
    is scaled by how much quicker than on average the quicker half of the runs was.
    """
    request.infer(feeds)  # allocates memory
    first = {entry.node_name: entry.real_time.total_seconds() for entry in request.get_profiling_info()}
    whole = []
    for _ in range(runs):
        started = clock()
        request.infer(feeds)
        whole.append(clock() - started)
    quicker = np.mean(sorted(whole)[: max(1, runs // 2)]) / np.mean(whole)
    totals = {
        entry.node_name: entry.real_time.total_seconds() * (runs + 1) - first.get(entry.node_name, 0.0)
        for entry in request.get_profiling_info()
    }
    return {name: max(0.0, float(total / runs * quicker)) for name, total in totals.items()}


def _executed(compiled: Any) -> Iterator[tuple[Any, dict[str, str], list[str]]]:
    """Yield each executed node, what OpenVINO says of it, and the operators that it stands for."""
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: value.astype(str) for key, value in node.get_rt_info().items() if key in _KERNEL_KEYS}
        if info["layerType"] not in _NOT_WORK:
            # Without those that OpenVINO made itself.
            names = info["originalLayersNames"].split(",")
            yield node, info, [name for name in names if name and not name.endswith(_HELPERS)]


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
