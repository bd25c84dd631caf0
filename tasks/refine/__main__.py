"""`python -m tasks.refine --job NAME`: refine the best candidates of the search, and keep what is better.

Reads the model and samples of `prepare`, the latencies of `analyze` and the candidates of `ptq_search`. Only candidates
that lose more quality than `refine.least_drop` and could still win are refined, the best first, the best without zero
points among them. Each method starts from the
best so far, and what it gives is measured on all evaluation samples by the engine that measured the search. Writes

- `candidates.json`: as in `ptq_search`, a refined candidate in the place of its start;
- `refine.json`: every attempt, with the quality before and after;
- `schemes/ID.json`: the quantization scheme of each candidate.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from act.artifacts import replace_folder, stage_folder
from act.engines.spec import spec_of
from act.results.analyze import Analysis, Baseline
from act.results.ptq_search import Attempt, Candidates, Refinements
from act.settings import Job, Refine, RefineMethod
from act.strategy.candidates import worth_refining
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)

CLEARLY_SLOWER = 1.5
"""Times the latency of another engine, beyond which no moment's noise makes an engine the faster one."""


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.refine", "Refine one job's best PTQ candidates.") as (name, job):
        searched = stage_folder(name, "ptq_search")
        found = Candidates.read(searched / "candidates.json")
        with replace_folder(stage_folder(name, "refine")) as folder:
            shutil.copytree(searched / "schemes", folder / "schemes")
            attempts: list[Attempt] = []
            chosen: list[str] = []
            if job.refine.methods:
                own = Analysis.read(stage_folder(name, "analyze") / "analysis.json").own
                limits = job.refine.candidates, job.refine.least_drop
                chosen = worth_refining(found.candidates, *limits, is_symmetry_of_use(own))
            if chosen:
                found, attempts = _refine(name, job, found, chosen, folder)
            else:
                log.info("refine: nothing to do: %s", _why_not(job.refine, found))
            found.write(folder / "candidates.json")
            Refinements(attempts=attempts).write(folder / "refine.json")


def is_symmetry_of_use(own: Mapping[str, Mapping[str, Baseline]]) -> bool:
    """Tell whether an engine that knows no zero points could be the fastest in int8, by what engines measured of the
    model: ranges do not change how long int8 takes."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for engine, rows in own.items():
        if "int8" in rows and (measured := rows["int8"].seconds) is not None:
            seconds[spec_of(engine).zero_points].append(measured)
    return min(seconds[False], default=math.inf) < CLEARLY_SLOWER * min(seconds[True], default=math.inf)


def _why_not(settings: Refine, found: Candidates) -> str:
    if not settings.methods or settings.candidates == 0:
        return "not asked for"
    losing = [candidate.id for candidate in found.candidates if candidate.drop > settings.least_drop]
    if not losing:
        return f"no candidate loses more quality than {settings.least_drop:g}"
    others = f"others lose no more than {settings.least_drop:g} and are as fast"
    return f"nothing can be won by {', '.join(losing)}: {others}"


def _refine(
    name: str, job: Job, found: Candidates, chosen: Sequence[str], folder: Path
) -> tuple[Candidates, list[Attempt]]:
    """Return all candidates, refined ones in the place of their starts, and every attempt."""
    # Paddle takes seconds to import, and a skipped stage needs none of it.
    from act.engines.evaluation import Evaluation
    from act.onnx_graph.conversion import to_onnx
    from act.quantization.calibration import calibrated_model
    from act.quantization.scheme import Scheme
    from act.samples.dataset import Samples
    from act.training.refinement import Method, as_refined, improve, methods_for

    assert found.reference is not None
    prepared = stage_folder(name, "prepare")
    evaluation = Evaluation.of(job, prepared, found.reference.engine)
    samples = Samples.load(prepared / "calibration")
    deadline = time.monotonic() + 60 * job.refine.time_limit_minutes

    @cache
    def for_strength(strength: float | None) -> tuple[dict[RefineMethod, Method], Callable[[Scheme], float]]:
        model = calibrated_model(stage_folder(name, "calibrate"), strength)
        fp32 = to_onnx(model)
        methods = methods_for(model, fp32, samples, job.refine, deadline)
        return methods, lambda scheme: evaluation.quality(model, scheme, fp32).value

    candidates, attempts = [], []
    for candidate in found.candidates:
        if candidate.id in chosen and time.monotonic() < deadline:
            scheme = Scheme.read(folder / candidate.scheme)
            methods, quality = for_strength(candidate.smooth_strength)
            scheme, tried = improve(candidate, scheme, methods, quality, deadline)
            attempts += tried
            candidate = as_refined(candidate, tried, found.reference.quality)
            scheme.write(folder / candidate.scheme)
        candidates.append(candidate)
    ranked = sorted(candidates, key=lambda candidate: -candidate.quality)
    return found.model_copy(update={"candidates": ranked}), attempts


if __name__ == "__main__":
    main()
