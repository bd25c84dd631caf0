"""Equalised channels: the same outputs, channels of one range, and no change where that is not certain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from act.onnx_graph.conversion import to_onnx, with_weights
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.equalisation import LEAST_FACTOR, equalisable, equalise
from act.program.passes.normalise import normalise
from act.quantization.calibration import largest_of_channels
from act.quantization.quantized_program import quantize
from act.quantization.scheme import make_scheme
from tests.support.models import DETECTOR, noise, seen
from tests.support.prepare_networks import batch, build

nn = paddle.nn
PICTURE = (2, 3, 8, 8)


def conv(x: Any) -> Any:
    return nn.Conv2D(3, 6, 3, padding=1)(x)


def depthwise(x: Any) -> Any:
    return nn.Conv2D(6, 12, 3, groups=6, padding=1)(x)


def scalar(value: float) -> Any:
    return paddle.create_parameter([1], "float32", default_initializer=nn.initializer.Constant(value))


def affine(x: Any) -> Any:
    """As after an activation in PP-LCNetV3: one factor and one summand for all channels."""
    return scalar(1.5) * nn.functional.hardswish(x) + scalar(0.5)


def transposed(x: Any) -> Any:
    return nn.Conv2DTranspose(3, 6, 2, stride=2)(x)


def twice(x: Any) -> Any:
    y = conv(x)
    return depthwise(y).sum() + y


def shared(x: Any) -> Any:
    factor = scalar(1.5)
    return depthwise(factor * nn.functional.hardswish(conv(x))) / factor


CAN: dict[str, Callable[[Any], Any]] = {
    "convolution": lambda x: depthwise(conv(x)),
    "relu": lambda x: depthwise(nn.functional.relu(conv(x))),
    "pool": lambda x: depthwise(nn.functional.max_pool2d(nn.functional.leaky_relu(conv(x)), 2)),
    "affine": lambda x: depthwise(affine(conv(x))),
    "transposed": lambda x: depthwise(transposed(x)),
}
CANNOT: dict[str, Callable[[Any], Any]] = {
    "hardswish": lambda x: depthwise(nn.functional.hardswish(conv(x))),
    "relu6": lambda x: depthwise(nn.functional.relu6(conv(x))),
    "another reader": twice,
    "a shared factor": shared,
    "an input": lambda x: nn.functional.relu(nn.Conv2D(3, 3, 3, groups=3)(x)),
    "no depthwise reader": lambda x: nn.Conv2D(6, 4, 1)(conv(x)),
}


def plain(network: Callable[[Any], Any]) -> InferenceModel:
    """The model as `prepare` leaves it."""
    return normalise(build(network, PICTURE))[0]


def equalised(model: InferenceModel, feeds: dict[str, Any]) -> tuple[InferenceModel, list[str]]:
    layers = quantizable_layers(model)
    names = equalisable(model, layers)
    largest = largest_of_channels(lambda feed: dict(zip(names, model.run(feed, names))), names, [feeds])
    return equalise(model, layers, largest), names


@pytest.mark.parametrize("name", CAN)
def test_the_outputs_stay_and_the_channels_become_alike(name: str) -> None:
    model, feeds = plain(CAN[name]), batch(PICTURE)
    before = {weight: model.weight(weight) for weight in model.weight_names()}
    result, names = equalised(model, feeds)
    assert len(names) == 1
    np.testing.assert_allclose(result.run(feeds)[0], model.run(feeds)[0], rtol=1e-4, atol=1e-4)
    spread, after = (np.abs(m.run(feeds, names)[0]).max(axis=(0, 2, 3)) for m in (model, result))
    assert spread.min() < 0.9 * spread.max()
    np.testing.assert_allclose(after, spread.max(), rtol=1e-4)
    for weight, values in before.items():
        np.testing.assert_array_equal(model.weight(weight), values, err_msg="the given model was changed")


@pytest.mark.parametrize("name", CANNOT)
def test_what_is_not_certain_to_stay_the_same_is_left_alone(name: str) -> None:
    model = plain(CANNOT[name])
    assert equalisable(model, quantizable_layers(model)) == []


def test_channels_next_to_nothing_are_raised_no_further_than_eight_bits_and_empty_ones_not_at_all() -> None:
    model, feeds = plain(CAN["convolution"]), batch(PICTURE)
    layers = quantizable_layers(model)
    (name,) = equalisable(model, layers)
    result = equalise(model, layers, {name: np.array([1, 0.5, 1e-9, 0, 1, 1], dtype=np.float32)})
    found, wanted = (m.run(feeds, [name])[0] for m in (result, model))
    for channel, factor in enumerate([1, 0.5, LEAST_FACTOR, 1, 1, 1]):
        np.testing.assert_allclose(found[:, channel] * factor, wanted[:, channel], rtol=1e-4, atol=1e-5)
    untouched = equalise(model, layers, {name: np.zeros(6, dtype=np.float32)})
    np.testing.assert_array_equal(untouched.run(feeds)[0], model.run(feeds)[0])


def test_activations_that_are_not_finite_are_left_out() -> None:
    values = {"good": np.ones((1, 2, 1, 1), np.float32), "bad": np.full((1, 2, 1, 1), np.nan, np.float32)}
    assert list(largest_of_channels(lambda _: values, list(values), [{}])) == ["good"]


@pytest.mark.stage
def test_a_real_detector_loses_less_with_equalised_channels() -> None:
    """All its layers in int8, over the whole range of each activation."""
    model = normalise(InferenceModel.load(DETECTOR))[0]
    feeds = {"x": noise(2)[:, :, :, :160].repeat(2, axis=2)}
    result, names = equalised(model, feeds)
    assert len(names) == 11
    wanted, errors = model.run(feeds)[0], []
    np.testing.assert_allclose(result.run(feeds)[0], wanted, atol=1e-3)
    for each in (model, result):
        layers = quantizable_layers(each)
        found = quantize(each, make_scheme(each, layers, seen(each, layers, feeds, True))).run(feeds)[0]
        errors.append(float(np.square(found - wanted).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_the_onnx_model_takes_the_weights_over() -> None:
    """As if it were converted again: a weight of one value becomes one for each channel."""
    model = normalise(InferenceModel.load(DETECTOR))[0]
    feeds = {"x": noise(1)[:, :, :, :160].repeat(2, axis=2)}
    result, _ = equalised(model, feeds)
    converted = to_onnx(model)
    again = with_weights(converted, result)
    assert again is not None
    for kept, wanted in zip(again.graph.initializer, to_onnx(result).graph.initializer):
        assert kept.name == wanted.name
        np.testing.assert_array_equal(numpy_helper.to_array(kept), numpy_helper.to_array(wanted), err_msg=kept.name)
    weight = next(each for each in converted.graph.initializer if model.is_weight(each.name))
    converted.graph.initializer.remove(weight)
    assert with_weights(converted, result) is None
