"""`python -m tasks.benchmark --job NAME`: latency and quality of every variant, measured on its own engine.

Reads the candidates of `export` and the samples of `prepare`. Writes

- `measurements.json`: one row a variant, with spreads and confidence intervals, failures and causes, the machine;
- `latencies.csv`: every single run; `scores.csv`: the score of every sample, so that nothing need be taken on trust.

The budget is not read here: changing it selects anew (`tasks.report`) and measures nothing.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from act import machine
from act.artifacts import replace_folder, stage_folder, write_csv
from act.metrics import needs_reference
from act.results.benchmark import FailedVariant, Measurements, RanVariant
from act.results.export import ExportedCandidates
from act.results.machine import Machine
from act.results.prepare import EXPECTED_AS_GIVEN, Preparation
from act.results.tail import TAIL_FILE, TailDescription
from act.settings import Job
from act.timing.benchmark import Given, Row, measure, to_results
from act.timing.side_by_side import progress_bar
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and run the stage."""
    with (
        job_from_command_line("tasks.benchmark", "Measure one job's candidates on its engines.") as (name, job),
        replace_folder(stage_folder(name, "benchmark")) as folder,
    ):
        _benchmark(name, job, folder)


def _benchmark(name: str, job: Job, folder: Path) -> None:
    prepared, exported = stage_folder(name, "prepare"), stage_folder(name, "export")
    candidates = ExportedCandidates.read(exported / "candidates.json").candidates
    reference = prepared / "reference" if needs_reference(job.metric) else None
    preparation = Preparation.read(prepared / "prepare.json")
    given = Given(
        prepared / preparation.given,
        preparation.given_format,
        prepared / "expected",
        preparation.rounded > 0,
        *_ahead(prepared),
        prepared / EXPECTED_AS_GIVEN,
    )
    steps = len(job.target.engines) * (2 + len(candidates)) + job.benchmark.rounds
    with progress_bar("benchmark", steps) as progress:
        rows, noise = measure(candidates, exported, job, prepared / "evaluation", reference, progress, given)
    variants = to_results(rows, job.target.threads, job.benchmark)
    Measurements(
        job=name,
        metric=job.metric,
        target=job.target.model_dump(),
        benchmark=job.benchmark.model_dump(),
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        evaluation_samples=max((len(row.quality) for row in rows if row.quality), default=0),
        machine=Machine.model_validate(machine.describe()),
        noise=noise,
        variants=variants,
    ).write(folder / "measurements.json")
    write_csv(folder / "latencies.csv", _latencies(rows))
    write_csv(folder / "scores.csv", _scores(rows))
    for variant in variants:
        log.info(_line(variant))
    if noise.noisy:
        log.info(f"benchmark: the machine was noisy: {noise.cause}; measure again before trusting small differences")


def _ahead(prepared: Path) -> tuple[Path | None, Sequence[int]]:
    """Return the given model without its tail, and which outputs have no batch axis; None where it has none."""
    file = prepared / "tail" / TAIL_FILE
    if not file.exists():
        return None, ()
    tail = TailDescription.read(file)
    return file.parent / tail.given, tail.whole


def _line(variant: RanVariant | FailedVariant) -> str:
    start = f"benchmark: {variant.engine:16} {variant.name:20}"
    if isinstance(variant, FailedVariant):
        return f"{start} {variant.failure.kind}: {variant.failure.cause}"
    speedup = f"{variant.speedup.value:.2f} times the reference" if variant.speedup else "nothing to compare with"
    return f"{start} {variant.latency.median_ms:8.3f} ms  quality {variant.quality.value:.4f}  {speedup}"


def _latencies(rows: Sequence[Row]) -> Iterator[Sequence[object]]:
    yield ["engine", "variant", "inputs", "round", "run", "milliseconds"]
    for row in rows:
        for timed in row.measured.timed:
            inputs = " ".join("x".join(map(str, shape)) for shape in timed.inputs.values())
            for number, seconds in enumerate(timed.rounds):
                start = [row.variant.engine, row.variant.name, inputs, number]
                yield from ([*start, run, f"{1000 * taken:.6f}"] for run, taken in enumerate(seconds))


def _scores(rows: Sequence[Row]) -> Iterator[Sequence[object]]:
    columns = {
        row.variant.key: row.quality.scores for row in rows if row.measured.failure is None and row.quality is not None
    }
    yield ["sample", *columns]
    yield from ([index, *(f"{score:.6g}" for score in scores)] for index, scores in enumerate(zip(*columns.values())))


if __name__ == "__main__":
    main()
