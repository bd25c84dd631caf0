"""Fills `deploy/<job>`: the quantized model in every documented form, the winner for its engine, report and manifest.

The quantized files are there whoever won: another target may want them. Everything is copied from the export stage's
folder, never rewritten.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from act.artifacts import sha256
from act.engines.spec import spec_of
from act.errors import InputError
from act.reporting.winner import Choice, meets
from act.results.analyze import Analysis
from act.results.benchmark import Measurements, Variant
from act.results.export import BODIES, ExportedCandidates
from act.results.ptq_search import Refinements, Trials
from act.results.report import DeployedFile, DeployedTail, JudgedBudget, Manifest, Report, Winner
from act.results.select import Options, Strategy
from act.results.training import Pruning, Training
from act.settings import Job

_WINNER_FOLDER = "winner"
_WITHOUT_TAIL = "without_tail"
_PADDLE_FILES = ("model.pdmodel", "model.pdiparams")
_INT8_FILES = ("calibration_table.txt", "quant_model.onnx")


def copy_models(exported: Path, candidates: ExportedCandidates, choice: Choice, folder: Path) -> str:
    """Copy the model files from the export stage's folder into `folder`, the winner's into `folder/winner`.

    A winner that is the user's own file is copied from where it was measured. Where a file cannot have the tail, or an
    engine does not run it, the file without is in `folder/without_tail`.

    Returns:
        The name of the candidate whose files stand at the top: the best quantized one, or fp32 when there is none.

    Raises:
        InputError: a file that the export stage should have left is missing.
    """
    winner = choice.winner
    by_name = {candidate.name: candidate for candidate in candidates.candidates}
    name = candidates.deploy or next(each.name for each in candidates.candidates if each.precision == "fp32")
    documented = (*_PADDLE_FILES, *(_INT8_FILES if by_name[name].precision == "int8" else ()))
    sources = {file: exported / name / file for file in documented}
    if by_name[name].bodies:
        for file in [file for file, source in sources.items() if not source.exists()]:
            del sources[file]
            sources[f"{_WITHOUT_TAIL}/{file}"] = exported / BODIES / name / file
        failed = [row.engine for row in choice.variants if row.candidate == name and row.failure is not None]
        for engine in filter(by_name[name].bodies.__contains__, dict.fromkeys(failed)):
            body = exported / by_name[name].bodies[engine]
            files = [body / file for file in _PADDLE_FILES] if body.is_dir() else [body]
            sources |= {f"{_WITHOUT_TAIL}/{file.name}": file for file in files}
    won = Path(winner.path or "") if winner.is_given else exported / by_name[winner.candidate].files[winner.engine]
    if winner.is_given:
        beside = won if won.is_dir() else won.parent
        sources |= {
            f"{_WINNER_FOLDER}/{file.relative_to(beside).as_posix()}": file
            for file in sorted(beside.rglob("*"))
            if file.is_file()
        }
    elif won.suffix == ".onnx":
        sources[f"{_WINNER_FOLDER}/{won.name}"] = won
    else:
        sources |= {f"{_WINNER_FOLDER}/{file}": won / file for file in _PADDLE_FILES}
    for candidate in (by_name["fp32"], by_name[name]):
        others = [each.file for files in candidate.elsewhere.values() for each in files if each.file is not None]
        for file in others:
            parts = Path(file).parts
            place = [_WITHOUT_TAIL, *parts[2:]] if parts[0] == BODIES else parts[1:]
            sources["/".join(place)] = exported / file
    for target, source in sources.items():
        (folder / target).parent.mkdir(exist_ok=True, parents=True)
        try:
            shutil.copyfile(source, folder / target)
        except FileNotFoundError:
            raise InputError(f"{source}: no such file; run the stage `export` again") from None
    return name


def checksums(folder: Path) -> dict[str, DeployedFile]:
    """Return size and SHA-256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): DeployedFile(bytes=path.stat().st_size, sha256=sha256(path).hex())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def gather(
    name: str,
    job: Job,
    artifacts: Path,
    choice: Choice,
    measurements: Measurements,
    exported: ExportedCandidates,
    deployed: str,
    files: Iterable[str],
) -> Report:
    """Read what the stages found below a job's folder of artefacts, and return all that the page tells.

    Args:
        deployed: the candidate at the top of the deploy folder.
        files: in the deploy folder.
    """
    return Report(
        job=name,
        measured_at=measurements.measured_at,
        winner=_winner(choice, job, files),
        why=choice.why,
        compressed=not choice.winner.is_reference,
        budget=JudgedBudget(**job.budget.model_dump(), met=meets(choice.winner, job.budget)),
        deployed_candidate=deployed,
        metric=job.metric,
        settings=job.model_dump(mode="json"),
        machine=measurements.machine,
        noise=measurements.noise,
        variants=choice.variants,
        tail=_tail(exported, deployed, choice),
        left_in_float={each.name: each.left_in_float for each in exported.candidates if each.precision == "int8"},
        search=Trials.read(artifacts / "ptq_search" / "trials.json"),
        refined=Refinements.read(artifacts / "refine" / "refine.json"),
        training=Training.read(artifacts / "qat" / "qat.json"),
        pruning=Pruning.read(artifacts / "prune" / "prune.json"),
        analysis=Analysis.read(artifacts / "analyze" / "analysis.json"),
        strategy=Strategy.read(artifacts / "select" / "strategy.json"),
        options=Options.read(artifacts / "options" / "options.json"),
    )


def manifest_of(report: Report, files: dict[str, DeployedFile]) -> Manifest:
    """Return the manifest, which tells less than the report, and of all deployed files."""
    shared = {name: value for name, value in report if name in Manifest.model_fields}
    return Manifest(**shared, files=files)


def _tail(exported: ExportedCandidates, deployed: str, choice: Choice) -> DeployedTail | None:
    """Tell what became of the tail on each engine; None where the model has none."""
    if exported.tail is None:
        return None
    engines = dict.fromkeys((row.engine for row in choice.variants), "in its file")
    engines |= {
        row.engine: row.failure.cause
        for row in choice.variants
        if row.candidate == deployed and row.failure is not None
    }
    return DeployedTail(operators=exported.tail, engines=engines)


def _winner(choice: Choice, job: Job, files: Iterable[str]) -> Winner:
    row, reference, throughput = choice.winner, choice.reference, choice.winner.throughput
    return Winner(
        engine=row.engine,
        engine_version=row.version,
        name=row.name,
        candidate=row.candidate,
        precision=row.precision,
        files=[file for file in files if file.startswith(f"{_WINNER_FOLDER}/")],
        latency_ms=row.latency.median_ms,
        p90_ms=row.latency.p90_ms,
        samples_per_second=throughput.per_second if throughput else None,
        streams=throughput.streams if throughput else None,
        peak_rss_bytes=row.peak_rss_bytes,
        load_seconds=row.load_seconds,
        reference=reference.key,
        reference_latency_ms=reference.latency.median_ms,
        speedup=row.speedup,
        quality=row.quality.value,
        reference_quality=reference.quality.value,
        drop=row.drop,
        how_to_load=_how_to_load(row, job.target.threads),
    )


def _how_to_load(winner: Variant, threads: int) -> str:
    """Return Python lines that run the winner the way it was measured, from inside the deploy folder."""
    path = Path(winner.path or "")
    file = f"{_WINNER_FOLDER}/{path.name}" if path.suffix else _WINNER_FOLDER
    snippet = spec_of(winner.engine).snippet
    return snippet(file, winner.precision, threads) if snippet is not None else ""
