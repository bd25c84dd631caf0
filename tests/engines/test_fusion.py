"""What became of operators in an engine's kernels: made-up kernels, and those of real engines."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from act.engines import fusion
from act.engines.base import ExecutedKernel
from act.engines.process import EngineProcess
from act.engines.spec import spec_of
from act.engines.writer import writer_of
from act.onnx_graph.conversion import to_onnx
from act.program.graph import Graph
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.results.analyze import Fusion, KernelCount, TypeFusion
from act.settings import EngineName
from tests.support.analyze_networks import F, of, sample
from tests.support.odd_models import ODD


def biased(x: Any) -> Any:
    """A convolution, the addition of its bias, a relu; and a transpose that nothing fuses."""
    x = F.relu(paddle.static.nn.conv2d(x, 8, 3, padding=1))
    return paddle.transpose(x, [0, 2, 3, 1])


def rows(found: Fusion) -> dict[str, TypeFusion]:
    return {row.type: row for row in found.types}


def test_what_no_kernel_makes_has_vanished_into_the_kernel_of_its_layer() -> None:
    graph = Graph(of(biased, 3, 8, 8), sample(3, 8, 8))
    names = {node.type: node.name for node in graph.nodes}
    kernels = [
        ExecutedKernel("Reorder", "fp32", []),
        ExecutedKernel("FusedConv", "fp32", [names["relu"]]),
        ExecutedKernel("Transpose", "bf16", [names["transpose2"], names["scale"]]),
        ExecutedKernel("Reorder", "fp32", [names["relu"]]),
    ]
    found = fusion.describe(graph, kernels, graph.producers)
    assert (found.operators, found.kernels, found.helpers) == (5, 4, {"Reorder": 2})
    assert found.kinds[0] == KernelCount(kind="Reorder", precision="fp32", count=2)
    table = rows(found)
    assert table["conv2d"].own_kinds == {"FusedConv": 1}
    for kind in ("elementwise_add", "relu"):
        assert (table[kind].own, table[kind].into) == (0, {"FusedConv": 1})
    assert table["scale"].own_kinds == {"Transpose": 1} and table["transpose2"].into == {"Transpose": 1}


def test_what_follows_a_layer_that_has_its_kernel_goes_into_it() -> None:
    graph = Graph(of(biased, 3, 8, 8), sample(3, 8, 8))
    names = {node.type: node.name for node in graph.nodes}
    kernels = [
        ExecutedKernel("Conv", "fp32", [names["conv2d"]]),
        ExecutedKernel("Transpose", "fp32", [names["scale"]]),
    ]
    table = rows(fusion.describe(graph, kernels, graph.producers))
    assert table["elementwise_add"].into == table["relu"].into == {"Conv": 1}


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "paddle_inference"])
def test_every_engine_fuses_a_bias_and_a_relu(engine: EngineName) -> None:
    model = of(biased, 3, 8, 8)
    found = asked(engine, model, sample(3, 8, 8))
    table = rows(found)
    assert table["conv2d"].own == 1 and sum(table["relu"].into.values()) == 1
    assert sum(table["elementwise_add"].into.values()) == 1
    assert table["conv2d"].own_kinds == table["relu"].into == table["elementwise_add"].into
    assert sum(table["transpose2"].own_kinds.values()) + sum(table["transpose2"].into.values()) == 1


def asked(engine: EngineName, model: InferenceModel, batch: Any) -> Fusion:
    graph = Graph(model, batch)
    fp32 = to_onnx(model)
    with tempfile.TemporaryDirectory() as folder:
        path = writer_of(engine).write(model, None, Path(folder), fusion.named_by_outputs(fp32))
        with EngineProcess(engine, path, "fp32", 1, 60) as process:
            process.load()
            kernels = process.kernels()
    twins = fusion.onnx_twins(fp32, graph) if spec_of(engine).reads == "onnx" else graph.producers
    return fusion.describe(graph, kernels, twins)


def test_tensors_are_known_again_by_their_values_whatever_they_are_called() -> None:
    model = ODD["picture_and_ids"].model()
    batch = next(ODD["picture_and_ids"].samples(model, 1, seed=0).batches(1))
    graph = Graph(model, batch)
    fp32 = to_onnx(model)
    for node in fp32.graph.node:
        node.output[:] = [f"{name}.renamed" if name not in model.fetch_names else name for name in node.output]
        node.input[:] = [
            f"{name}.renamed" if any(f"{name}.renamed" in other.output for other in fp32.graph.node) else name
            for name in node.input
        ]
    twins = fusion.onnx_twins(fp32, graph)
    found = {graph.nodes[number].type for number in twins.values()}
    assert {"conv2d", "relu", "lookup_table_v2", "reduce_mean", "elementwise_add"} <= found


def test_what_only_tells_a_size_is_told_apart() -> None:
    def network(x: Any) -> Any:
        x = F.relu(x)
        length = paddle.shape(x)[2] * 3
        return paddle.reshape(x, [0, length, 8])

    graph = Graph(of(network, 3, 8, 8), sample(3, 8, 8))
    sizes = {graph.nodes[number].type for number in fusion.computing_sizes(graph)}
    assert {"shape", "slice", "scale"} <= sizes and not sizes & {"relu", "reshape2"}
