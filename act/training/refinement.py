"""Refinement: candidates of the search with values rounded or trained anew, where that raises their quality.

Reconstruction trains layers, or regions of several, to give what the fp32 model gives at their ends: layer by layer as
in AdaQuant (Hubara et al., 2021), by region as in BRECQ (Li et al., 2021). Weights and biases train, on what the
quantized layers before give, all regions side by side in one program, at the cost of one training step.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from tqdm import tqdm

from act.engines.process import EngineFailure, one_line
from act.program.layers import bias_of, quantizable_layers
from act.program.model import InferenceModel, reason
from act.program.outputs import real_outputs
from act.program.paddle_setup import paddle
from act.quantization.activations import reader
from act.quantization.rounding import Moments, adaround, gather
from act.quantization.scheme import Scheme, quantized_layers
from act.quantization.statistics import Reader
from act.quantization.weights import quantize_weight
from act.results.ptq_search import Attempt, Candidate
from act.samples.dataset import Array, Samples
from act.settings import Refine, RefineMethod, TrainConfig
from act.training.losses import AddLoss, Loss, squared_error
from act.training.program import TrainingProgram, build, sparse_masks

log = logging.getLogger(__name__)

Method = Callable[[Scheme], Scheme | None]


def methods_for(
    model: InferenceModel, fp32: onnx.ModelProto, samples: Samples, settings: Refine, deadline: float
) -> dict[RefineMethod, Method]:
    """Return the methods that the settings name; each gives a new scheme for one, or None where it fails.

    The fp32 model is given twice, as a program and as ONNX; the deadline is on `time.monotonic`'s clock.
    """
    samples = samples.head(settings.samples)
    moments: dict[str, Moments] = {}
    in_onnx = {name for node in fp32.graph.node for name in node.output}

    def exact(ends: Sequence[str]) -> Reader:
        if in_onnx.issuperset(ends):
            return reader(fp32, (), ends)
        return lambda batch: dict(zip(ends, model.run(batch, ends)))

    def by_rounding(scheme: Scheme) -> Scheme:
        # The inputs are the fp32 model's, so that one pass serves every candidate.
        if not moments:
            layers = quantizable_layers(model)
            moments.update(gather(model, layers, reader(fp32, layers), samples.batches(settings.batch_size)))
        return adaround(model, scheme, quantized_layers(model, scheme), moments)

    def training(find_ends: Callable[[Scheme], Sequence[str]]) -> Method:
        def run(scheme: Scheme) -> Scheme | None:
            ends = find_ends(scheme)
            return reconstruct(model, scheme, ends, exact(ends), samples, settings, deadline)

        return run

    every: dict[RefineMethod, Method] = {
        "adaround": by_rounding,
        "layer_wise": training(lambda scheme: layer_ends(model, scheme)),
        "region_wise": training(lambda scheme: region_ends(model, scheme, settings.region_layers)),
    }
    return {name: every[name] for name in settings.methods}


def improve(
    candidate: Candidate,
    scheme: Scheme,
    methods: dict[RefineMethod, Method],
    evaluate: Callable[[Scheme], float],
    deadline: float,
) -> tuple[Scheme, list[Attempt]]:
    """Return the best scheme that the methods lead to, the start included, and every attempt.

    Each method starts from the best so far, and none begins after the deadline, on `time.monotonic`'s clock.
    """
    best, attempts, name = candidate.quality, [], candidate.id
    for method, run in methods.items():
        if time.monotonic() >= deadline:
            log.info("refine: %s: no time left for %s", name, method)
            break
        before, kept = best, False
        quality: float | None = None
        failure: str | None = "nothing to compare, no time left, or a loss that is not finite"
        try:
            if (refined := run(scheme)) is not None:
                quality, failure = evaluate(refined), None
                kept = quality > best
                best, scheme = (quality, refined) if kept else (best, scheme)
        except (EngineFailure, RuntimeError) as error:  # Paddle has no gradient for some operators
            failure = one_line(reason(error))
        outcome = failure or f"quality {quality:.4f}, {'kept' if kept else 'no better, dropped'}"
        log.info("refine: %s: %s from %.4f: %s", name, method, before, outcome)
        attempts.append(
            Attempt(candidate=name, method=method, quality_before=before, quality=quality, kept=kept, failure=failure)
        )
    return scheme, attempts


def as_refined(candidate: Candidate, attempts: Sequence[Attempt], fp32: float) -> Candidate:
    """Return a candidate as it is after some attempts, under a name of its own where one was better; `fp32` is the
    quality of the fp32 model."""
    better = [(attempt.method, attempt.quality) for attempt in attempts if attempt.kept and attempt.quality is not None]
    if not better:
        return candidate
    name, quality = f"{candidate.id}-refined", better[-1][1]
    changed = {"id": name, "scheme": f"schemes/{name}.json", "quality": quality, "drop": fp32 - quality}
    return candidate.model_copy(update={**changed, "refined": [method for method, _ in better]})


def layer_ends(model: InferenceModel, scheme: Scheme) -> list[str]:
    """Return the output of every quantized layer, its bias included."""
    return [
        layer.name if bias_of(model, layer) is None else model.consumers(layer.name)[0].output_arg_names[0]
        for layer in quantized_layers(model, scheme)
    ]


def region_ends(model: InferenceModel, scheme: Scheme, fewest_layers: int) -> list[str]:
    """Return the single tensors at which the model can be cut in two, and its outputs; a softmax counts by its logits.

    Between two of them are at least `fewest_layers` quantized ones.
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
        compared: dict[str, tuple[int, str]] = {}
        for name in ends:
            end = _cut_gradient(student, name)
            target = paddle.static.data(f"teacher_{len(compared)}", [-1] * len(end.shape), "float32")
            losses.append(squared_error(end, target))
            compared[target.name] = 0, name
        return Loss(paddle.add_n(losses), compared)

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
    model: InferenceModel,
    scheme: Scheme,
    ends: Sequence[str],
    exact: Reader,
    samples: Samples,
    settings: Refine,
    deadline: float,
) -> Scheme | None:
    """Train weights and biases of the fp32 model, which is the teacher as well, and return the scheme with them; None
    where there is no end of a region to compare, no time for a single step, or a loss that is not finite.

    A step is made on one of the samples' batches, in parts where the model does not take a whole one at a time.
    `exact` gives what the fp32 model has at the ends of the regions, for a batch.
    """
    if not ends or time.monotonic() > deadline:  # building the program takes seconds
        return None
    layers = quantized_layers(model, scheme)
    biases = [bias for layer in layers if (bias := bias_of(model, layer)) is not None]
    weights = [layer.weight for layer in layers]
    batches = samples.uncapped_groups(settings.batch_size)
    training = build(
        model,
        scheme,
        reconstruction_loss(ends),
        [*weights, *biases],
        TrainConfig(learning_rate=settings.learning_rate, seed=settings.seed),
        settings.steps,
        masks=sparse_masks(model, weights),
        in_parts=any(len(samples.parts(batch)) > 1 for batch in batches),
    )
    rng = np.random.default_rng(settings.seed)
    order = [index for _ in range(-(-settings.steps // len(batches))) for index in rng.permutation(len(batches))]
    with tqdm(order[: settings.steps], desc="reconstruction", unit="step", leave=False) as bar:
        for done, index in enumerate(bar):
            if time.monotonic() > deadline:
                if done == 0:
                    return None
                break
            loss = _step(training, exact, samples, batches[index])
            if not math.isfinite(loss):
                return None
            bar.set_postfix_str(f"loss {loss:.4f}")
    trained = training.weights()
    integers = {
        layer.weight: quantize_weight(trained[layer.weight], scheme.weights[layer.weight], layer.axis)
        for layer in layers
    }
    return replace(scheme, integers=integers, biases={**scheme.biases, **{name: trained[name] for name in biases}})


def _step(training: TrainingProgram, exact: Reader, samples: Samples, batch: Sequence[int]) -> float:
    """Make one step on some of the samples, and return the loss before it."""

    def feeds(indices: Sequence[int]) -> dict[str, Array]:
        part = samples.stack(indices)
        values = exact(part)
        return {**part, **{target: values[end] for target, (_, end) in training.loss.compared.items()}}

    if training.backward is None:
        return training.step(feeds(batch))
    return training.step_in_parts((feeds(part), len(part) / len(batch)) for part in samples.parts(batch))
