"""Zeros in single weights: which, when, and that they are in the saved files."""

from __future__ import annotations

import numpy as np
import pytest

from act.errors import InputError
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.pruning.sparse import Gradual, prune_two_of_four, prune_unstructured, sparse_layers
from act.quantization.ranges import LEVELS
from act.quantization.rounding import Floats, Moments, round_weight
from act.samples.dataset import Ragged, Samples
from act.settings import ASPPrune, Distillation, GmpConfig, Prune, UnstructurePrune
from act.training.train import train
from tests.support.models import normalised_classifier
from tests.support.prune_networks import pictures, plain, static

SHAPE = [3, 8, 8]
SAMPLES = Samples({"x": Ragged.of(list(pictures(8, SHAPE)))})


@pytest.fixture
def model() -> InferenceModel:
    return static(plain, SHAPE)


def zeros(model: InferenceModel, names: list[str]) -> float:
    values = np.concatenate([model.weight(name).reshape(-1) for name in names])
    return float((values == 0).mean())


@pytest.mark.parametrize("local", [False, True])
def test_a_ratio_for_all_or_for_each(model: InferenceModel, local: bool) -> None:
    result = prune_unstructured(model, UnstructurePrune(ratio=0.6, local_sparsity=local))
    each = [zeros(result.model, [name]) for name in result.masks]
    assert zeros(result.model, list(result.masks)) == pytest.approx(0.6, abs=0.01)
    assert all(share == pytest.approx(0.6, abs=0.01) for share in each) == local


def test_a_threshold(model: InferenceModel) -> None:
    result = prune_unstructured(model, UnstructurePrune(prune_mode="threshold", threshold=0.05))
    for name in result.masks:
        before, after = model.weight(name), result.model.weight(name)
        np.testing.assert_array_equal(after, np.where(np.abs(before) < 0.05, 0, before))


def test_1x1_convolutions_only() -> None:
    model = normalised_classifier()
    pointwise = [layer.weight for layer in sparse_layers(model) if layer.pointwise]
    result = prune_unstructured(model, UnstructurePrune(ratio=0.5, prune_params_type="conv1x1_only"))
    assert list(result.masks) == pointwise
    others = [layer.weight for layer in sparse_layers(model) if not layer.pointwise]
    assert others and zeros(result.model, others) == 0
    with pytest.raises(InputError, match="1x1"):
        prune_unstructured(static(plain, SHAPE), UnstructurePrune(prune_params_type="conv1x1_only"))


def test_the_cubic_course(model: InferenceModel) -> None:
    settings = UnstructurePrune(ratio=0.8, gmp_config=GmpConfig(stable_iterations=2, pruning_iterations=8))
    course = Gradual.of(model, settings, 20)
    assert [course.ratio_after(step) for step in (0, 1)] == [0, 0]
    assert course.ratio_after(6) == pytest.approx(0.8 + (0.15 - 0.8) * 0.5**3)
    assert course.ratio_after(10) == course.ratio_after(19) == pytest.approx(0.8)
    with pytest.raises(InputError, match="epochs"):
        Gradual.of(model, settings, 9)


def test_gradual_zeros_are_there_in_the_end_whatever_measured_better_before(model: InferenceModel) -> None:
    settings = Prune(epochs=4, batch_size=4, learning_rate=1e-3, unstructured=UnstructurePrune(ratio=0.75))
    course = Gradual.of(model, settings.unstructured, 8)
    falling = iter(np.linspace(1, 0, 20))
    tuned = train(
        model,
        None,
        [model],
        SAMPLES,
        settings,
        Distillation(),
        lambda *_: float(next(falling)),
        masks={},
        after_step=course.after_step,
        counts=course.counts,
        label="prune",
    )
    assert tuned.model is not None and zeros(tuned.model, course.weights) == pytest.approx(0.75, abs=0.01)
    assert any(not np.array_equal(tuned.model.weight(name), model.weight(name)) for name in course.weights)


def test_two_of_four_along_the_input_channels() -> None:
    model = normalised_classifier()
    result = prune_two_of_four(model, ASPPrune())
    layers = {layer.weight: layer for layer in sparse_layers(model)}
    assert len(result.masks) > 20
    for name in result.masks:
        weight = result.model.weight(name)
        rows = np.moveaxis(weight, layers[name].axis, -1).reshape(-1, weight.shape[layers[name].axis])
        # Paddle's own check, on what cuSPARSELt would be given.
        assert paddle.incubate.asp.check_sparsity(rows, n=2, m=4), name
        assert (weight == 0).mean() == pytest.approx(0.5)
    alone = [row.why for row in result.layers if row.why]
    assert any("whole fours" in why for why in alone)  # the three colours of the first convolution
    with pytest.raises(InputError, match=r"prune\.asp\.prune_params_name"):
        prune_two_of_four(model, ASPPrune(prune_params_name=["nothing"]))


def test_training_keeps_the_pattern(model: InferenceModel) -> None:
    pruned = prune_two_of_four(model, ASPPrune())
    settings = Prune(epochs=2, batch_size=4, learning_rate=1e-2)
    rising = iter(range(10))
    tuned = train(
        pruned.model,
        None,
        [model],
        SAMPLES,
        settings,
        Distillation(),
        lambda *_: float(next(rising)),
        masks=pruned.masks,
        label="prune",
    )
    assert tuned.model is not None
    for name, mask in pruned.masks.items():
        assert not tuned.model.weight(name)[~mask].any()
        assert not np.array_equal(tuned.model.weight(name), pruned.model.weight(name))


def test_rounding_leaves_zeros_alone() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 4)).astype(np.float32)
    weight[::2] = 0
    seen: Floats = rng.normal(size=(256, 8)) @ rng.normal(size=(8, 8))
    moments = Moments(256, seen.sum(axis=0)[None], (seen.T @ seen)[None])
    # Thresholds so large that rounding another way would pay.
    thresholds = np.full(4, 20 * np.abs(weight).max(), dtype=np.float32)
    chosen = round_weight(weight, thresholds, Layer("y", "matmul_v2", "x", "w", 1), moments, centred=False)
    assert not chosen[::2].any() and np.abs(chosen).max() <= LEVELS
