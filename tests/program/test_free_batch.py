"""A batch that is fixed becomes free where the program computes the same; where it does not, that is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.free_batch import different_samples, fixed_batch, free_batch, runs_together
from act.samples.dataset import Ragged, Samples
from tests.support.odd_models import Odd

F = paddle.nn.functional


def model_of(network: Callable[[Any], Any], batch: int = 1) -> InferenceModel:
    return Odd({"x": ((batch, 3, 8, 8), "float32")}, network, lambda rng: {}).model()


def sample(seed: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)}


def plain(x: Any) -> Any:
    return F.relu(paddle.nn.Conv2D(3, 4, 3)(x))


def head(x: Any) -> Any:
    y = paddle.reshape(paddle.nn.Conv2D(3, 8, 3, padding=1)(x), [1, 4, 2, 8, 8])
    return paddle.reshape(paddle.transpose(y, [0, 1, 3, 4, 2]), [1, -1, 2])


def rows(x: Any) -> Any:
    """Flatten the batch into the rows of a product, and take it out again."""
    y = paddle.matmul(paddle.reshape(x, [24, 8]), paddle.create_parameter([8, 5], "float32"))
    return paddle.reshape(y, [1, 3, 8, 5])


def expanded(x: Any) -> Any:
    weight = paddle.create_parameter([1, 3, 1, 1], "float32")
    return paddle.concat([x, paddle.expand(weight, [1, 3, 8, 8])], axis=1) if x.shape[0] == 1 else x


def across(x: Any) -> Any:
    """Compute over the batch: one sample's result depends on the others'."""
    return x - paddle.mean(x, axis=0, keepdim=True)


def pooled(x: Any) -> Any:
    """Compute over the batch what neither the order nor the sum of a sample's values shows."""
    y = F.normalize(F.adaptive_avg_pool2d(paddle.nn.Conv2D(3, 4, 1)(x), 1), axis=1)
    return 2 * y - paddle.mean(y, axis=0, keepdim=True)


@pytest.mark.parametrize("network", [plain, head])
def test_a_fixed_batch_is_made_free(network: Callable[[Any], Any]) -> None:
    model = model_of(network)
    assert fixed_batch(model) == 1
    free = free_batch(model)
    assert free is not None and fixed_batch(free) is None
    assert free.fetch_specs()[0].shape[0] == -1
    assert free.shape(free.fetch_names[0])[1:] == model.shape(model.fetch_names[0])[1:]
    assert runs_together(free, model, sample(0), sample(1))


@pytest.mark.parametrize("network", [across, expanded, rows])
def test_a_program_that_computes_something_else_together_is_found_out(network: Callable[[Any], Any]) -> None:
    model = model_of(network)
    free = free_batch(model)
    assert free is None or not runs_together(free, model, sample(0), sample(1))
    assert fixed_batch(model) == 1


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("network", "freed"), [(plain, True), (across, False), (pooled, False)])
def test_equal_samples_do_not_hide_what_is_computed_over_the_batch(
    network: Callable[[Any], Any], freed: bool, count: int
) -> None:
    model = model_of(network)
    free = free_batch(model)
    samples = Samples({"x": Ragged.of([sample(0)["x"][0]] * count)})
    assert free is not None and runs_together(free, model, *different_samples(samples)) == freed
    assert not runs_together(free, model, sample(0), sample(0))


def test_samples_that_differ_are_found() -> None:
    words = [np.array(ids) for ids in ([3, 4, 9], [3, 4], [3, 4, 9], [9, 9, 4])]
    scale = [np.zeros(2, np.float32)] * len(words)
    first, second = different_samples(Samples({"words": Ragged.of(words), "scale": Ragged.of(scale)}))
    assert first["words"].tolist() == [[3, 4, 9]] and second["words"].tolist() == [[9, 9, 4]]
    assert second["scale"].shape == (1, 2) and second["scale"].dtype == np.float32 and second["scale"].any()
    first, second = different_samples(Samples({"words": Ragged.of([words[0], words[1], words[2]])}))
    assert second["words"].tolist() != [[3, 4, 9]] and set(second["words"].ravel()) <= {3, 4, 9}


def test_an_input_without_axes_is_told() -> None:
    feeds = {"x": ((1, 3), "float32"), "scale": ((), "float32")}
    model = Odd(feeds, lambda x, scale: x * scale, lambda rng: {}).model()
    assert fixed_batch(model) == 0 and free_batch(model) is None


def test_a_free_batch_is_told() -> None:
    assert fixed_batch(model_of(plain, -1)) is None and fixed_batch(model_of(plain, 4)) == 4
