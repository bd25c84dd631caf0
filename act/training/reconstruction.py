"""Reconstruction: layers, or regions of several, learn to give what the fp32 model gives at their ends.

Layer by layer as in AdaQuant (Hubara et al., 2021), by region as in BRECQ (Li et al., 2021): weights and biases train,
on what the quantized layers before give, all regions side by side in one program, at the cost of one training step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from act.program.layers import bias_of
from act.program.model import InferenceModel
from act.program.outputs import real_outputs
from act.program.paddle_setup import paddle
from act.quantization.scheme import Scheme, quantized_layers
from act.quantization.weights import quantize_weight
from act.samples.dataset import Samples
from act.settings import Refine
from act.training.losses import AddLoss, Loss, squared_error
from act.training.program import build, sparse_masks


def layer_ends(model: InferenceModel, scheme: Scheme) -> list[str]:
    """Return the output of every quantized layer, its bias included."""
    return [
        layer.name if bias_of(model, layer) is None else model.consumers(layer.name)[0].output_arg_names[0]
        for layer in quantized_layers(model, scheme)
    ]


def region_ends(model: InferenceModel, scheme: Scheme, fewest_layers: int) -> list[str]:
    """Return the single tensors at which the model can be cut in two, and its outputs; a softmax counts by its logits.

    Args:
        fewest_layers: quantized layers between two ends.
    """
    last_read = {name: index for index, op in enumerate(model.ops) for name in op.input_arg_names}
    last_read |= dict.fromkeys(model.fetch_names, len(model.ops))
    alive = {name for name in model.feed_names if name in last_read}
    ends: list[str] = []
    layers = 0
    for index, op in enumerate(model.ops):
        alive |= {name for name in op.output_arg_names if name in last_read}
        alive = {name for name in alive if last_read[name] > index}
        layers += any(name in scheme.layers for name in op.output_arg_names)
        if len(alive) == 1 and layers >= fewest_layers and alive <= set(op.output_arg_names):
            name = next(iter(alive))
            if model.dtype(name) == "float32" and name not in model.fetch_names:
                ends.append(name)
                layers = 0
    return list(dict.fromkeys([*ends, *real_outputs(model)]))


def reconstruction_loss(ends: Sequence[str]) -> AddLoss:
    """Return what adds the loss of regions that are trained side by side.

    The end of every region, a float32 variable, is compared with the fp32 model's, as a share of its mean square, and
    no gradient passes from one region into the one before it.
    """

    def add_loss(student: InferenceModel) -> Loss:
        losses: list[Any] = []
        targets: list[str] = []
        for name in ends:
            compared = _cut_gradient(student, name)
            target = paddle.static.data(f"teacher_{len(targets)}", [-1] * len(compared.shape), "float32")
            losses.append(squared_error(compared, target))
            targets.append(target.name)
        return Loss(paddle.add_n(losses), list(ends), targets, [0] * len(ends))

    return add_loss


def _cut_gradient(student: InferenceModel, name: str) -> Any:
    """Let a variable's consumers have its value without its gradient; return the variable that still has one."""
    block = student.program.global_block()
    producer = student.producer(name)
    before = block.var(student.add_tensor(f"{name}.before_the_cut", name))
    before.stop_gradient = False
    student.rename_output(producer, name, before.name)
    student.insert("assign", {"X": [before.name]}, {"Out": [name]}, after=producer)
    block.var(name).stop_gradient = True
    return before


def reconstruct(
    model: InferenceModel, scheme: Scheme, ends: Sequence[str], samples: Samples, settings: Refine, deadline: float
) -> Scheme | None:
    """Train weights and biases, and return the scheme with them; None where there is no end to compare, no time for a
    single step, or a loss that is not finite.

    Args:
        model: the fp32 model, which is the teacher as well.
        ends: of the regions.
        deadline: on `time.monotonic`'s clock.
    """
    if not ends or time.monotonic() > deadline:  # building the program takes seconds
        return None
    layers = quantized_layers(model, scheme)
    biases = [bias for layer in layers if (bias := bias_of(model, layer)) is not None]
    weights = [layer.weight for layer in layers]
    training = build(
        model,
        scheme,
        reconstruction_loss(ends),
        [*weights, *biases],
        learning_rate=settings.learning_rate,
        steps=settings.steps,
        seed=settings.seed,
        masks=sparse_masks(model, weights),
    )
    batches = list(samples.batches(settings.batch_size))
    rng = np.random.default_rng(settings.seed)
    order = [index for _ in range(-(-settings.steps // len(batches))) for index in rng.permutation(len(batches))]
    done = 0
    with tqdm(order[: settings.steps], desc="reconstruction", unit="step", leave=False) as bar:
        for index in bar:
            if time.monotonic() > deadline:
                break
            loss = training.step(batches[index], model.run(batches[index], training.loss.teacher_names))
            if not math.isfinite(loss):
                return None
            bar.set_postfix_str(f"loss {loss:.4f}")
            done += 1
    if done == 0:
        return None
    trained = training.weights()
    integers = {
        layer.weight: quantize_weight(trained[layer.weight], scheme.weights[layer.weight], layer.axis)
        for layer in layers
    }
    return replace(scheme, integers=integers, biases={**scheme.biases, **{name: trained[name] for name in biases}})
