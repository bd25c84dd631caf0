"""Each way of pruning with each loss of distillation, then int8, and training in int8: what the saved files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.metrics import cosine
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.pruning.context import Context
from act.pruning.sparse import has_two_of_four, sparse_layers
from act.pruning.steps import Pruner
from act.quantization.quantized_program import quantize
from act.quantization.scheme import make_scheme
from act.samples.dataset import Array, Ragged, Samples
from act.settings import Distillation, Job, Qat, StrategyName, validate
from act.training.train import train_quantized
from tests.support.models import seen
from tests.support.place import JOB
from tests.support.prune_networks import LENGTH, encoder, pictures, plain, static

HOW: dict[StrategyName, dict[str, Any]] = {
    "ChannelPrune": {"channel": {"pruned_ratio": 0.25}},
    "TransformerPrune": {"transformer": {"pruned_ratio": 0.5}},
    "UnstructurePrune": {"unstructured": {"ratio": 0.5}},
    "ASPPrune": {},
}


def similarity(wanted: Array, found: Array) -> float:
    return float(cosine(wanted, found))


@pytest.mark.parametrize(
    "way, loss",
    [
        ("ChannelPrune", "l2"),
        ("TransformerPrune", "soft_label"),
        ("UnstructurePrune", "dkd"),
        ("ASPPrune", "skd"),
        ("ASPPrune", None),
    ],
)
def test_pruned_then_int8_with_distillation(way: StrategyName, loss: Any, tmp_path: Path) -> None:
    shape = [LENGTH, 8] if way == "TransformerPrune" else [3, 8, 8]
    model = encoder(tmp_path / "whole") if way == "TransformerPrune" else static(plain, shape)
    samples, batch = Samples({"x": Ragged.of(list(pictures(16, shape)))}), {"x": pictures(16, shape)}
    wanted = model.run(batch)[0]
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, **HOW[way]}
    job = validate(Job, {**JOB, "strategy": [way], "prune": settings, "distillation": {"loss": loss}}, "here")
    pruner = Pruner(
        job, Context(samples), [model], lambda other: similarity(wanted, other.run(batch)[0]), tmp_path / "scratch"
    )
    (pruned,) = pruner.run([way], model, 1.0)
    layers = quantizable_layers(pruned.model)
    scheme = make_scheme(pruned.model, layers, seen(pruned.model, layers, batch, symmetric=True))
    trained = train_quantized(
        pruned.model,
        scheme,
        [model],
        samples,
        Qat(epochs=1, batch_size=4, learning_rate=1e-4),
        Distillation(loss=loss),
        lambda other, how: similarity(wanted, quantize(other, how or scheme).run(batch)[0]),
    )
    (tmp_path / "int8").mkdir()
    quantize(trained.model or pruned.model, trained.scheme or scheme).save(tmp_path / "int8")
    saved = InferenceModel.load(tmp_path / "int8")
    for layer in layers:
        assert saved.weight(layer.weight).dtype == np.int8
        assert saved.weight(layer.weight).shape == pruned.model.weight(layer.weight).shape
    changed = [layer.weight for layer in layers if saved.weight(layer.weight).shape != model.weight(layer.weight).shape]
    assert bool(changed) == (way in ("ChannelPrune", "TransformerPrune"))
    assert bool(pruned.sparse.masks) == (way in ("UnstructurePrune", "ASPPrune"))
    for name, mask in pruned.sparse.masks.items():
        assert not saved.weight(name)[mask == 0].any()
    if way == "UnstructurePrune":
        held = np.concatenate([saved.weight(name).reshape(-1) for name in pruned.sparse.masks])
        assert np.mean(held == 0) >= 0.49
    axes = {layer.weight: layer.axis for layer in sparse_layers(pruned.model)}
    assert way != "ASPPrune" or all(has_two_of_four(saved.weight(name), axes[name]) for name in pruned.sparse.masks)
    # What is saved is as good as training said, and was not spoiled on the way.
    assert similarity(wanted, saved.run(batch)[0]) == pytest.approx(trained.fit.quality_after, abs=1e-3)
    assert trained.fit.quality_after > 0.9 * pruned.result.quality_after > 0.5
