"""Weight thresholds and bias correction, against brute force and against what a layer really puts out."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from act.program.layers import Layer, bias_of, quantizable_layers
from act.program.paddle_setup import paddle
from act.program.passes.normalise import normalise
from act.quantization.ranges import LEVELS, SMALLEST_THRESHOLD
from act.quantization.weights import corrected_biases, mean_error, quantize_weight, weight_thresholds
from act.settings import WeightQuantization
from tests.support.models import noise, normalised_classifier
from tests.support.prepare_networks import batch as pictures
from tests.support.prepare_networks import build

KINDS: tuple[WeightQuantization, ...] = get_args(WeightQuantization)


def restored(
    weight: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32], axis: int
) -> npt.NDArray[np.float64]:
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = (thresholds.astype(np.float64) / LEVELS).reshape(shape)
    result: npt.NDArray[np.float64] = quantize_weight(weight, thresholds, axis) * steps
    return result


def heavy_tailed(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(3).standard_t(2, size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "axis"), [((6, 5, 3, 3), 0), ((7, 9), 1), ((4, 1, 3, 3), 0)])
def test_every_kind_gives_one_threshold_a_channel_inside_its_values(
    kind: WeightQuantization, shape: tuple[int, ...], axis: int
) -> None:
    weight = heavy_tailed(*shape)
    thresholds = weight_thresholds(weight, axis, kind)
    assert thresholds.dtype == np.float32 and thresholds.shape == (shape[axis],)
    largest = np.abs(np.moveaxis(weight, axis, 0)).reshape(shape[axis], -1).max(axis=1)
    limit = np.full_like(largest, largest.max()) if kind == "abs_max" else largest
    assert (thresholds > 0).all() and (thresholds <= limit).all()
    np.testing.assert_allclose(weight_thresholds(weight * 4, axis, kind), thresholds * 4, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_of_zeros_is_no_special_case(kind: WeightQuantization) -> None:
    assert weight_thresholds(np.zeros((2, 3), dtype=np.float32), 0, kind).tolist() == pytest.approx(
        [SMALLEST_THRESHOLD] * 2
    )


def test_least_squared_error_beats_the_largest_value_and_comes_near_brute_force() -> None:
    weight = np.random.default_rng(4).normal(size=(2, 100_000)).astype(np.float32)
    weight[1] *= 0.1
    weight[:, 0] = [8.0, 0.8]  # at 8 bits, clipping pays only where one value lies far from very many
    errors = {
        kind: np.square(restored(weight, weight_thresholds(weight, 0, kind), 0) - weight).sum(axis=1) for kind in KINDS
    }
    assert (errors["channel_wise_mse"] < 0.9 * errors["channel_wise_abs_max"]).all()
    assert errors["channel_wise_abs_max"].sum() < errors["abs_max"].sum()
    largest = np.abs(weight).max(axis=1)
    fine = [
        np.square(restored(weight, (largest * share).astype(np.float32), 0) - weight).sum(axis=1)
        for share in np.linspace(0.2, 1, 120)
    ]
    assert (errors["channel_wise_mse"] < 1.05 * np.min(fine, axis=0)).all()


@pytest.mark.parametrize(
    ("op_type", "shape", "axis", "groups"),
    [
        ("conv2d", (6, 4, 3, 3), 0, 1),
        ("conv2d", (6, 2, 1, 1), 0, 2),
        ("depthwise_conv2d", (4, 1, 3, 3), 0, 4),
        ("conv2d_transpose", (4, 6, 2, 2), 1, 1),
        ("matmul_v2", (4, 5), 1, 1),
        ("matmul_v2", (5, 4), 0, 1),
    ],
)
def test_the_mean_error_is_what_constant_channels_give(
    op_type: str, shape: tuple[int, ...], axis: int, groups: int
) -> None:
    """Channels that are constant, away from the border: the mean is the only value and can be written out."""
    weight, means = heavy_tailed(*shape), np.random.default_rng(1).normal(size=4)
    thresholds = weight_thresholds(weight, axis, "channel_wise_abs_max")
    error = np.moveaxis(restored(weight, thresholds, axis) - weight, axis, 0)
    wanted = []
    for channel, kernel in enumerate(error):
        group = channel // (len(error) // groups)
        inputs = means.reshape(groups, -1)[group]
        wanted.append(sum(value * kernel[i].sum() for i, value in enumerate(inputs)))
    found = mean_error(weight, thresholds, Layer("out", op_type, "in", "w", axis), means)
    assert found is not None
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_mean_of_a_transposed_convolution_comes_back(stride: int) -> None:
    """A kernel as wide as the stride: every position is reached by one tap, whichever it is."""
    model = normalise(build(lambda x: paddle.nn.Conv2DTranspose(4, 6, stride, stride=stride)(x) * 2, (1, 4, 8, 8)))[0]
    feed = pictures((1, 4, 8, 8))
    (layer,) = quantizable_layers(model)
    wanted = model.run(feed, [layer.name])[0].mean(axis=(0, 2, 3))
    coarse = weight_thresholds(model.weight(layer.weight), layer.axis, "abs_max") * np.float32(8)
    means = feed["x"].astype(np.float64).mean(axis=(0, 2, 3))
    bias = bias_of(model, layer)
    assert bias is not None
    corrected = corrected_biases(model, [layer], {layer.weight: coarse}, {layer.activation: means})[bias]
    shift = (corrected - model.weight(bias)).reshape(-1)
    model.set_weight(layer.weight, restored(model.weight(layer.weight), coarse, layer.axis).astype(np.float32))
    found = model.run(feed, [layer.name])[0].mean(axis=(0, 2, 3))
    assert np.abs(found - wanted).max() > 1e-3
    np.testing.assert_allclose(found + shift, wanted, atol=1e-5)


def test_channels_that_do_not_fit_are_left_alone() -> None:
    weight = heavy_tailed(6, 4)
    layer = Layer("out", "mul", "in", "w", 1)
    assert mean_error(weight, weight_thresholds(weight, 1, "abs_max"), layer, np.ones(5)) is None


@pytest.mark.stage
def test_the_mean_of_a_real_layer_comes_back() -> None:
    """Two channels of the classifier's layers, weights rounded to few levels so that the shift is plain."""

    model = normalised_classifier()
    batch = {"x": noise(4)}
    layers = [layer for layer in quantizable_layers(model) if bias_of(model, layer) is not None][::5]
    # All in each run, for Paddle prepares a program anew where others are asked for.
    names = [name for layer in layers for name in (layer.activation, layer.name)]
    whole, rounded = dict(zip(names, model.run(batch, names))), model.copy()
    moved = 0
    for layer in layers:
        axes = (0, 2, 3) if layer.op_type != "mul" and layer.op_type != "matmul_v2" else (0,)
        activation, weight = whole[layer.activation], model.weight(layer.weight)
        coarse = weight_thresholds(weight, layer.axis, "abs_max") * np.float32(8)
        means = activation.astype(np.float64).mean(axis=tuple(a for a in range(activation.ndim) if a != 1))
        biases = corrected_biases(model, [layer], {layer.weight: coarse}, {layer.activation: means})
        bias = bias_of(model, layer)
        assert bias is not None and list(biases) == [bias]
        rounded.set_weight(layer.weight, restored(weight, coarse, layer.axis).astype(np.float32))
        shift = (rounded.run(batch, names)[names.index(layer.name)] - whole[layer.name]).mean(axis=axes)
        rounded.set_weight(layer.weight, weight)
        correction = (biases[bias] - model.weight(bias)).reshape(-1)
        before, after = np.abs(shift).mean(), np.abs(shift + correction).mean()
        moved += after < 0.5 * before
    # Padding and strides make the mean over the map differ from the mean over the windows in some layers.
    assert moved > 0.7 * len(layers)
