"""Where a model is cut into regions, and that reconstruction brings their ends closer to the fp32 model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from act.metrics import cosine
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.quantized_program import quantize
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.statistics import Reader
from act.samples.dataset import Ragged, Samples
from act.settings import Refine, TrainConfig
from act.training.program import build
from act.training.refinement import layer_ends, reconstruct, reconstruction_loss, region_ends
from tests.support.models import first_layers, noise, normalised_classifier, seen
from tests.support.small_training import feeds, fetch

SAMPLES = Samples({"x": Ragged.of(list(noise(8, width=64)))})
BATCH = {"x": noise(4, width=64)}
SETTINGS = Refine(steps=24, batch_size=4, learning_rate=1e-4)


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return normalised_classifier()


@pytest.fixture(scope="module")
def short() -> InferenceModel:
    """Its first layers, where what comes later has no say."""
    return first_layers(normalised_classifier(), 14)


@pytest.fixture(scope="module")
def scheme(model: InferenceModel) -> Scheme:
    """The second to the eleventh layer, with thresholds so wide that little is left of the weights, and zero points."""
    layers = quantizable_layers(model)[1:11]
    found = make_scheme(model, layers, seen(model, layers, BATCH, symmetric=False))
    return Scheme(found.layers, found.activations, {name: values * 4 for name, values in found.weights.items()})


def exact(model: InferenceModel, ends: Sequence[str]) -> Reader:
    """The values of the fp32 model, as Paddle computes them."""
    return lambda batch: dict(zip(ends, model.run(batch, ends)))


def error(model: InferenceModel, scheme: Scheme, ends: Sequence[str]) -> float:
    """How far the quantized values lie from the fp32 ones at these ends, each as a share of its own mean square."""
    names = list(ends)
    pairs = zip(model.run(BATCH, names), quantize(model, scheme).run(BATCH, names))
    return float(np.mean([np.square(b - a).mean() / np.square(a).mean() for a, b in pairs]))


def test_regions_end_where_one_tensor_carries_all(model: InferenceModel, scheme: Scheme) -> None:
    ends = region_ends(model, scheme, fewest_layers=3)
    makers = {name: op for op in model.ops for name in op.output_arg_names}
    assert len(ends) >= 3 and len(set(ends)) == len(ends)
    # The logits stand for the softmax.
    assert makers[model.fetch_names[0]].type == "softmax"
    assert ends[-1] == makers[model.fetch_names[0]].input("X")[0]
    order = [op.output_arg_names[0] for op in model.ops if op.output_arg_names]
    for end in ends[:-1]:
        place = order.index(end)
        behind = {name for op in model.ops[place + 1 :] for name in op.input_arg_names if not model.is_weight(name)}
        made_before = {name for op in model.ops[: place + 1] for name in op.output_arg_names}
        assert behind & (made_before | set(model.feed_names)) == {end}
    assert len(region_ends(model, scheme, fewest_layers=1000)) == 1


def test_every_quantized_layer_is_a_region_of_its_own(model: InferenceModel, scheme: Scheme) -> None:
    ends = layer_ends(model, scheme)
    assert len(ends) == len(scheme.layers)
    assert error(model, scheme, ends) > 0


def test_it_starts_at_the_candidate_and_no_gradient_leaves_a_region(short: InferenceModel, scheme: Scheme) -> None:
    ends = region_ends(short, scheme, fewest_layers=3)
    layers = {layer.name: layer for layer in quantizable_layers(short)}
    first = layers[scheme.layers[0]].weight
    # Only the last region is compared, so that nothing may reach the first layer's weight.
    training = build(
        short,
        scheme,
        reconstruction_loss(ends[-1:]),
        [layers[scheme.layers[-1]].weight],
        TrainConfig(learning_rate=1e-3),
        1,
    )
    outputs = fetch(training, BATCH, short)[0]
    assert cosine(outputs, quantize(short, scheme).run(BATCH)[0]) > 0.9999
    names = [first, layers[scheme.layers[-1]].weight]
    settings = TrainConfig(learning_rate=1e-3)
    training = build(short, scheme, reconstruction_loss([ends[0], ends[-1]]), names, settings, 9)
    given = feeds(training, BATCH, short)
    last = list(training.loss.compared)[-1]
    given[last] = given[last] + 1000  # an error at the end that is out of all proportion
    clip_free = build(short, scheme, reconstruction_loss(ends[:1]), names[:1], settings, 9)
    training.step(given)
    clip_free.step(feeds(clip_free, BATCH, short))
    moved, alone = (program.student.weight(first) - short.weight(first) for program in (training, clip_free))
    # Adam's first step has the gradients' signs alone, whatever their size.
    assert np.mean(np.sign(moved) == np.sign(alone)) > 0.99


@pytest.mark.parametrize("kind", ["layers", "regions"])
def test_reconstruction_brings_the_ends_closer_and_repeats_itself(
    short: InferenceModel, scheme: Scheme, kind: str
) -> None:
    ends = layer_ends(short, scheme) if kind == "layers" else region_ends(short, scheme, fewest_layers=3)
    before = {name: short.weight(name) for name in short.weight_names()}
    refined, again = (
        reconstruct(short, scheme, ends, exact(short, ends), SAMPLES, SETTINGS, time.monotonic() + 300)
        for _ in range(2)
    )
    assert refined is not None and again is not None
    assert refined.to_file() == again.to_file()
    assert error(short, refined, ends) < 0.9 * error(short, scheme, ends)
    assert refined.activations == scheme.activations and set(refined.integers) == set(scheme.weights)
    for name, value in before.items():
        np.testing.assert_array_equal(short.weight(name), value, err_msg="the given model was changed")


def test_operators_that_an_export_left_without_their_shapes_have_a_gradient(
    model: InferenceModel, scheme: Scheme
) -> None:
    bare = model.copy()
    stripped = [op for op in bare.ops if "XShape" in op.desc.output_names()]
    for op in stripped:
        op.desc.remove_output("XShape")
    assert stripped
    one = SETTINGS.model_copy(update={"steps": 1})
    ends = region_ends(bare, scheme, fewest_layers=1000)
    assert reconstruct(bare, scheme, ends, exact(bare, ends), SAMPLES, one, time.monotonic() + 300) is not None


def test_where_one_sample_goes_at_a_time_a_step_is_made_on_as_many(short: InferenceModel, scheme: Scheme) -> None:
    one = SETTINGS.model_copy(update={"steps": 1, "batch_size": len(SAMPLES)})
    ends, moved = region_ends(short, scheme, fewest_layers=3), []
    for samples in (SAMPLES, replace(SAMPLES, largest_batch=1), SAMPLES.head(1)):
        refined = reconstruct(short, scheme, ends, exact(short, ends), samples, one, time.monotonic() + 300)
        assert refined is not None
        moved.append(np.concatenate([np.sign(refined.biases[name] - short.weight(name)) for name in refined.biases]))
    # Adam's first step has the gradients' signs alone.
    in_parts, on_one = (np.mean(moved[0] == other) for other in moved[1:])
    assert in_parts > max(on_one, 0.97)


def test_without_time_there_is_no_result(short: InferenceModel, scheme: Scheme) -> None:
    ends = region_ends(short, scheme, fewest_layers=3)
    assert reconstruct(short, scheme, ends, exact(short, ends), SAMPLES, SETTINGS, time.monotonic() - 1) is None


def test_a_loss_that_is_not_finite_gives_no_result(short: InferenceModel, scheme: Scheme) -> None:
    wild = SETTINGS.model_copy(update={"learning_rate": 1.0})
    huge = Samples({"x": Ragged.of([np.full((3, 48, 64), 3e38, dtype=np.float32)] * 4)})
    ends = region_ends(short, scheme, fewest_layers=3)
    assert reconstruct(short, scheme, ends, exact(short, ends), huge, wild, time.monotonic() + 300) is None
