"""Smoothed activations: the same outputs, less lost in int8, and no change where it does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from act.engines.writer import further_tensors
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.smoothing import LEAST_FACTOR, smooth, smoothable, smoothed_name, smoothing_factors
from act.quantization.activations import reader
from act.quantization.calibration import largest_of_channels, with_smoothed
from act.quantization.onnx_model import activation_tensors
from act.quantization.quantized_program import quantize
from act.quantization.scheme import make_scheme
from tests.support.models import seen
from tests.support.prepare_networks import batch, build
from tests.support.transformers import TOKENS, transformer

nn = paddle.nn
STRENGTH = 0.5


def largest(model: InferenceModel, feeds: dict[str, Any]) -> dict[str, Any]:
    names = list(smoothable(model, quantizable_layers(model)))
    return largest_of_channels(lambda feed: dict(zip(names, model.run(feed, names))), names, [feeds], axis=-1)


def test_the_outputs_stay_and_int8_loses_less() -> None:
    model, feeds = transformer(outlier=40), batch(TOKENS)
    layers, channels = quantizable_layers(model), largest(model, feeds)
    readers = smoothable(model, layers)
    assert [len(each) for each in readers.values()] == [3, 1, 1, 1], "query, key and value share what they read"
    result = smooth(model, layers, channels, STRENGTH)
    wanted = model.run(feeds)[0]
    np.testing.assert_allclose(result.run(feeds)[0], wanted, rtol=1e-4, atol=1e-4)
    errors = []
    for each in (model, result):
        found = quantizable_layers(each)
        scheme = make_scheme(each, found, seen(each, found, feeds, True))
        errors.append(float(np.square(quantize(each, scheme).run(feeds)[0] - wanted).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_a_layer_norm_that_only_products_read_divides_by_itself() -> None:
    def network(x: Any) -> Any:
        y = nn.LayerNorm(8)(x)
        return x + nn.Linear(8, 8)(y) * nn.Linear(8, 8)(y)

    model, feeds = build(network, TOKENS), batch(TOKENS)
    result = smooth(model, quantizable_layers(model), largest(model, feeds), STRENGTH)
    assert [op.type for op in result.ops] == [op.type for op in model.ops]
    np.testing.assert_allclose(result.run(feeds)[0], model.run(feeds)[0], rtol=1e-4, atol=1e-4)
    assert {layer.activation for layer in quantizable_layers(result)}.isdisjoint(largest(model, feeds))


def test_one_run_gives_what_the_smoothed_model_reads_under_names_that_hold_for_both() -> None:
    model, feeds = transformer(outlier=40), batch(TOKENS)
    layers, channels = quantizable_layers(model), largest(model, feeds)
    result, plain = smooth(model, layers, channels, STRENGTH), to_onnx(model)
    further = further_tensors(plain)
    found = with_smoothed(reader(plain, layers, further), model, layers, channels, [0.3, STRENGTH])(feeds)
    smoothed = to_onnx(result)
    own = set(activation_tensors(smoothed, quantizable_layers(result)).values())
    others = [name for name in further_tensors(smoothed) if name not in own]
    anew = reader(smoothed, quantizable_layers(result), others)(feeds)
    assert {smoothed_name(name, STRENGTH) for name in channels} <= set(anew) <= set(found)
    for name, values in anew.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4, err_msg=name)


def test_factors_by_hand() -> None:
    model = build(lambda x: x @ paddle.static.create_parameter([4, 2], "float32"), (1, 3, 4))
    (layer,) = layers = quantizable_layers(model)
    model.set_weight(layer.weight, np.array([[1, -4], [1, 1], [0, 0], [1, 0]], dtype=np.float32))
    found = smoothing_factors(model, layers, {"x": np.array([64, 1, 9, 1e-9], dtype=np.float32)}, 0.5)["x"]
    np.testing.assert_allclose(found, [1, 1 / 4, 1, LEAST_FACTOR], rtol=1e-6)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda x: nn.functional.relu(nn.Linear(8, 4)(x)), (2, 8)),
        (lambda x: nn.functional.relu(nn.Conv2D(3, 6, 1)(x)), (2, 3, 4, 4)),
        (lambda x: paddle.matmul(x, paddle.static.create_parameter([4, 8], "float32"), transpose_y=True), TOKENS),
    ],
    ids=["a vector a sample", "a convolution", "a transposed weight"],
)
def test_other_activations_are_left_alone(network: Any, shape: tuple[int, ...]) -> None:
    model = build(network, shape)
    assert smoothable(model, quantizable_layers(model)) == {}
