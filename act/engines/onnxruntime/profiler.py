"""ONNX Runtime's own profiler: how long each kernel of each run takes, and what the profiler adds to it."""

import json
import tempfile
import time
from collections.abc import Mapping
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from act.samples.dataset import Array

_SUFFIX = "_kernel_time"
# A model whose kernels do hardly anything, and how often it runs.
_IDLE_KERNELS, _IDLE_SHAPE, _IDLE_RUNS = 64, (1, 16, 8, 8), 30


class Event(NamedTuple):
    """One kernel in one run: the name of its operator, its time in whole microseconds, what else the profiler tells."""

    node: str
    seconds: float
    arguments: Mapping[str, Any]


def session_options(threads: int) -> Any:
    """Return options of a session that runs its operators in sequence, each on so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return options


def run(
    model: str | bytes, threads: int, providers: list[Any], feeds: Mapping[str, Array], runs: int, counting: bool = True
) -> tuple[list[float], list[Event]]:
    """Run a model without optimising it; return the seconds of each whole run, and the events of all runs in order.

    Without `counting`, which takes time itself, there are no events.
    """
    options = session_options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = counting
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model, options, providers=providers)
        whole = []
        for _ in range(runs):
            started = time.perf_counter()
            session.run(None, dict(feeds))
            whole.append(time.perf_counter() - started)
        told = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")) if counting else []
    kernels = (each for each in told if each.get("cat") == "Node" and each["name"].endswith(_SUFFIX))
    return whole, [Event(each["name"].removesuffix(_SUFFIX), each["dur"] / 1e6, each["args"]) for each in kernels]


@cache
def own_seconds() -> float:
    """Measure what the profiler adds to each kernel, for it writes down shapes before it stops the clock.

    Kernels that take a fraction of it tell: what they are said to take, less what each takes where nothing is counted.
    """
    from onnx import TensorProto, helper

    names = [str(index) for index in range(_IDLE_KERNELS + 1)]
    nodes = [helper.make_node("Relu", [source], [target], name=target) for source, target in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, _IDLE_SHAPE) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "idle", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    feeds = {names[0]: np.zeros(_IDLE_SHAPE, np.float32)}
    idle = partial(run, model, 1, ["CPUExecutionProvider"], feeds, _IDLE_RUNS)
    (plain, _), (_, events) = idle(counting=False), idle(counting=True)
    counted = np.reshape([event.seconds for event in events], (_IDLE_RUNS, _IDLE_KERNELS)).sum(axis=1)
    return max(0.0, float(np.quantile(counted, 0.1) - np.quantile(plain, 0.1))) / _IDLE_KERNELS
