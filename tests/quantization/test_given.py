"""A given quantization is taken over to the integer."""

from __future__ import annotations

import numpy as np

from act.program.layers import quantizable_layers
from act.quantization.given import given_scheme, grid_steps
from act.quantization.ranges import LEVELS, Range
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.weights import quantize_weight
from act.results.quantization import GivenQuantization
from tests.support.analyze_networks import of, two_joins

RNG = np.random.default_rng(0)


def test_steps_are_read_off_weights_that_were_scaled_since() -> None:
    integers = RNG.integers(-127, 128, (6, 5, 3, 3))
    integers[:, 0, 0, 0] = 1  # so that no wider step fits
    integers[3] = 0
    integers[4, 0, 0, 1] = -128
    weight = (integers * RNG.uniform(0.001, 3, (6, 1, 1, 1))).astype(np.float32)
    for axis in (0, 2):
        moved = np.moveaxis(weight, 0, axis)
        steps = grid_steps(moved, axis)
        assert steps is not None
        thresholds = np.maximum(steps, 1e-9) * np.float32(LEVELS)
        np.testing.assert_array_equal(quantize_weight(moved, thresholds, axis), np.moveaxis(integers, 0, axis))
    assert grid_steps(RNG.normal(size=(6, 45)).astype(np.float32), 0) is None
    wider = weight.copy()
    wider[2, 4, 2, 2] = 200 * wider[2, 0, 0, 0]  # int8 does not hold so many steps
    assert grid_steps(wider, 0) is None


def test_what_was_rounded_is_quantized_and_nothing_else() -> None:
    model = of(two_joins, 3, 8, 8)
    first, second, third, *_ = layers = quantizable_layers(model)
    for layer in (first, second):
        integers = RNG.integers(-127, 128, model.shape(layer.weight))
        model.set_weight(layer.weight, (integers * np.float32(0.02)).astype(np.float32))
    ranges = {layer.activation: Range(-3.0, 5.0) for layer in layers}
    found = make_scheme(model, layers, ranges)
    found = Scheme(found.layers, found.activations, found.weights, further=ranges)
    spans: dict[str, tuple[float, float] | None] = {first.activation: (-2.0, 2.0), second.activation: None}
    given = GivenQuantization(activations={**spans, third.activation: (0.0, 1.0)})
    scheme = given_scheme(model, layers, given, found)
    assert scheme is not None and scheme.layers == (first.name, second.name)
    # A range that is found at each run is the one that was found here.
    assert scheme.activations == {first.activation: Range(-2.0, 2.0), second.activation: Range(-3.0, 5.0)}
    assert given_scheme(model, layers, GivenQuantization(activations={}), found) is None
