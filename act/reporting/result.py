"""The report as data: what the stages found, the winner, and what the budget says of each variant."""

from collections.abc import Iterable
from pathlib import Path

from act.reporting.deploy import WINNER_FOLDER, how_to_load
from act.reporting.winner import Choice, meets
from act.results.analyze import Analysis
from act.results.benchmark import Measurements
from act.results.export import ExportedCandidates
from act.results.ptq_search import Refinements, Trials
from act.results.report import DeployedFile, JudgedBudget, Manifest, Report, Winner
from act.results.select import Options, Strategy
from act.results.training import Pruning, Training
from act.settings import Job


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


def _winner(choice: Choice, job: Job, files: Iterable[str]) -> Winner:
    row, fp32, throughput = choice.winner, choice.fp32, choice.winner.throughput
    return Winner(
        engine=row.engine,
        engine_version=row.version,
        name=row.name,
        candidate=row.candidate,
        precision=row.precision,
        files=[file for file in files if file.startswith(f"{WINNER_FOLDER}/")],
        latency_ms=row.latency.median_ms,
        p90_ms=row.latency.p90_ms,
        samples_per_second=throughput.per_second if throughput else None,
        streams=throughput.streams if throughput else None,
        peak_rss_bytes=row.peak_rss_bytes,
        load_seconds=row.load_seconds,
        fp32_latency_ms=fp32.latency.median_ms,
        speedup=row.speedup,
        quality=row.quality.value,
        fp32_quality=fp32.quality.value,
        drop=row.drop,
        how_to_load=how_to_load(row, job.target.threads),
    )
