"""A model that takes single samples trains as one that takes whole batches: a step is made of parts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.scheme import Scheme, make_scheme
from act.samples.dataset import Array, Ragged, Samples
from act.settings import Distillation, OptimizerName, TrainConfig
from act.training.learned_ranges import LearnedRanges
from act.training.program import TrainingProgram, trainable_weights
from act.training.train import Trained, train
from tests.support.models import seen
from tests.support.small_training import convolutions

PICTURES = np.random.default_rng(1).normal(size=(13, 1, 8, 8)).astype(np.float32)
SAMPLES = Samples({"x": Ragged.of(list(PICTURES))})
SETTINGS = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-3)  # batches of 4, 4, 4 and 1 samples
STEPS = 8
QUALITIES = itertools.count()


@pytest.fixture(scope="module")
def scheme() -> Scheme:
    model = convolutions(seed=5)
    layers = quantizable_layers(model)
    return make_scheme(model, layers, seen(model, layers, {"x": PICTURES}, symmetric=False))


def trained(largest_batch: int | None, scheme: Scheme | None, settings: TrainConfig, **more: Any) -> Trained:
    """The last state, for each is measured as better than the one before."""
    student = convolutions(seed=5)
    if largest_batch == 1:
        student.program.global_block().var("x").desc.set_shape([1, 1, 8, 8])  # Paddle refuses all others
    samples, evaluate = replace(SAMPLES, largest_batch=largest_batch), lambda *_: float(next(QUALITIES))
    distillation = Distillation(loss="soft_label")  # a mean over samples
    teachers = [convolutions()]
    return train(student, scheme, teachers, samples, settings, distillation, evaluate, label="test", **more)


def changes(result: Trained, start: InferenceModel, scheme: Scheme | None) -> dict[str, Array]:
    """What training changed, and by how much; thresholds and ranges as well."""
    assert result.model is not None and result.fit.history[-1].step == STEPS
    found = {name: result.model.weight(name) - start.weight(name) for name in trainable_weights(start, scheme)}
    if scheme is not None and result.scheme is not None:
        found |= {f"{name} threshold": result.scheme.weights[name] - scheme.weights[name] for name in scheme.weights}
        ends = {name: (span, scheme.activations[name]) for name, span in result.scheme.activations.items()}
        found |= {f"{name} range": np.array([a.low - b.low, a.high - b.high]) for name, (a, b) in ends.items()}
    return found


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("quantized, ranges", [(False, None), (True, None), (True, "lsq"), (True, "pact")])
def test_parts_train_what_whole_batches_do(
    scheme: Scheme, quantized: bool, ranges: LearnedRanges | None, optimizer: OptimizerName
) -> None:
    start, mine = convolutions(seed=5), scheme if quantized else None
    sparse = trainable_weights(start, mine)[0]
    mask = np.arange(start.weight(sparse).size).reshape(start.weight(sparse).shape) % 2
    settings = SETTINGS.model_copy(update={"optimizer": optimizer, "weight_decay": 0.01})
    whole, *others = (
        trained(largest_batch, mine, settings, masks={sparse: mask}, ranges=ranges) for largest_batch in (None, 1, 3)
    )
    expected = changes(whole, start, mine)
    for other in others:
        for name, change in changes(other, start, mine).items():
            assert np.abs(change - expected[name]).max() <= 0.01 * np.abs(expected[name]).max(), name
        assert other.model is not None and np.all(other.model.weight(sparse)[mask == 0] == 0)
        losses = [[point.loss for point in each.fit.history[1:]] for each in (other, whole)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("ranges", [None, "lsq"])
def test_one_that_was_stopped_goes_on_to_the_same_bits(
    scheme: Scheme, ranges: LearnedRanges | None, tmp_path: Path
) -> None:
    def until(last: int) -> Any:
        def after_step(program: TrainingProgram, step: int) -> None:
            if step == 2:
                name = program.trained[0]
                program.set_mask(name, np.abs(program.weights()[name]) > 0.05)
            if step == last:
                raise KeyboardInterrupt

        return after_step

    def run(name: str, last: int) -> Trained:
        more = {"ranges": ranges, "checkpoint": tmp_path / name, "after_step": until(last)}
        return trained(1, scheme, SETTINGS, masks={}, **more)

    whole = run("whole", 0)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", 6)  # after the checkpoint of step 4
    stopped = run("stopped", 0)
    assert whole.fit.weights is not None and stopped.fit.weights is not None
    assert all(np.array_equal(whole.fit.weights[name], value) for name, value in stopped.fit.weights.items())
    files = [tmp_path / name / "checkpoint.npz" for name in ("whole", "stopped")]
    with np.load(files[0]) as first, np.load(files[1]) as second:
        names = [name for name in first.files if name != "index"]  # that holds seconds
        assert len(names) > len(whole.fit.weights)
        assert all(np.array_equal(first[name], second[name]) for name in names)
