"""Normalising: what is folded and removed computes the same, and what is not certain to stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from act.program.paddle_setup import paddle
from act.program.passes.normalise import Changes, normalise, set_inference_mode
from tests.support.prepare_networks import batch, build

PICTURE = (2, 3, 8, 8)
ROWS = (4, 6)


def conv(x: Any, bias: bool = False, groups: int = 1, layout: str = "NCHW") -> Any:
    channels = x.shape[1] if layout == "NCHW" else x.shape[3]
    return paddle.nn.Conv2D(channels, 6, 3, groups=groups, bias_attr=bias, data_format=layout)(x)


def norm(x: Any, layout: str = "NCHW") -> Any:
    return paddle.nn.BatchNorm2D(x.shape[1] if layout == "NCHW" else x.shape[3], data_format=layout)(x)


def shared_weight(x: Any) -> Any:
    layer = paddle.nn.Conv2D(3, 3, 3, padding=1, bias_attr=False)
    return norm(layer(layer(x)))


def read_twice(x: Any) -> Any:
    y = conv(x)
    return norm(y) + y


def conditional(x: Any) -> Any:
    y = norm(conv(x))
    return paddle.static.nn.cond(paddle.mean(y) > 0, lambda: y + 1, lambda: y * 2)


def assigned_then_changed(x: Any) -> Any:
    """The copy keeps the old values while its source is written again."""
    y = paddle.nn.functional.relu(x)
    kept = paddle.assign(y)
    paddle.assign(y * 3, output=y)
    return kept + y


def linear(x: Any) -> Any:
    return paddle.nn.BatchNorm1D(5)(paddle.nn.Linear(6, 5)(x))


def linear_without_bias(x: Any) -> Any:
    return paddle.nn.BatchNorm1D(5)(paddle.nn.Linear(6, 5, bias_attr=False)(x))


def transposed_weight(x: Any) -> Any:
    weight = paddle.create_parameter([5, 6], "float32")
    return paddle.nn.BatchNorm1D(5)(paddle.matmul(x, weight, transpose_y=True))


def biased(x: Any) -> Any:
    """The reshape of the bias goes even without a batch norm."""
    return paddle.nn.functional.relu(conv(x, bias=True))


def sequence(x: Any) -> Any:
    """The batch norm's channels are not the matrix product's."""
    return paddle.nn.BatchNorm1D(3)(paddle.nn.Linear(8, 8)(paddle.reshape(x, [-1, 3, 8])))


def dropout(mode: str) -> Callable[[Any], Any]:
    return lambda x: paddle.nn.functional.dropout(x * 2, 0.5, mode=mode) + 1


@pytest.mark.parametrize(
    ("network", "shape", "folded"),
    [
        (lambda x: norm(conv(x)), PICTURE, 1),
        (lambda x: norm(conv(x, bias=True)), PICTURE, 1),
        (lambda x: norm(conv(x, groups=3)), PICTURE, 1),
        (lambda x: norm(conv(norm(conv(x)))), PICTURE, 2),
        (lambda x: norm(paddle.nn.Conv2DTranspose(3, 6, 2, stride=2)(x)), PICTURE, 1),
        (lambda x: norm(paddle.nn.Conv2DTranspose(3, 6, 2, groups=3)(x)), PICTURE, 0),
        (linear, ROWS, 1),
        (linear_without_bias, ROWS, 1),
        (transposed_weight, ROWS, 1),
        (lambda x: norm(conv(x, layout="NHWC"), layout="NHWC"), (2, 8, 8, 3), 0),
        (sequence, (2, 24), 0),
        (shared_weight, PICTURE, 0),
        (read_twice, PICTURE, 0),
        (lambda x: conv(norm(x)), PICTURE, 0),
        (biased, PICTURE, 0),
        (conditional, PICTURE, 0),
    ],
)
def test_folding_keeps_the_outputs(network: Callable[[Any], Any], shape: tuple[int, ...], folded: int) -> None:
    model = build(network, shape)
    set_inference_mode(model)
    result, changes = normalise(model)
    assert not [op for op in result.ops if op.type == "reshape2" and model.is_weight(op.input("X")[0])]
    assert changes.folded_batch_norms == folded
    assert (
        sum(op.type == "batch_norm" for op in model.ops) - sum(op.type == "batch_norm" for op in result.ops) == folded
    )
    assert result.feed_names == model.feed_names and result.fetch_names == model.fetch_names
    np.testing.assert_allclose(result.run(batch(shape))[0], model.run(batch(shape))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "removed", "left"),
    [
        (dropout("upscale_in_train"), 1, 0),
        (dropout("downscale_in_infer"), 0, 0),
        (lambda x: paddle.scale(x * 2, 1.0, 0.0) + 1, 1, 0),
        (lambda x: paddle.scale(x * 2, 1.0, 0.5) + 1, 0, 0),
        (lambda x: paddle.assign(x * 2) + 1, 1, 0),
        (assigned_then_changed, 0, 0),
    ],
)
def test_only_identities_are_removed(network: Callable[[Any], Any], removed: int, left: int) -> None:
    model = build(network, PICTURE)
    set_inference_mode(model)
    result, changes = normalise(model)
    assert changes == Changes(0, removed, renamed=changes.renamed) and len(changes.renamed) == removed
    assert sum(op.type == "dropout" for op in result.ops) == left
    np.testing.assert_array_equal(result.run(batch(PICTURE))[0], model.run(batch(PICTURE))[0])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("axes", "pooled"), [([2, 3], 1), ([-1, -2], 1), ([1, 2], 0), ([3], 0), (None, 0)])
def test_a_mean_over_all_positions_is_a_pool(axes: list[int] | None, keep: bool, pooled: int) -> None:
    model = build(lambda x: paddle.mean(conv(x), axes, keep) * 2, PICTURE)
    result, changes = normalise(model)
    assert changes.pooled_means == pooled == sum(op.type == "pool2d" for op in result.ops)
    (found,), (wanted,) = result.run(batch(PICTURE)), model.run(batch(PICTURE))
    assert found.shape == wanted.shape and result.fetch_specs() == model.fetch_specs()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("margins", "value", "folded"),
    [((1, 1, 1, 1), 0.0, 1), ((0, 1, 0, 1), 0.0, 1), ((0, 1, 0, 1), 1.0, 0)],
)
@pytest.mark.parametrize("groups", [1, 3])
def test_zeros_around_what_a_convolution_reads_are_its_padding(
    margins: tuple[int, ...], value: float, folded: int, groups: int
) -> None:
    def network(x: Any) -> Any:
        padded = paddle.nn.functional.pad(x * 2, [0, 0, 0, 0, *margins], value=value)
        return paddle.nn.Conv2D(3, 6, 3, 2, padding=1, groups=groups)(padded)

    model = build(network, PICTURE)
    result, changes = normalise(model)
    assert changes.folded_pads == folded == 1 - sum(op.type == "pad" for op in result.ops)
    np.testing.assert_allclose(result.run(batch(PICTURE))[0], model.run(batch(PICTURE))[0], rtol=1e-5, atol=1e-5)


def test_a_model_saved_in_training_mode_is_run_as_at_inference() -> None:
    model = build(lambda x: norm(conv(x)), PICTURE)
    for op in model.ops:
        if op.has_attr("is_test"):
            op._set_attr("is_test", False)
    set_inference_mode(model)
    result, _ = normalise(model)
    one, two = batch((1, *PICTURE[1:])), batch(PICTURE)
    two["x"][:1] = one["x"]
    np.testing.assert_allclose(result.run(one)[0], result.run(two)[0][:1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.run(two)[0], model.run(two)[0], rtol=1e-4, atol=1e-4)


def test_the_given_model_is_not_changed() -> None:
    model = build(lambda x: norm(conv(x)), PICTURE)
    before = {name: model.weight(name) for name in model.weight_names()}
    types = [op.type for op in model.ops]
    normalise(model)
    assert [op.type for op in model.ops] == types
    for name, value in before.items():
        np.testing.assert_array_equal(model.weight(name), value)
