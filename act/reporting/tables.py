"""The figures for machines: flat metrics for `dvc metrics show`, and tables for `dvc plots show`."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from act.reporting.winner import Choice
from act.timing.rows import Figures


def metrics(choice: Choice) -> dict[str, Any]:
    """The winner's figures, then each variant's as `engine/name/figure`."""
    figures, row = choice.figures, choice.winner
    flat: dict[str, Any] = {
        "winner": row.key,
        "winner_engine": row.engine,
        "winner_precision": row.precision,
        "latency_ms": figures.median_ms,
        "fp32_latency_ms": choice.fp32.median_ms,
        "speedup": figures.speedup.value if figures.speedup else 1.0,
        "quality": figures.quality,
        "fp32_quality": choice.fp32.quality,
        "drop": figures.drop.value if figures.drop else 0.0,
        "bytes": row.bytes,
        **_running(figures),
    }
    for verdict in choice.verdicts:
        measured = verdict.row.figures
        if measured is not None:
            flat[f"{verdict.row.key}/latency_ms"] = measured.median_ms
            flat[f"{verdict.row.key}/quality"] = measured.quality
            flat |= {f"{verdict.row.key}/{name}": value for name, value in _running(measured).items()}
    return flat


def _running(figures: Figures) -> dict[str, Any]:
    """What running the variant takes and gives, beside the time of one inference."""
    running: dict[str, Any] = {
        "p90_ms": figures.p90_ms,
        "first_ms": figures.first_ms,
        "load_seconds": figures.load_seconds,
        "peak_rss_bytes": figures.peak_rss_bytes,
    }
    if figures.throughput is not None and figures.throughput.per_second is not None:
        running["samples_per_second"] = figures.throughput.per_second
    return running


def write_accuracy_latency(path: Path, choice: Choice) -> None:
    """One line a variant that ran."""
    _write(
        path,
        [
            *("engine", "variant", "precision", "latency_ms", "p90_ms", "quality", "speedup", "drop", "inside_budget"),
            *("samples_per_second", "peak_rss_bytes", "bytes"),
        ],
        (
            [
                verdict.row.engine,
                verdict.row.name,
                verdict.row.precision,
                f"{figures.median_ms:.6f}",
                f"{figures.p90_ms:.6f}",
                f"{figures.quality:.6f}",
                f"{figures.speedup.value:.6f}" if figures.speedup else "",
                f"{figures.drop.value:.6f}" if figures.drop else "",
                int(verdict.inside),
                _running(figures).get("samples_per_second", ""),
                figures.peak_rss_bytes,
                verdict.row.bytes,
            ]
            for verdict in choice.verdicts
            if (figures := verdict.row.figures) is not None
        ),
    )


def write_trials(path: Path, trials: Sequence[Mapping[str, Any]], front: Collection[int]) -> None:
    """One line a trial of the PTQ search; a setting that is a list is joined, `front` is 1 on the Pareto front."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.get("settings", {})))
    _write(
        path,
        ["id", *names, "quality", "drop", "cost", "samples", "seconds", "front"],
        (
            [
                trial.get("id"),
                *(plain(trial.get("settings", {}).get(name)) for name in names),
                *(trial.get(name) for name in ("quality", "drop", "cost", "samples", "seconds")),
                int(trial.get("id") in front),
            ]
            for trial in trials
        ),
    )


def write_sensitivity(path: Path, sensitivity: Sequence[Mapping[str, Any]]) -> None:
    """One line a layer, most sensitive first."""
    names = ("layer", "op_type", "error")
    _write(path, names, ([entry.get(name) for name in names] for entry in sensitivity))


def write_training(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """One line a step of the training; only a heading when there was none."""
    _write(
        path,
        ["step", "loss", "quality"],
        ([entry.get(name) for name in ("step", "loss", "quality")] for entry in history),
    )


def write_pruning(path: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """One line a step of the training after pruning, with the strategy; only a heading when there was none."""
    _write(
        path,
        ["strategy", "step", "loss", "quality"],
        (
            [step["name"], *(entry.get(name) for name in ("step", "loss", "quality"))]
            for step in steps
            for entry in step["history"]
        ),
    )


def plain(value: Any) -> Any:
    """A setting as one cell: a list joined, a switch as a word, nothing as an empty cell."""
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
