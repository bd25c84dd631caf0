"""The same network in each form that is read: the same outputs, layers and int8 graphs, save an input's transposes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from act.engines.writer import batch_extremes, export_variants
from act.environments import PYTORCH, TENSORFLOW, Environment
from act.formats import SourceModel
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.passes.normalise import normalise
from act.samples.dataset import Array
from tests.support.same_network import FORMS, pictures, weights

SUPPORT = Path(__file__).parents[1] / "support"
ENGINES = ("onnxruntime", "openvino")
# Made by the script beside, in each environment's own Python.
REAL = {
    "saved_model": (TENSORFLOW, "same_network_of_tensorflow.py"),
    "network.tflite": (TENSORFLOW, "same_network_of_tensorflow.py"),
    "network.pt2": (PYTORCH, "same_network_of_pytorch.py"),
}


@dataclass(frozen=True)
class Network:
    """What one form became.

    Attributes:
        outputs: on the pictures.
        layers: type and weight of each layer that can be quantized, in order.
        graphs: the int8 ONNX model for each engine.
    """

    outputs: Array
    layers: list[tuple[str, Array]]
    graphs: Mapping[str, onnx.GraphProto]

    @classmethod
    def of(cls, imported: InferenceModel, folder: Path) -> Network:
        """Normalise a model and write it in int8, over the ranges that it has on the pictures."""
        model, _ = normalise(imported)
        (feed,) = model.feed_specs()
        x = pictures()
        batch = {feed.name: np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if feed.shape[-1] == 3 else x}
        converted = to_onnx(model)
        extremes = batch_extremes(model, batch, converted)
        graphs = {}
        for engine in ENGINES:
            place = folder / engine
            place.mkdir()
            written = export_variants("network", model, batch, engine, ["int8"], place, converted, lambda: extremes)
            graphs[engine] = onnx.load(written.files["int8"]).graph
        layers = [(each.op_type, model.weight(each.weight)) for each in quantizable_layers(model)]
        return cls(model.run(batch)[0], layers, graphs)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Return the network as Paddle 2 has it, with which the others are compared."""
    folder = tmp_path_factory.mktemp("first")
    return Network.of(FORMS["paddle 2"](weights(), folder / "model"), folder)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "paddle 2"])
def test_it_is_the_same_network(form: str, first: Network, tmp_path: Path) -> None:
    assert_same(Network.of(FORMS[form](weights(), tmp_path / "model"), tmp_path), first)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the folder of the models that each environment's Python makes, where it is there, by script."""
    folders = {}
    for environment, script in dict.fromkeys(REAL.values()):
        if (python := environment.python()) is not None:
            folders[script] = tmp_path_factory.mktemp(environment.name)
            np.savez(folders[script] / "weights.npz", **weights())
            done = subprocess.run(
                [str(python), str(SUPPORT / script), str(folders[script])], capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stderr[-2000:]
    return folders


def needing(name: str, environment: Environment) -> Any:
    """Return a form's name as a parameter, left out with the reason where its environment is not there."""
    reason = f"needs {environment.title}'s environment: {environment.lacks()}"
    return pytest.param(name, marks=pytest.mark.skipif(environment.python() is None, reason=reason))


@pytest.mark.parametrize("name", [needing(name, environment) for name, (environment, _) in REAL.items()])
def test_it_is_the_same_network_in_what_others_wrote(
    name: str, made: Mapping[str, Path], first: Network, tmp_path: Path
) -> None:
    source = SourceModel.find(made[REAL[name][1]] / name)
    assert_same(Network.of(source.load(), tmp_path), first)


def assert_same(found: Network, wanted: Network) -> None:
    np.testing.assert_allclose(found.outputs, wanted.outputs, atol=1e-5)
    assert [(kind, weight.shape) for kind, weight in found.layers] == [(k, weight.shape) for k, weight in wanted.layers]
    for (_, have), (_, want) in zip(found.layers, wanted.layers):
        np.testing.assert_allclose(have, want, atol=1e-5)
    for engine, graph in wanted.graphs.items():
        nodes, constants = flattened(found.graphs[engine])
        same_nodes, same_constants = flattened(graph)
        assert nodes == same_nodes, engine
        for have, want in zip(constants, same_constants, strict=True):
            assert (have.dtype, have.shape) == (want.dtype, want.shape)
            # What lies between two integers may become either.
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1 if have.dtype.kind in "iu" else 1e-5)


def flattened(graph: onnx.GraphProto) -> tuple[list[Any], list[Array]]:
    """Return the nodes ahead of the outputs, each by its type, its attributes and what it reads, and all constants.

    Names do not count, and an input's transpose is passed over.
    """
    makers = {name: each for each in graph.node for name in each.output}
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    inputs = [each.name for each in graph.input]
    nodes: list[Any] = []
    constants: list[Array] = []
    numbers: dict[str, Any] = {}

    def number(name: str) -> Any:
        if name not in numbers:
            numbers[name] = found(name)
        return numbers[name]

    def found(name: str) -> Any:
        if name in inputs:
            return "input"
        if name in values:
            constants.append(values[name])
            return f"constant {len(constants)}"
        node = makers[name]
        if node.op_type == "Transpose" and node.input[0] in inputs:
            return "input"
        settings = sorted((each.name, repr(helper.get_attribute_value(each))) for each in node.attribute)
        reads = [number(each) for each in node.input]
        nodes.append((node.op_type, settings, reads, list(node.output).index(name)))
        return len(nodes)

    for each in graph.output:
        number(each.name)
    return nodes, constants
