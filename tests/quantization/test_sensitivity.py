"""Sensitivities, beside what the whole model gives when it is quantized or pruned by other code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from act.comparison import Comparison
from act.onnx_graph.conversion import to_onnx
from act.program.graph import Graph
from act.program.layers import Layer, bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.resources import list_operators
from act.quantization.onnx_model import quantize_onnx
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.sensitivity import measure_layers, rank_layers
from act.quantization.split_session import SplitSession, logits
from act.results.analyze import Sensitivity
from act.samples.dataset import Array, Ragged, Samples
from tests.support.analyze_networks import two_joins
from tests.support.models import seen
from tests.support.odd_models import ODD
from tests.support.prune_networks import encoder, pictures, plain, static

RATIOS = (0.25, 0.5)


def measured(model: InferenceModel, samples: Samples, limit: float = 60, **more: Any) -> Sensitivity:
    graph = Graph(model, next(samples.batches(1)))
    return measure_layers(to_onnx(model), graph, list_operators(graph), samples, RATIOS, limit, **more)


def run(model: onnx.ModelProto, batch: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    outputs: list[Array] = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, dict(batch))
    return outputs


def samples_of(count: int, shape: tuple[int, ...]) -> Samples:
    return Samples({"x": Ragged.of(list(pictures(count, shape)))})


def model_and_samples(name: str, folder: Path) -> tuple[InferenceModel, Samples]:
    if name == "encoder":
        return encoder(folder), samples_of(3, (6, 8))
    if name == "plain":
        return static(plain, (3, 8, 8)), samples_of(3, (3, 8, 8))
    return static(two_joins, (3, 8, 8)), samples_of(3, (3, 8, 8))


def relative_error(found: list[list[Array]], exact: list[list[Array]]) -> float:
    """Return the mean error over samples, each run by itself."""
    outputs, wanted = ([np.concatenate(each) for each in zip(*runs)] for runs in (found, exact))
    return Comparison(wanted).relative_error(outputs, wanted)


@pytest.mark.parametrize("name", ["two_joins", "encoder"])
def test_a_layer_in_int8_moves_the_outputs_as_the_whole_int8_model_does(name: str, tmp_path: Path) -> None:
    model, samples = model_and_samples(name, tmp_path)
    fp32, together = to_onnx(model), next(samples.batches(3))
    found = {layer.name: layer for layer in measured(model, samples).layers}
    layers, exact = quantizable_layers(model), [run(fp32, batch) for batch in samples.batches(1)]
    assert set(found) == {layer.name for layer in layers}
    ranges = seen(model, layers, together, symmetric=False)
    for layer in layers:
        scheme = make_scheme(model, [layer], ranges)
        quantized = quantize_onnx(fp32, model, scheme)
        error = relative_error([run(quantized, batch) for batch in samples.batches(1)], exact)
        assert found[layer.name].quantized == pytest.approx(np.sqrt(error), rel=0.02, abs=1e-5)
    assert max(layer.quantized or 0 for layer in found.values()) > 1e-3


@pytest.mark.parametrize("name", ["two_joins", "plain", "encoder"])
def test_a_pruned_layer_moves_the_outputs_as_zeros_in_its_weight_and_bias_do(name: str, tmp_path: Path) -> None:
    model, samples = model_and_samples(name, tmp_path)
    for vector in model.weight_names():  # no bias of zeros
        if model.weight(vector).ndim == 1:
            model.set_weight(vector, model.weight(vector) + np.float32(0.5))
    found = {layer.name: layer for layer in measured(model, samples).layers}
    exact = [model.run(batch) for batch in samples.batches(1)]
    for layer in quantizable_layers(model)[:-1]:
        weight = np.moveaxis(model.weight(layer.weight), layer.axis, 0)
        gone = np.argsort(np.abs(weight).sum(axis=tuple(range(1, weight.ndim))))[: len(weight) // 4]
        pruned = model.copy()
        for place in filter(None, (layer.weight, bias_of(model, layer))):
            values = np.moveaxis(pruned.weight(place), layer.axis if place == layer.weight else 0, 0)
            values[gone] = 0
            pruned.set_weight(place, np.moveaxis(values, 0, layer.axis if place == layer.weight else 0))
        error = relative_error([pruned.run(batch) for batch in samples.batches(1)], exact)
        assert found[layer.name].pruned["0.25"] == pytest.approx(np.sqrt(error), rel=0.01, abs=1e-5)
        pruned.discard()


def test_the_layers_whose_channels_are_outputs_are_not_pruned(tmp_path: Path) -> None:
    model, samples = model_and_samples("two_joins", tmp_path)
    *others, last = sorted(measured(model, samples).layers, key=lambda layer: layer.type == "mul")
    assert last.pruned == {} and "outputs" in last.why and last.quantized is not None
    assert all(set(layer.pruned) == {"0.25", "0.5"} and layer.why == "" for layer in others)


def test_a_cut_model_gives_what_the_whole_gives(tmp_path: Path) -> None:
    model = encoder(tmp_path)
    fp32 = to_onnx(model)
    layers = quantizable_layers(model)
    batch = {"x": pictures(1, (6, 8))}
    session = SplitSession(fp32, layers, logits(fp32), [batch])
    (edges,) = session.edges
    assert len(edges) > 3, "several pieces"
    (whole,), (name,) = run(fp32, batch), session.compared
    np.testing.assert_allclose(edges[-1][name], whole, rtol=1e-4, atol=1e-6)
    for layer in layers:
        around = session.around(layer)
        (same,) = around.outputs(edges, around.values_before(edges), {})
        np.testing.assert_allclose(same, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["two_joins", "encoder"])
def test_layers_are_ranked_by_what_the_int8_model_of_each_alone_loses(name: str, tmp_path: Path) -> None:
    model, samples = model_and_samples(name, tmp_path)
    fp32, batch = to_onnx(model), next(samples.batches(3))
    layers = quantizable_layers(model)
    ranges = seen(model, layers, batch, symmetric=False)

    def scheme_for(layer: Layer) -> Scheme:
        scheme = make_scheme(model, [layer], ranges)
        bias = bias_of(model, layer)
        return replace(scheme, biases={bias: model.weight(bias) + np.float32(0.01)} if bias else {})

    ranking = rank_layers(fp32, layers, scheme_for, batch)
    assert sorted(entry.layer for entry in ranking) == sorted(layer.name for layer in layers)
    errors = [entry.error for entry in ranking]
    assert errors == sorted(errors, reverse=True) and errors[0] > 1e-5
    by_name = {layer.name: layer for layer in layers}
    exact = run(fp32, batch)
    for entry in ranking:
        output = run(quantize_onnx(fp32, model, scheme_for(by_name[entry.layer])), batch)
        assert entry.error == pytest.approx(1 - Comparison(exact).similarity(output, exact), rel=0.01, abs=1e-9)


def test_the_most_expensive_layers_are_measured_before_the_time_is_up(tmp_path: Path) -> None:
    model, samples = model_and_samples("two_joins", tmp_path)
    ticks = iter(range(1000))
    found = measured(model, samples, limit=3, clock=lambda: float(next(ticks)))
    costs = {op.name: op.macs for op in list_operators(Graph(model, next(samples.batches(1))))}
    ranked = [costs[layer.name] for layer in found.layers]
    assert ranked == sorted(ranked, reverse=True)
    done = [layer.quantized is not None for layer in found.layers]
    assert done == [True, True, *[False] * (len(done) - 2)]
    assert found.why == f"{len(done) - 2} of {len(done)} layers were not measured within 3 s"
    assert {layer.why for layer in found.layers[2:]} == {"the time was up"}


@pytest.mark.parametrize("name", ["tokens", "picture_and_ids", "reader", "two_outputs", "integer_output", "grouped"])
def test_models_of_several_inputs_integers_and_axes_of_any_length(name: str) -> None:
    model = ODD[name].model()
    found = measured(model, ODD[name].samples(model, 3, seed=1))
    assert found.why == "" and found.samples == 3
    errors = [layer.quantized for layer in found.layers if layer.quantized is not None]
    assert len(errors) == len(found.layers) > 0
    assert all(0 <= error < 0.5 for error in errors) and max(errors) > 0


@pytest.mark.parametrize(("name", "why"), [("nothing", "no layer can be quantized"), ("rank_one", "no layer")])
def test_a_model_without_layers_is_told(name: str, why: str) -> None:
    model = ODD[name].model()
    assert why in measured(model, ODD[name].samples(model, 1, seed=1)).why


def infinite_for_one(x: Any) -> Any:
    """The second layer reads infinity, which a clip behind it takes away."""
    hidden = paddle.nn.functional.relu(paddle.static.nn.conv2d(x, 4, 3))
    hidden = paddle.nn.functional.relu(paddle.static.nn.conv2d(paddle.exp(hidden + 100.0), 4, 1))
    return paddle.static.nn.fc(hidden.clip(0.0, 1.0), 3)


def test_what_is_not_finite_has_no_error_and_a_reason() -> None:
    model = static(infinite_for_one, (3, 8, 8))
    for name in model.weight_names():  # no difference of infinities
        model.set_weight(name, np.abs(model.weight(name)))
    found = measured(model, samples_of(2, (3, 8, 8)))
    reads = {layer.name: layer for layer in found.layers}
    infinite = [layer for layer in found.layers if layer.quantized is None]
    assert [layer.name for layer in infinite] == [quantizable_layers(model)[1].name]
    assert "not finite" in infinite[0].why and len(reads) == 3


def test_outputs_that_are_not_finite_are_told() -> None:
    model = ODD["infinite_inside"].model()
    found = measured(model, ODD["infinite_inside"].samples(model, 2, seed=1))
    assert found.layers == [] and "NaN or infinity" in found.why
