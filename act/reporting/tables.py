"""The figures for machines: flat metrics for `dvc metrics show`, and tables for `dvc plots show`."""

from pathlib import Path
from typing import Any

from act.artifacts import write_csv
from act.reporting.winner import Choice
from act.reporting.wording import plain
from act.results.benchmark import RanVariant
from act.results.ptq_search import TrialSettings
from act.results.report import JudgedVariant, Metrics, Report

_VARIANT_COLUMNS = (
    *("engine", "variant", "precision", "latency_ms", "p90_ms", "quality", "speedup", "drop"),
    *("inside_budget", "samples_per_second", "peak_rss_bytes", "bytes"),
)


def write_tables(folder: Path, choice: Choice, report: Report) -> None:
    """Write `metrics.json`, and a table of the variants that ran, and of what search, training and pruning left.

    In `trials.csv` a setting that is a list is joined, and `front` is 1 on the Pareto front. A table of nothing has
    its heading.
    """
    _metrics(choice).write(folder / "metrics.json")
    search, steps = report.search, report.pruning.steps
    names = list(TrialSettings.model_fields) if search.trials else []
    trials = (
        [
            trial.id,
            *(plain(getattr(trial.settings, name)) for name in names),
            *(trial.quality, trial.drop, trial.cost, trial.samples, trial.seconds),
            int(trial.id in search.front),
        ]
        for trial in search.trials
    )
    layers = ([layer.layer, layer.op_type, layer.error] for layer in search.sensitivity)
    training = ([each.step, each.loss, each.quality] for each in report.training.history)
    pruning = ([step.name, each.step, each.loss, each.quality] for step in steps for each in step.history)
    heading = ["id", *names, "quality", "drop", "cost", "samples", "seconds", "front"]
    write_csv(folder / "accuracy_latency.csv", [_VARIANT_COLUMNS, *map(_variant, choice.ran)])
    write_csv(folder / "trials.csv", [heading, *trials])
    write_csv(folder / "sensitivity.csv", [["layer", "op_type", "error"], *layers])
    write_csv(folder / "training.csv", [["step", "loss", "quality"], *training])
    write_csv(folder / "pruning.csv", [["strategy", "step", "loss", "quality"], *pruning])


def _metrics(choice: Choice) -> Metrics:
    winner = choice.winner
    flat: dict[str, Any] = {
        "winner": winner.key,
        "winner_engine": winner.engine,
        "winner_precision": winner.precision,
        "latency_ms": winner.latency.median_ms,
        "reference_latency_ms": choice.reference.latency.median_ms,
        "speedup": winner.speedup.value if winner.speedup else 1.0,
        "quality": winner.quality.value,
        "reference_quality": choice.reference.quality.value,
        "drop": winner.drop.value if winner.drop else 0.0,
        "bytes": winner.bytes,
        **_running(winner),
    }
    for row in choice.ran:
        figures = {"latency_ms": row.latency.median_ms, "quality": row.quality.value, **_running(row)}
        flat |= {f"{row.key}/{name}": value for name, value in figures.items()}
    return Metrics(**flat)


def _running(row: RanVariant) -> dict[str, Any]:
    """Return what running the variant takes and gives, beside the time of one inference."""
    running: dict[str, Any] = {
        "p90_ms": row.latency.p90_ms,
        "first_ms": row.warm_up.first_ms,
        "load_seconds": row.load_seconds,
        "peak_rss_bytes": row.peak_rss_bytes,
    }
    if row.throughput is not None and row.throughput.per_second is not None:
        running["samples_per_second"] = row.throughput.per_second
    return running


def _variant(row: JudgedVariant) -> list[Any]:
    return [
        *(row.engine, row.name, row.precision),
        *(f"{figure:.6f}" for figure in (row.latency.median_ms, row.latency.p90_ms, row.quality.value)),
        *(f"{interval.value:.6f}" if interval else "" for interval in (row.speedup, row.drop)),
        *(int(row.inside_budget), _running(row).get("samples_per_second", ""), row.peak_rss_bytes, row.bytes),
    ]
