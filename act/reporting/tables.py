"""The figures for machines: flat metrics for `dvc metrics show`, and tables for `dvc plots show`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from act.reporting.winner import Choice
from act.results.benchmark import RanVariant
from act.results.prune import Pruning
from act.results.ptq_search import Trials, TrialSettings
from act.results.qat import Training
from act.results.report import Metrics


def metrics(choice: Choice) -> Metrics:
    """Return the winner's figures, then each variant's as `engine/name/figure`."""
    winner = choice.winner
    flat: dict[str, Any] = {
        "winner": winner.key,
        "winner_engine": winner.engine,
        "winner_precision": winner.precision,
        "latency_ms": winner.latency.median_ms,
        "fp32_latency_ms": choice.fp32.latency.median_ms,
        "speedup": winner.speedup.value if winner.speedup else 1.0,
        "quality": winner.quality.value,
        "fp32_quality": choice.fp32.quality.value,
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


def write_accuracy_latency(path: Path, choice: Choice) -> None:
    """Write one line a variant that ran."""
    heading = ["engine", "variant", "precision", "latency_ms", "p90_ms", "quality", "speedup", "drop", "inside_budget"]
    heading += ["samples_per_second", "peak_rss_bytes", "bytes"]
    _write(
        path,
        heading,
        (
            [
                row.engine,
                row.name,
                row.precision,
                f"{row.latency.median_ms:.6f}",
                f"{row.latency.p90_ms:.6f}",
                f"{row.quality.value:.6f}",
                f"{row.speedup.value:.6f}" if row.speedup else "",
                f"{row.drop.value:.6f}" if row.drop else "",
                int(verdict.inside),
                _running(row).get("samples_per_second", ""),
                row.peak_rss_bytes,
                row.bytes,
            ]
            for verdict in choice.verdicts
            if isinstance(row := verdict.row, RanVariant)
        ),
    )


def write_trials(path: Path, search: Trials) -> None:
    """Write one line a trial of the search; a setting that is a list is joined, `front` is 1 on the Pareto front."""
    names = list(TrialSettings.model_fields) if search.trials else []
    _write(
        path,
        ["id", *names, "quality", "drop", "cost", "samples", "seconds", "front"],
        (
            [
                trial.id,
                *(plain(getattr(trial.settings, name)) for name in names),
                *(trial.quality, trial.drop, trial.cost, trial.samples, trial.seconds),
                int(trial.id in search.front),
            ]
            for trial in search.trials
        ),
    )


def write_sensitivity(path: Path, search: Trials) -> None:
    """Write one line a layer, most sensitive first."""
    lines = ([layer.layer, layer.op_type, layer.error] for layer in search.sensitivity)
    _write(path, ["layer", "op_type", "error"], lines)


def write_training(path: Path, training: Training) -> None:
    """Write one line a step of the training; only a heading when there was none."""
    _write(path, ["step", "loss", "quality"], ([each.step, each.loss, each.quality] for each in training.history))


def write_pruning(path: Path, pruning: Pruning) -> None:
    """Write one line a step of the training after pruning, with the strategy; only a heading when there was none."""
    lines = ([step.name, each.step, each.loss, each.quality] for step in pruning.steps for each in step.history)
    _write(path, ["strategy", "step", "loss", "quality"], lines)


def plain(value: Any) -> Any:
    """Return a setting as one cell: a list joined, a switch as a word, nothing as an empty cell."""
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else value


def _write(path: Path, heading: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows(lines)
