"""Ranges that train start at the candidate, get the gradients of the papers, and come back as a scheme."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from act.program.layers import OPERATORS, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, make_scheme
from act.settings import TrainConfig
from act.training.losses import Loss
from act.training.program import TrainingProgram, build, trainable_weights, with_weights
from tests.support.models import seen
from tests.support.small_training import convolutions, default_loss, feeds, fetch

BATCH = {"x": np.random.default_rng(1).normal(size=(6, 1, 8, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return convolutions()


@pytest.fixture(scope="module")
def scheme(model: InferenceModel) -> Scheme:
    """About half of the ranges; the second activation has a zero point."""
    layers = quantizable_layers(model)
    ranges = seen(model, layers, BATCH, symmetric=True)
    halved = {name: Range.around_zero(span.threshold / 2) for name, span in ranges.items()}
    second = layers[1].activation
    halved[second] = Range(-0.1 * halved[second].high, halved[second].high)
    found = make_scheme(model, layers, halved)
    # Not the largest value itself: it would stand on the edge, where rounding decides which gradient it gets.
    return replace(found, weights={name: values * np.float32(0.7) for name, values in found.weights.items()})


def training(
    model: InferenceModel, scheme: Scheme, ranges: Any, share: float = 1.0, masks: Any = None
) -> TrainingProgram:
    """Its loss is a share of the default one: where that is small, gradients are not clipped."""

    def add_loss(student: InferenceModel) -> Loss:
        loss = default_loss(student)
        return replace(loss, variable=loss.variable * share)

    names = trainable_weights(model, scheme)
    return build(model, scheme, add_loss, names, TrainConfig(learning_rate=1e-4), 50, ranges=ranges, masks=masks)


def rounded(program: TrainingProgram, tensor: str) -> str:
    """What the layer reads in the place of a tensor."""
    ops = program.program.global_block().ops
    layers = [op for op in ops if op.type in OPERATORS and op.input_arg_names]
    return next(str(name) for op in layers for name in op.input_arg_names if str(name).startswith(f"{tensor}@learned_"))


@pytest.mark.parametrize("ranges", ["lsq", "pact"])
def test_training_starts_at_the_candidate(model: InferenceModel, scheme: Scheme, ranges: Any) -> None:
    program = training(model, scheme, ranges)
    outputs = fetch(program, BATCH, model)[0]
    candidate, wanted = quantize(model, scheme).run(BATCH)[0], model.run(BATCH)[0]
    assert np.abs(outputs - candidate).max() < 0.05 * np.abs(wanted - candidate).max()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_gradient_of_a_scale_is_that_of_lsq(model: InferenceModel, scheme: Scheme, place: int) -> None:
    """Equations 2 and 3 of the paper, for activations with and without a zero point and for a weight."""
    layers = quantizable_layers(model)
    layer = layers[min(place, 1)]
    tensor = layer.activation if place < 2 else layer.weight
    program = training(model, scheme, "lsq", share=0.1)
    read = rounded(program, tensor)
    x, upstream, found = fetch(program, BATCH, model, [tensor, f"{read}@GRAD", f"{tensor}@factor@GRAD"])
    zero_point, axes = 0, tuple(range(x.ndim))
    if place < 2:
        scale: Any = scheme.activations[tensor].scale
        zero_point, count = scheme.activations[tensor].zero_point, x[0].size
    else:
        axes = tuple(axis for axis in axes if axis != layer.axis)
        scale = (scheme.weights[tensor] / 127).reshape(-1, 1, 1, 1)
        count = x[0].size
    ratio = x.astype(np.float64) / scale
    low, high = -128 - zero_point, 127 - zero_point
    inside = (ratio > low) & (ratio < high)
    slope = np.where(inside, np.round(ratio) - ratio, np.clip(ratio, low, high))
    expected = (upstream * slope * scale).sum(axis=axes) / np.sqrt(count * 127)
    largest = float(np.abs(expected).max())
    assert largest > 1e-6
    # In float32 two large sums cancel.
    assert found.reshape(-1) == pytest.approx(expected.reshape(-1), abs=0.05 * largest)


@pytest.mark.parametrize("place", [0, 1])
def test_the_gradient_of_a_clip_is_that_of_pact(model: InferenceModel, scheme: Scheme, place: int) -> None:
    """What is cut off counts, and nothing else; the optimiser adds the penalty."""
    tensor = quantizable_layers(model)[place].activation
    span = scheme.activations[tensor]
    program = training(model, scheme, "pact", share=0.1)
    read = rounded(program, tensor)
    x, upstream, found = fetch(program, BATCH, model, [tensor, f"{read}@GRAD", f"{tensor}@factor@GRAD"])
    low, high = (span.scale * (end - span.zero_point) for end in (-128, 127))
    expected = float((upstream * (np.where(x > high, high, 0) + np.where(x < low, low, 0))).sum())
    assert abs(expected) > 1e-6
    assert float(found[0]) == pytest.approx(expected + 1e-4, rel=1e-3)


@pytest.mark.parametrize("ranges", ["lsq", "pact"])
def test_what_was_trained_comes_back_as_a_scheme(model: InferenceModel, scheme: Scheme, ranges: Any) -> None:
    layer = quantizable_layers(model)[0]
    mask = (np.arange(model.weight(layer.weight).size) % 2).reshape(model.weight(layer.weight).shape)
    program = training(model, scheme, ranges, masks={layer.weight: mask})
    losses = [program.step(feeds(program, BATCH, model)) for _ in range(30)]
    assert losses[-1] < losses[0]
    weights = program.weights()
    found = program.trained_scheme(weights)
    assert found is not None
    for name, span in scheme.activations.items():
        assert found.activations[name].high != span.high
        assert found.activations[name].zero_point == span.zero_point
    same = [np.array_equal(found.weights[name], values) for name, values in scheme.weights.items()]
    assert all(same) if ranges == "pact" else not any(same)
    candidate = quantize(with_weights(model, weights), found).run(BATCH)[0]
    assert fetch(program, BATCH, model)[0] == pytest.approx(candidate, abs=0.02)
    assert np.all(weights[layer.weight][mask == 0] == 0) and np.all(weights[layer.weight][mask == 1] != 0)
