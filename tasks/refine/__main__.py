"""`python -m tasks.refine --job NAME`: refine the best candidates of the search, and keep what is better.

Reads the model and samples of `prepare` and the candidates of `ptq_search`. Only candidates that lose quality are
refined, the best first, the best without zero points among them. Each method starts from the best so far, and what it
gives is measured on all evaluation samples by the engine that measured the search. Writes

- `candidates.json`: as in `ptq_search`, a refined candidate in the place of its start;
- `refine.json`: every attempt, with the quality before and after;
- `schemes/ID.json`: the quantization scheme of each candidate.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.results.ptq_search import Candidate, Candidates
from act.results.refine import Attempt, Refinements
from act.settings import Job, RefineMethod
from act.settings import Refine as Settings
from tasks.stage import job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and a skipped stage needs none of it
    from act.program.model import InferenceModel
    from act.quantization.scheme import Scheme

    Method = Callable[[InferenceModel, Scheme], Scheme | None]

SUFFIX = "-refined"


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.refine", "Refine one job's best PTQ candidates.") as (name, job):
        searched = stage_folder(name, "ptq_search")
        found = Candidates.read(searched / "candidates.json")
        chosen = worth_refining(found.candidates, job.refine.candidates) if job.refine.methods else []
        with replace_folder(stage_folder(name, "refine")) as folder:
            shutil.copytree(searched / "schemes", folder / "schemes")
            attempts: list[Attempt] = []
            if chosen:
                found, attempts = _refine(name, job, found, chosen, folder)
            else:
                print("refine: nothing to do: no candidate loses quality")
            found.write(folder / "candidates.json")
            Refinements(attempts=attempts).write(folder / "refine.json")


def worth_refining(candidates: Sequence[Candidate], most: int) -> list[str]:
    """The candidates to refine: the best one, the best without zero points, and the next ones, if they lose quality.

    Args:
        most: how many.
    """
    ranked = sorted(candidates, key=lambda candidate: candidate.drop)
    symmetric = [candidate for candidate in ranked if candidate.symmetric]
    wanted = [candidate for candidate in [*ranked[:1], *symmetric[:1], *ranked[1:]] if candidate.drop > 0]
    return list(dict.fromkeys(candidate.id for candidate in wanted))[:most]


def _refine(
    name: str, job: Job, found: Candidates, chosen: Sequence[str], folder: Path
) -> tuple[Candidates, list[Attempt]]:
    """All candidates, refined ones in the place of their starts, and every attempt."""
    from act.engines.evaluation import Evaluation
    from act.onnx_graph.conversion import to_onnx
    from act.program.model import InferenceModel
    from act.quantization.scheme import Scheme

    prepared = stage_folder(name, "prepare")
    evaluation = Evaluation.of(job, prepared)
    model = InferenceModel.load(stage_folder(name, "calibrate") / "model")
    fp32_onnx = to_onnx(model)
    deadline = time.monotonic() + 60 * job.refine.time_limit_minutes
    methods = _methods(prepared, job.refine, model, fp32_onnx, deadline)
    candidates, attempts = [], []
    assert found.reference is not None
    for candidate in found.candidates:
        if candidate.id in chosen and time.monotonic() < deadline:
            scheme = Scheme.from_json(read_json(folder / candidate.scheme))
            scheme, tried = improve(
                candidate,
                scheme,
                {method: partial(methods[method], model) for method in job.refine.methods},
                lambda refined: evaluation.quality(model, refined, fp32_onnx).value,
                deadline,
            )
            attempts += tried
            candidate = _renamed(candidate, tried, found.reference.quality)
            write_json(folder / candidate.scheme, scheme.to_json())
        candidates.append(candidate)
    ranked = sorted(candidates, key=lambda candidate: -candidate.quality)
    return found.model_copy(update={"candidates": ranked}), attempts


def improve(
    candidate: Candidate,
    scheme: Scheme,
    methods: dict[RefineMethod, Callable[[Scheme], Scheme | None]],
    evaluate: Callable[[Scheme], float],
    deadline: float,
) -> tuple[Scheme, list[Attempt]]:
    """The best scheme that the methods lead to, the start included, and every attempt.

    Args:
        scheme: the start.
        methods: each gives a new scheme from the best so far, or None where it fails.
        evaluate: gives the quality of a scheme, higher is better.
        deadline: on `time.monotonic`'s clock; no method begins after it.
    """
    from act.engines.process import EngineFailure, one_line
    from act.program.model import reason

    best, attempts = candidate.quality, []
    for method, run in methods.items():
        if time.monotonic() >= deadline:
            print(f"refine: {candidate.id}: no time left for {method}")
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
        kept = quality is not None and quality > best
        attempts.append(
            Attempt(
                candidate=candidate.id,
                method=method,
                quality_before=best,
                quality=quality,
                kept=kept,
                failure=failure,
            )
        )
        outcome = failure or f"quality {quality:.4f}, {'kept' if kept else 'no better, dropped'}"
        print(f"refine: {candidate.id}: {method} from {best:.4f}: {outcome}")
        if refined is not None and quality is not None and kept:
            best, scheme = quality, refined
    return scheme, attempts


def _renamed(candidate: Candidate, attempts: Sequence[Attempt], reference: float) -> Candidate:
    """The candidate as it is now, under a name of its own where something was better."""
    kept = [(attempt.method, attempt.quality) for attempt in attempts if attempt.kept and attempt.quality is not None]
    if not kept:
        return candidate
    identity, quality = candidate.id + SUFFIX, kept[-1][1]
    return candidate.model_copy(
        update={
            "id": identity,
            "scheme": f"schemes/{identity}.json",
            "quality": quality,
            "drop": reference - quality,
            "refined": [method for method, _ in kept],
        }
    )


def _methods(
    prepared: Path, settings: Settings, model: InferenceModel, fp32_onnx: Any, deadline: float
) -> dict[RefineMethod, Method]:
    from act.program.layers import Layer, quantizable_layers
    from act.quantization.activations import reader
    from act.quantization.moments import Moments, gather
    from act.quantization.rounding import adaround
    from act.samples.dataset import Samples
    from act.training.reconstruction import layer_ends, reconstruct, region_ends

    samples = Samples.load(prepared / "calibration").head(settings.samples)
    layers = quantizable_layers(model)
    known: dict[str, Moments] = {}

    def chosen(scheme: Scheme) -> list[Layer]:
        return [layer for layer in layers if layer.name in scheme.layers]

    def by_rounding(model: InferenceModel, scheme: Scheme) -> Scheme:
        # The inputs are the fp32 model's, so that one pass serves every candidate.
        if not known:
            known.update(gather(model, layers, reader(fp32_onnx, layers), samples.batches(settings.batch_size)))
        return adaround(model, scheme, chosen(scheme), known)

    def by_layer(model: InferenceModel, scheme: Scheme) -> Scheme | None:
        return reconstruct(model, scheme, layer_ends(model, scheme), samples, settings, deadline)

    def by_region(model: InferenceModel, scheme: Scheme) -> Scheme | None:
        ends = region_ends(model, scheme, settings.region_layers)
        return reconstruct(model, scheme, ends, samples, settings, deadline)

    return {"adaround": by_rounding, "layer_wise": by_layer, "region_wise": by_region}


if __name__ == "__main__":
    main()
