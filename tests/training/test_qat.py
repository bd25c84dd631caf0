"""Training starts exactly at the candidate, only improves, repeats itself, and does not run where it is not needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.errors import InputError
from act.metrics import cosine
from act.program.layers import bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.weights import quantize_weight
from act.results.ptq_search import Plan
from act.samples.dataset import Ragged, Samples
from act.settings import Distillation, Qat, Schedule, TrainConfig
from act.training.program import build, trainable_weights
from act.training.train import Trained, select_layers, train_quantized
from tests.support.models import first_layers, noise, normalised_classifier
from tests.support.place import JOB
from tests.support.small_training import default_loss, feeds, fetch

CHECKOUT = Path(__file__).parents[2]
SAMPLES = Samples({"x": Ragged.of(list(noise(8, width=96)))})
BATCH = {"x": noise(4, width=96)}
SETTINGS = Qat(evaluations_per_epoch=1, epochs=2, batch_size=4, learning_rate=1e-4)


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return first_layers(normalised_classifier(), 12)


@pytest.fixture(scope="module")
def scheme(model: InferenceModel) -> Scheme:
    """All layers but the first two, at half of their range, so that there is something to win back.

    Every other activation is asymmetric, one bias is not the model's, and one weight is not rounded to the nearest.
    """
    layers = quantizable_layers(model)[2:]
    activations = dict(zip((la.activation for la in layers), model.run(BATCH, [la.activation for la in layers])))
    ranges = {
        name: Range.around_zero(float(np.abs(values).max()) / 2)
        if index % 2
        else Range(min(float(values.min()) / 2, 0), max(float(values.max()) / 2, 0))
        for index, (name, values) in enumerate(activations.items())
    }
    bias = next(name for layer in layers if (name := bias_of(model, layer)) is not None)
    found = make_scheme(model, layers, ranges)
    weight = layers[3].weight
    lower = quantize_weight(model.weight(weight) * np.float32(0.9), found.weights[weight], layers[3].axis)
    return replace(found, biases={bias: model.weight(bias) + np.float32(0.01)}, integers={weight: lower})


def train(model: InferenceModel, scheme: Scheme, settings: Qat, evaluate: Any) -> Trained:
    return train_quantized(model, scheme, [model], SAMPLES, settings, Distillation(), evaluate)


def closeness(model: InferenceModel) -> Any:
    """A quality: how near the quantized outputs come to the fp32 model's."""
    wanted = model.run(BATCH)[0]

    def measure(state: InferenceModel, scheme: Scheme) -> float:
        return -float(np.abs(quantize(state, scheme).run(BATCH)[0] - wanted).mean())

    return measure


def test_training_starts_exactly_at_the_candidate(model: InferenceModel, scheme: Scheme) -> None:
    training = build(model, scheme, default_loss, trainable_weights(model, scheme), TrainConfig(), 1)
    outputs = fetch(training, BATCH, model)[0]
    candidate = quantize(model, scheme).run(BATCH)[0]
    assert cosine(outputs, candidate) > 0.9999
    assert np.abs(outputs - candidate).max() < 0.1 * np.abs(model.run(BATCH)[0] - candidate).max()


def test_float_layers_stay_float(model: InferenceModel, scheme: Scheme) -> None:
    training = build(model, scheme, default_loss, trainable_weights(model, scheme), TrainConfig(), 1)
    quantized = {op.input("X")[0] for op in training.program.global_block().ops if op.type == "quantize_linear"}
    first = quantizable_layers(model)[0]
    assert first.weight not in quantized and first.activation not in quantized
    assert set(scheme.weights) <= quantized


def test_the_learning_rate_follows_its_schedule(model: InferenceModel, scheme: Scheme) -> None:
    """At a rate of zero nothing changes: PaddleSlim's quantizer loses the schedule on its way."""
    schedule = Schedule(type="PiecewiseDecay", boundaries=[1], values=[1e-3, 0.0])
    settings = TrainConfig(learning_rate=1e-3, learning_rate_schedule=schedule)
    training = build(model, scheme, default_loss, trainable_weights(model, scheme), settings, 2)
    states = [training.weights()]
    for _ in range(2):
        training.step(feeds(training, BATCH, model))
        states.append(training.weights())
    name = next(iter(scheme.weights))
    assert np.any(states[1][name] != states[0][name])
    assert all(np.array_equal(states[2][name], value) for name, value in states[1].items())


def test_training_improves_and_repeats_itself(model: InferenceModel, scheme: Scheme, tmp_path: Path) -> None:
    files = []
    for name in ("first", "second"):
        result = train(model, scheme, SETTINGS, closeness(model))
        assert result.model is not None and result.fit.quality_after > result.fit.quality_before
        assert [row.epoch for row in result.fit.history] == [0, 1, 2]
        (tmp_path / name).mkdir()
        result.model.save(tmp_path / name)
        files.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert files[0] == files[1]


@pytest.mark.parametrize("setting", ["scale_trainable", "use_pact"])
def test_ranges_train_where_that_is_asked_for(model: InferenceModel, scheme: Scheme, setting: str) -> None:
    settings = SETTINGS.model_copy(update={setting: True})
    result = train(model, scheme, settings, closeness(model))
    assert result.model is not None and result.scheme is not None
    assert closeness(model)(result.model, result.scheme) == result.fit.quality_after > result.fit.quality_before
    changed = [span != scheme.activations[name] for name, span in result.scheme.activations.items()]
    assert sum(changed) > len(changed) / 2
    same = [np.array_equal(values, scheme.weights[name]) for name, values in result.scheme.weights.items()]
    # Layers behind a closed gate have no gradient.
    assert all(same) if setting == "use_pact" else sum(same) < len(same) / 2


def test_layers_stay_in_float_by_type_and_by_pattern(model: InferenceModel, scheme: Scheme) -> None:
    layers = {layer.name: layer for layer in quantizable_layers(model)}
    convolutions = Qat(quantize_op_types=["conv2d"])
    kept = select_layers(model, scheme, convolutions)
    assert kept.layers and {layers[name].op_type for name in kept.layers} == {"conv2d"}
    assert set(kept.weights) == {layers[name].weight for name in kept.layers}
    first = layers[scheme.layers[0]]
    assert first.name not in select_layers(model, scheme, Qat(not_quant_pattern=[first.weight])).layers
    assert select_layers(model, scheme, Qat(not_quant_pattern=[first.name])).layers == scheme.layers[1:]
    with pytest.raises(InputError, match="no layer to quantize"):
        select_layers(model, scheme, Qat(not_quant_pattern=["."]))


def test_sparse_weights_stay_sparse(model: InferenceModel, scheme: Scheme) -> None:
    """They are exactly zero in the model and in the integers; weights that were not pruned are not touched."""
    sparse = model.copy()
    name = sorted(scheme.weights)[2]
    weight = model.weight(name)
    zero = np.random.default_rng(0).random(weight.shape) < 0.5
    sparse.set_weight(name, np.where(zero, np.float32(0), weight))
    plain = replace(scheme, integers={}, biases={})
    result = train(sparse, plain, SETTINGS, closeness(sparse))
    assert result.model is not None and result.scheme is not None
    trained = result.model.weight(name)
    assert np.all(trained[zero] == 0) and np.any(trained[~zero] != weight[~zero])
    integers = quantize(result.model, result.scheme).weight(name)
    assert integers.dtype == np.int8 and np.all(integers[zero] == 0)


def test_the_start_is_kept_when_nothing_is_better(model: InferenceModel, scheme: Scheme) -> None:
    qualities = iter([0.9, 0.5, 0.9])
    result = train(model, scheme, SETTINGS, lambda *_: next(qualities))
    assert result.model is None and result.fit.quality_after == 0.9
    assert "nothing better" in result.fit.why


def test_a_loss_that_is_not_finite_stops_with_its_cause(model: InferenceModel, scheme: Scheme) -> None:
    wild = Qat(epochs=50, batch_size=4, learning_rate=1.0)
    spoiled = model.copy()
    name = next(iter(scheme.weights))
    spoiled.set_weight(name, np.full_like(spoiled.weight(name), np.nan))
    result = train(spoiled, scheme, wild, lambda *_: 0.5)
    assert "not finite" in result.fit.why and "learning_rate" in result.fit.why
    assert result.model is None and len(result.fit.history) == 1


def test_a_time_limit_ends_training(model: InferenceModel, scheme: Scheme) -> None:
    hurried = Qat(epochs=500, batch_size=4, time_limit_minutes=0.001)
    result = train(model, scheme, hurried, lambda *_: 0.5)
    assert "time limit" in result.fit.why and len(result.fit.history) == 2


def test_where_it_is_not_needed_it_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps({"jobs": {"mine": JOB}}))
    plan = tmp_path / "artifacts" / "mine" / "plan"
    plan.mkdir(parents=True)
    Plan(keep=[], train=False, start=None).write(plan / "plan.json")
    code = (
        "import sys; sys.argv = ['qat', '--job', 'mine']\n"
        "from tasks.qat.__main__ import main; main(); assert 'paddle' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not needed" in done.stdout
    result = json.loads((tmp_path / "artifacts" / "mine" / "qat" / "qat.json").read_text())
    assert result["needed"] is False and result["candidate"] is None
