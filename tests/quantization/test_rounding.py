"""Moments against what layers really compute, rounding against brute force."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from act.onnx_graph.conversion import to_onnx
from act.program.layers import Layer, bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.quantization import rounding
from act.quantization.activations import reader
from act.quantization.ranges import Range
from act.quantization.rounding import Floats, Moments, adaround, gather, metric_of, patches, round_weight
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.weights import quantize_weight
from tests.support.models import noise, normalised_classifier

BATCH = {"x": noise(3, width=64)}
MATRIX = Layer("out", "matmul_v2", "x", "w", 1)


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return normalised_classifier()


@pytest.fixture(scope="module")
def layers(model: InferenceModel) -> list[Layer]:
    return quantizable_layers(model)


@pytest.fixture(scope="module")
def scheme(model: InferenceModel, layers: list[Layer]) -> Scheme:
    return make_scheme(model, layers, {layer.activation: Range(-1.0, 1.0) for layer in layers})


def of(rows: npt.NDArray[np.float64]) -> Moments:
    return Moments(len(rows), rows.sum(axis=0)[None], (rows.T @ rows)[None])


def squared_error(weight: Floats, step: float, metric: Floats, integers: Floats) -> float:
    error = integers * step - weight
    return float(error @ metric @ error)


def test_patches_times_the_weight_are_the_layers_output(
    model: InferenceModel, layers: list[Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strides, paddings, groups and their order: all layers of the classifier, at every position."""
    monkeypatch.setattr(rounding, "POSITIONS", 10**9)
    ops = {op.output_arg_names[0]: op for op in model.ops}
    names = [name for layer in layers for name in (layer.activation, layer.name)]
    values = dict(zip(names, model.run(BATCH, names)))
    for layer in layers:
        weight = model.weight(layer.weight)
        seen = patches(values[layer.activation], ops[layer.name], weight.shape, np.random.default_rng(0))
        rows = np.moveaxis(weight, layer.axis, 0).reshape(len(seen), -1, seen.shape[2])
        found = np.concatenate(list(np.matmul(seen, rows.transpose(0, 2, 1))), axis=1)
        wanted = np.moveaxis(values[layer.name], 1, -1) if weight.ndim == 4 else values[layer.name]
        np.testing.assert_allclose(found, wanted.reshape(found.shape), rtol=1e-3, atol=1e-4, err_msg=layer.name)


def test_moments_add_up_over_batches_and_leave_out_what_is_too_large(
    model: InferenceModel, layers: list[Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reader(to_onnx(model), layers)
    halves = [{"x": BATCH["x"][:1]}, {"x": BATCH["x"][1:]}]
    monkeypatch.setattr(rounding, "POSITIONS", 10**9)
    whole, parts = gather(model, layers, read, [BATCH]), gather(model, layers, read, halves)
    assert set(whole) == {layer.name for layer in layers}
    for name, seen in whole.items():
        assert parts[name].count == seen.count
        np.testing.assert_allclose(parts[name].products, seen.products, rtol=1e-3, atol=1e-2)
    monkeypatch.setattr(rounding, "LARGEST", 9)
    small = {layer.name for layer in layers if layer.op_type != "matmul_v2" and model.weight(layer.weight)[0].size <= 9}
    assert 0 < len(small) < len(layers)
    assert set(gather(model, layers, read, [BATCH])) == small


@pytest.mark.parametrize("centred", [False, True])
def test_rounding_is_near_the_best_of_all_and_never_worse_than_the_nearest(centred: bool) -> None:
    rng = np.random.default_rng(7)
    gaps = []
    for _ in range(10):
        rows = rng.normal(size=(64, 8)) @ rng.normal(size=(8, 8)) + 0.5
        weight = rng.normal(size=(8, 3)).astype(np.float32)
        thresholds = np.full(3, 20, dtype=np.float32)  # coarse, so that rounding matters
        seen = of(rows)
        chosen = round_weight(weight, thresholds, MATRIX, seen, centred)
        metric, steps = metric_of(seen, centred)[0], thresholds / 127
        assert np.abs(chosen * steps - weight).max() < steps.max() * (1 + 1e-6)
        for channel in range(3):
            loss = partial(squared_error, weight[:, channel].astype(np.float64), steps[channel], metric)
            lower = np.floor(weight[:, channel].astype(np.float64) / steps[channel])
            least = min(loss(lower + np.array(up)) for up in product((0, 1), repeat=8))
            nearest = loss(quantize_weight(weight, thresholds, 1)[:, channel].astype(np.float64))
            found = loss(chosen[:, channel].astype(np.float64))
            assert least - 1e-9 <= found <= nearest + 1e-9
            gaps.append((nearest - least, found - least))
    of_nearest, left = np.sum(gaps, axis=0)
    assert left < 0.3 * of_nearest  # single values can be stuck where no change of one alone helps


def test_inputs_that_do_not_vary_round_to_the_nearest() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    thresholds = np.abs(weight).max(axis=0)
    chosen = round_weight(weight, thresholds, MATRIX, of(np.zeros((3, 5))), centred=True)
    np.testing.assert_array_equal(chosen, quantize_weight(weight, thresholds, 1))


def test_outputs_come_closer_and_biases_keep_their_means(
    model: InferenceModel, layers: list[Layer], scheme: Scheme
) -> None:
    coarse = replace(scheme, weights={name: values * 8 for name, values in scheme.weights.items()})
    seen = gather(model, layers, reader(to_onnx(model), layers), [BATCH])
    refined = adaround(model, coarse, layers, seen)
    assert set(refined.integers) == set(scheme.weights)
    better = 0
    for layer in layers:
        weight, thresholds = model.weight(layer.weight), coarse.weights[layer.weight]
        bias = bias_of(model, layer)
        metric = metric_of(seen[layer.name], bias is not None)
        losses = []
        for integers in (quantize_weight(weight, thresholds, layer.axis), refined.integers[layer.weight]):
            shape = [1] * weight.ndim
            shape[layer.axis] = -1
            error = integers * (thresholds.reshape(shape) / 127) - weight
            rows = np.moveaxis(error, layer.axis, 0).reshape(len(metric), -1, metric.shape[1])
            losses.append(float((np.matmul(rows, metric) * rows).sum()))
        assert losses[1] <= losses[0] * (1 + 1e-6), layer.name
        better += losses[1] < 0.9 * losses[0]
        if bias is not None:
            shift = np.einsum("gov,gv->go", rows, seen[layer.name].sums / seen[layer.name].count).reshape(-1)
            np.testing.assert_allclose(
                refined.biases[bias].reshape(-1), model.weight(bias).reshape(-1) - shift, 1e-4, 1e-5
            )
    assert better > len(layers) / 2
