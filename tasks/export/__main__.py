"""`python -m tasks.export --job NAME`: write every candidate in the forms that the engines load, and check each.

Reads the models of `prepare` and `prune`, what `select` says each engine computes wrongly in int8, the candidates of
`refine` that `plan` keeps, and the trained model of `qat` where there is one. Writes a folder for fp32, for a pruned
model in fp32, for each int8 candidate and, of transformers, for int8 with scales of each run, and `candidates.json`,
which names their files for each engine, sizes and checks. A tail that `prepare` cut off is put back in them; the same
files without it are in `bodies/`.
"""

from __future__ import annotations

import logging
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from act.artifacts import replace_folder, stage_folder
from act.results.export import BODIES, ExportedCandidate, ExportedCandidates
from act.results.ptq_search import Candidates, Plan
from act.results.quantization import Ranges
from act.results.select import Strategy
from act.results.training import Pruning, Training
from act.settings import Target
from tasks.stage import job_from_command_line

if TYPE_CHECKING:
    from act.engines.process import Int8Engines
    from act.program.model import InferenceModel
    from act.quantization.ranges import Range
    from act.quantization.scheme import Scheme

REFERENCE, PRUNED, DYNAMIC, WEIGHTS = "fp32", "pruned", "int8-dynamic", "int8-weights"
_MODELS = 2  # whose conversion to ONNX is kept: candidates are made of few
log = logging.getLogger(__name__)


def main() -> None:
    with (
        job_from_command_line("tasks.export", "Write the artefacts of one job.") as (name, job),
        replace_folder(stage_folder(name, "export")) as folder,
    ):
        from act.engines.process import Int8Engines

        with Int8Engines() as engines:
            _export(name, job.target, folder, engines)


def _export(job: str, target: Target, folder: Path, engines: Int8Engines) -> None:
    from act.engines.check import Checker
    from act.engines.with_tail import put_back
    from act.engines.writer import Alternatives, Export, export_dynamic, export_weights
    from act.onnx_graph.conversion import to_onnx
    from act.program.model import InferenceModel
    from act.quantization.calibration import calibrated_model
    from act.quantization.scheme import AS_GIVEN, BY_SEARCH, Scheme
    from act.samples.dataset import Samples
    from act.tail.files import SavedTail

    prepared, calibrated, searched, trained = (
        stage_folder(job, stage) for stage in ("prepare", "calibrate", "refine", "qat")
    )
    checker = Checker(Samples.load(prepared / "calibration"), engines.outputs)
    alternatives, none = Alternatives(partial(_read_ranges, calibrated)), Alternatives()
    convert = lru_cache(maxsize=_MODELS)(to_onnx)
    tail = SavedTail.read(prepared / "tail") if (prepared / "tail").exists() else None
    bodies = folder if tail is None else folder / BODIES
    bodies.mkdir(exist_ok=True)
    candidates: list[ExportedCandidate] = []
    in_float = Strategy.read(stage_folder(job, "select") / "strategy.json").in_float

    def add(name: str, model: InferenceModel, scheme: Scheme | None, is_given: bool = False) -> None:
        # What the user's own model rounds over is not to be chosen anew.
        ranges, why = (none, AS_GIVEN) if is_given else (alternatives, BY_SEARCH)
        place, on = bodies / name, target.engines
        take(Export(name, model, scheme, place, checker, on, in_float, ranges, why, convert).write())

    def take(written: ExportedCandidate) -> None:
        candidates.append(written if tail is None else put_back(tail, written, folder))
        _tell(candidates[-1])

    model = InferenceModel.load(prepared / "model")
    add(REFERENCE, model, None)
    is_pruned = Pruning.read(stage_folder(job, "prune") / "prune.json").pruned
    if is_pruned:
        model = InferenceModel.load(stage_folder(job, "prune") / "model")
        add(PRUNED, model, None)
    search = Candidates.read(searched / "candidates.json")
    further = {
        DYNAMIC: (export_dynamic, search.reference is not None and "int8" in target.precisions),
        WEIGHTS: (export_weights, "int8_weights" in target.precisions),
    }
    for name, (export, asked) in further.items():
        if asked and (written := export(name, model, bodies / name, checker, target.engines, convert)) is not None:
            take(written)
    keep = Plan.read(stage_folder(job, "plan") / "plan.json").keep
    found = [each for each in search.candidates if each.id in keep]
    if found:
        load = cache(partial(calibrated_model, calibrated))
        for candidate in found:
            model, scheme = load(candidate.smooth_strength), Scheme.read(searched / candidate.scheme)
            add(candidate.id, model, scheme, candidate.is_given)
    rank = {each.id: (each.symmetric, each.quality) for each in found}
    training = Training.read(trained / "qat.json")
    if training.candidate is not None:
        scheme = Scheme.read(trained / "scheme.json")
        add(training.candidate, InferenceModel.load(trained / "model"), scheme)
        rank[training.candidate] = (scheme.symmetric, training.quality_after or 0.0)
    # Paddle's int8 kernels and calibration tables know no zero point, so a symmetric candidate is what others can use.
    deploy = max(rank, key=lambda name: rank[name], default=PRUNED if is_pruned else None)
    operators = tail.description.operators if tail is not None else None
    ExportedCandidates(candidates=candidates, deploy=deploy, tail=operators).write(folder / "candidates.json")


def _read_ranges(calibrated: Path) -> dict[str, dict[str, Range]]:
    from act.quantization.ranges import Range

    rules = Ranges.read(calibrated / "ranges.json").rules
    return {label: {name: Range(low, high) for name, (low, high) in spans.items()} for label, spans in rules.items()}


def _tell(candidate: ExportedCandidate) -> None:
    from act.engines.spec import title_of

    sizes = ", ".join(f"{engine} {size / 1e6:.2f} MB" for engine, size in candidate.bytes.items())
    checks = ", ".join(f"{name} {value:.4f}" for name, value in candidate.check.items())
    log.info(f"export: {candidate.name}: {sizes}; check: {checks}")
    for engine, files in candidate.elsewhere.items():
        for file in files:
            size = file.failure or f"{file.bytes / 1e6:.2f} MB"
            log.info(f"export: {candidate.name}: {title_of(engine)} for {file.kind}: {size}")


if __name__ == "__main__":
    main()
