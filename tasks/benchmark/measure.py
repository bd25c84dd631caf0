"""Measures all variants side by side: quality first, then latency in rounds that every variant takes part in.

Each variant has an engine process of its own that stays loaded to the end. In each round the variants take their turns
in a new random order on the same samples, so that a slow minute of the machine falls on all of them alike.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act.engines import EngineFailure, EngineProcess, LoadInfo
from act.params import Benchmark, Metric, Target
from act.quality import Quality
from tasks.benchmark.statistics import mean_difference, speedup, summary, unsteadiness
from tasks.benchmark.variants import Candidate, Variant, variants

# Above this share, round medians of a reference that did nothing else differ more than a quiet machine's do.
NOISY = 0.10


@dataclass(frozen=True)
class Data:
    """What is run.

    Attributes:
        samples: folder of the evaluation samples.
        metric: the figure of quality.
        reference: folder of the fp32 model's outputs, for the metric `similarity`.
    """

    samples: Path
    metric: Metric
    reference: Path | None


@dataclass
class Row:
    """One variant and what was measured of it.

    Attributes:
        variant: what.
        failure: why it has no figures, or None.
        info: what the engine told when it had loaded the model.
        quality: on all evaluation samples.
        rounds: seconds of the runs of each round.
        peak_rss_bytes: largest resident memory of its process.
    """

    variant: Variant
    failure: EngineFailure | None = None
    info: LoadInfo | None = None
    quality: Quality | None = None
    rounds: list[list[float]] = field(default_factory=list)
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class _Running:
    """A row and the process that measures it."""

    row: Row
    process: EngineProcess


def measure(
    candidates: Sequence[Candidate], target: Target, settings: Benchmark, data: Data, progress: Callable[[str], None]
) -> list[Row]:
    """Measure every variant of the candidates on every engine of the target.

    Args:
        candidates: what the export stage wrote.
        target: engines, precisions, threads, batch.
        settings: rounds, runs, seed, time limit of each variant.
        data: samples and metric.
        progress: told after each step what was done; there are `steps(...)` of them or a little fewer.

    Returns:
        One row a variant: grouped by engine, fp32 first. A failure is a row as well.
    """
    with ExitStack() as stack:
        # Quality needs no quiet machine, so that it may use all of it; latency is measured afterwards, alone.
        workers = max(1, len(os.sched_getaffinity(0)) // target.threads)
        with ThreadPoolExecutor(workers) as pool:

            def start(variant: Variant) -> _Running:
                path = variant.candidate.files.get(variant.engine, Path())
                process = EngineProcess(
                    variant.engine, path, variant.precision, target.threads, settings.time_limit_seconds
                )
                running = _Running(Row(variant), stack.enter_context(process))
                _prepare(running, target, data)
                progress(f"quality of {variant.engine} {variant.label}")
                return running

            fp32 = next(candidate for candidate in candidates if candidate.precision == "fp32")
            first = list(pool.map(start, [Variant(engine, fp32, "fp32") for engine in target.engines]))
            rest = []
            for running in first:
                offered = running.row.info.precisions if running.row.info is not None else None
                rest += variants(running.row.variant.engine, candidates, target, offered)[1:]
            everything = first + list(pool.map(start, rest))
        everything.sort(key=lambda running: target.engines.index(running.row.variant.engine))
        _time_in_rounds(everything, target, settings, data, progress)
    return [running.row for running in everything]


def steps(engines: int, candidates: int, rounds: int) -> int:
    """About how many steps `measure` will tell: fp32 and bf16, and each further candidate once or twice, and rounds."""
    return engines * (1 + candidates) + rounds


def _prepare(running: _Running, target: Target, data: Data) -> None:
    """Load the model and measure its quality."""
    row, process = running.row, running.process
    if row.variant.engine not in row.variant.candidate.files:
        _fail(running, EngineFailure("error", "the stage `export` wrote no file for this engine"))
        return
    try:
        row.info = process.load()
        row.quality = process.quality(data.samples, data.metric, data.reference, None, target.batch)
    except EngineFailure as failure:
        _fail(running, failure)


def _time_in_rounds(
    everything: Sequence[_Running], target: Target, settings: Benchmark, data: Data, progress: Callable[[str], None]
) -> None:
    for running in everything:
        if running.row.failure is None:
            try:
                running.process.warm_up(data.samples, target.batch)
            except EngineFailure as failure:
                _fail(running, failure)
    order = random.Random(settings.seed)
    for number in range(settings.rounds):
        turn = [running for running in everything if running.row.failure is None]
        order.shuffle(turn)
        for running in turn:
            try:
                seconds = running.process.time(
                    data.samples, target.batch, settings.runs_per_round, number * settings.runs_per_round
                )
                running.row.rounds.append(seconds)
                running.row.peak_rss_bytes = running.process.peak_rss_bytes()
            except EngineFailure as failure:
                _fail(running, failure)
        progress(f"latency, round {number + 1} of {settings.rounds}")


def _fail(running: _Running, failure: EngineFailure) -> None:
    """Write the failure down and free what the process holds."""
    running.row.failure = failure
    running.process.close()


def to_json(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """All rows with their figures, and how quiet the machine was; plain JSON values.

    Speed-up and drop compare with fp32 on the same engine and carry 95 % confidence intervals; they are null where
    that reference failed.
    """
    references = {row.variant.engine: row for row in rows if row.variant.precision == "fp32" and row.failure is None}
    return {
        "noise": _noise(list(references.values())),
        "variants": [_row_to_json(row, references.get(row.variant.engine), seed) for row in rows],
    }


def _row_to_json(row: Row, reference: Row | None, seed: int) -> dict[str, Any]:
    variant = row.variant
    path = variant.candidate.files.get(variant.engine)
    entry: dict[str, Any] = {
        "engine": variant.engine,
        "name": variant.label,
        "candidate": variant.candidate.name,
        "precision": variant.precision,
        "bytes": variant.candidate.bytes.get(variant.engine),
        "path": str(path) if path is not None else None,
        "version": row.info.version if row.info else None,
        "description": row.info.description if row.info else {},
        "load_seconds": row.info.load_seconds if row.info else None,
        "failure": None,
        "latency": None,
        "peak_rss_bytes": None,
        "speedup": None,
        "quality": None,
        "drop": None,
    }
    if row.failure is not None or row.quality is None:
        failure = row.failure or EngineFailure("error", "nothing was measured")
        return {**entry, "failure": {"kind": failure.kind, "cause": failure.cause}}
    seconds = np.array(row.rounds)
    entry["latency"] = summary(seconds)
    entry["peak_rss_bytes"] = row.peak_rss_bytes
    entry["quality"] = {"value": row.quality.value, **row.quality.beside}
    if reference is not None and reference.quality is not None:
        scores = np.array(row.quality.scores)
        entry["speedup"] = speedup(np.array(reference.rounds), seconds, seed).to_json()
        entry["drop"] = mean_difference(np.array(reference.quality.scores), scores, seed).to_json()
    return entry


def _noise(references: Sequence[Row]) -> dict[str, Any]:
    """How much the fp32 references differ from round to round; the median over engines, so that none speaks alone."""
    shares = {row.variant.engine: unsteadiness(np.array(row.rounds)) for row in references}
    share = float(np.median(list(shares.values()))) if shares else 0.0
    return {"noisy": share > NOISY, "unsteadiness": share, "limit": NOISY, "by_engine": shares}
