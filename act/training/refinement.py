"""Refinement: candidates of the search with values rounded or trained anew, where that raises their quality."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import onnx

from act.engines.process import EngineFailure, one_line
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel, reason
from act.quantization.activations import reader
from act.quantization.rounding import Moments, adaround, gather
from act.quantization.scheme import Scheme, quantized_layers
from act.results.ptq_search import Candidate
from act.results.refine import Attempt
from act.samples.dataset import Samples
from act.settings import Refine, RefineMethod
from act.training.reconstruction import layer_ends, reconstruct, region_ends

log = logging.getLogger(__name__)

SUFFIX = "-refined"

Method = Callable[[Scheme], Scheme | None]


def worth_refining(candidates: Sequence[Candidate], most: int) -> list[str]:
    """Return the candidates to refine: the best, the best without zero points, the next ones, if they lose quality."""
    ranked = sorted(candidates, key=lambda candidate: candidate.drop)
    symmetric = [candidate for candidate in ranked if candidate.symmetric]
    order = [candidate for candidate in [*ranked[:1], *symmetric[:1], *ranked[1:]] if candidate.drop > 0]
    return list(dict.fromkeys(candidate.id for candidate in order))[:most]


def methods_for(
    model: InferenceModel, fp32: onnx.ModelProto, samples: Samples, settings: Refine, deadline: float
) -> dict[RefineMethod, Method]:
    """Return the methods that the settings name; each gives a new scheme for one, or None where it fails.

    Args:
        model: the fp32 model; `fp32` is the same as ONNX.
        deadline: on `time.monotonic`'s clock.
    """
    samples = samples.head(settings.samples)
    moments: dict[str, Moments] = {}

    def by_rounding(scheme: Scheme) -> Scheme:
        # The inputs are the fp32 model's, so that one pass serves every candidate.
        if not moments:
            layers = quantizable_layers(model)
            moments.update(gather(model, layers, reader(fp32, layers), samples.batches(settings.batch_size)))
        return adaround(model, scheme, quantized_layers(model, scheme), moments)

    def by_layer(scheme: Scheme) -> Scheme | None:
        return reconstruct(model, scheme, layer_ends(model, scheme), samples, settings, deadline)

    def by_region(scheme: Scheme) -> Scheme | None:
        ends = region_ends(model, scheme, settings.region_layers)
        return reconstruct(model, scheme, ends, samples, settings, deadline)

    every: dict[RefineMethod, Method] = {"adaround": by_rounding, "layer_wise": by_layer, "region_wise": by_region}
    return {name: every[name] for name in settings.methods}


def improve(
    candidate: Candidate,
    scheme: Scheme,
    methods: dict[RefineMethod, Method],
    evaluate: Callable[[Scheme], float],
    deadline: float,
) -> tuple[Scheme, list[Attempt]]:
    """Return the best scheme that the methods lead to, the start included, and every attempt.

    Args:
        methods: each starts from the best so far.
        evaluate: gives the quality of a scheme, higher is better.
        deadline: on `time.monotonic`'s clock; no method begins after it.
    """
    best, attempts = candidate.quality, []
    for method, run in methods.items():
        if time.monotonic() >= deadline:
            log.info("refine: %s: no time left for %s", candidate.id, method)
            break
        refined, quality, failure = None, None, None
        try:
            refined = run(scheme)
            if refined is None:
                failure = "nothing to compare, no time left, or a loss that is not finite"
            else:
                quality = evaluate(refined)
        except (EngineFailure, RuntimeError) as error:  # Paddle has no gradient for some operators
            failure = one_line(reason(error))
        better = quality is not None and quality > best
        attempt = Attempt(
            candidate=candidate.id, method=method, quality_before=best, quality=quality, kept=better, failure=failure
        )
        attempts.append(attempt)
        outcome = failure or f"quality {quality:.4f}, {'kept' if better else 'no better, dropped'}"
        log.info("refine: %s: %s from %.4f: %s", candidate.id, method, best, outcome)
        if refined is not None and quality is not None and better:
            best, scheme = quality, refined
    return scheme, attempts


def as_refined(candidate: Candidate, attempts: Sequence[Attempt], fp32: float) -> Candidate:
    """Return a candidate as it is after some attempts, under a name of its own where one was better.

    Args:
        fp32: the fp32 model's quality.
    """
    better = [(attempt.method, attempt.quality) for attempt in attempts if attempt.kept and attempt.quality is not None]
    if not better:
        return candidate
    identity, quality = candidate.id + SUFFIX, better[-1][1]
    changed = {"id": identity, "scheme": f"schemes/{identity}.json", "quality": quality, "drop": fp32 - quality}
    return candidate.model_copy(update={**changed, "refined": [method for method, _ in better]})
