"""What the pipeline ships of a model, beside the given file and what other quantizers make of it.

All stages run as for a user. Of each engine the fastest model inside the budget is taken, in whatever precision, and
timed in one run with the given file, `onnxruntime.quantization.quantize_static` on ONNX Runtime and NNCF on OpenVINO
(`make peers`), all from the same calibration samples; each is judged by the task's metric on all evaluation samples.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx

from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.metrics import Choice, Quality
from act.results.benchmark import GIVEN, Interval
from act.samples.dataset import Array, Samples
from act.settings import EngineName
from act.timing.rounds import TimedModel, time_in_rounds
from act.timing.statistics import quality_difference, speedup, summary
from benchmarks import exporters
from benchmarks.bench import LEAST_SECONDS, STAGES, run_stage

ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")
# A short search, and short refinements and trainings where they are needed.
EFFORT: Mapping[str, Any] = {
    "analyze": {"time_limit_seconds": 20},
    "ptq_search": {"max_quant_count": 10, "time_limit_minutes": 6},
    "refine": {"candidates": 1, "time_limit_minutes": 3},
    "prune": {"time_limit_minutes": 3},
    "qat": {"time_limit_minutes": 5},
    "benchmark": {"rounds": 5, "runs_per_round": 2, "seconds": 3},
}
OURS = "ours"
ROUNDS, RUNS, SEED = 15, 5, 0
TIME_LIMIT_SECONDS = 1800


@dataclass(frozen=True)
class Origin:
    """What other quantizers start from: an fp32 model, and calibration samples of one each."""

    onnx: onnx.ModelProto
    samples: list[dict[str, Array]]


@dataclass
class Row:
    """A model on an engine, and what was measured of it.

    Attributes:
        name: `given`, `ours`, or the quantizer's.
        detail: of ours, the variant that was chosen.
        failure: why there are no figures, or None.
    """

    engine: EngineName
    name: str
    path: Path | None
    precision: RuntimePrecision
    detail: str = ""
    failure: str | None = None
    quality: Quality | None = None
    timed: TimedModel | None = None


@dataclass(frozen=True)
class Wanted:
    """What is asked for of a model that is shipped.

    Attributes:
        faster: how many times faster than the given file it is on the better engine.
        on: the same on engines that are named.
        share: of the given file's figure, how much may be lost.
        lost: how much of the figure may be lost on any engine, None where the share alone counts.
    """

    faster: float = 1.8
    on: Mapping[EngineName, float] = field(default_factory=dict)
    share: float = 0.01
    lost: float | None = None

    def most_lost(self, figure: float) -> float:
        """Return how much of the given file's figure may be lost."""
        return self.share * abs(figure) if self.lost is None else self.lost


PEERS: Mapping[EngineName, tuple[str, Callable[[Origin, Path], Path]]] = {
    "openvino": ("NNCF", exporters.nncf),
    "onnxruntime": ("quantize_static", exporters.quantize_static),
}


def run_stages(job: str, folder: Path) -> dict[str, Any]:
    """Run what comes behind `prepare`; return the manifest of what is shipped."""
    for stage in STAGES[STAGES.index("prepare") + 1 :]:
        run_stage(stage, job, folder)
    manifest: dict[str, Any] = json.loads((folder / "deploy" / job / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def measure(manifest: Mapping[str, Any], folder: Path, samples: Path, metric: Choice, origin: Origin) -> list[Row]:
    """Measure given file, ours and the peers' on both engines; what fails is a row as well.

    Args:
        manifest: of the job that ran in the folder.
        samples: folder of the evaluation samples.
    """
    variants = manifest["variants"]
    metric = metric if isinstance(metric, str) else dict(metric)
    rows = [row for engine in ENGINES for row in _rows(engine, variants, folder, origin)]
    with ExitStack() as stack:
        for row in rows:
            if row.path is None:
                continue
            process = stack.enter_context(EngineProcess(row.engine, row.path, row.precision, 1, TIME_LIMIT_SECONDS))
            try:
                process.load()
                row.quality = process.quality(samples, metric)
                row.timed = TimedModel(process, samples, 1, RUNS)
                row.timed.warm_up()
            except EngineFailure as failure:
                row.failure = str(failure)
        running = [row.timed for row in rows if row.timed is not None and row.failure is None]
        time_in_rounds(running, ROUNDS, SEED, LEAST_SECONDS)
    for row in rows:
        if row.timed is not None and row.timed.failure is not None:
            row.failure = str(row.timed.failure)
    return rows


def _rows(engine: EngineName, variants: Sequence[Mapping[str, Any]], folder: Path, origin: Origin) -> Iterator[Row]:
    """Yield the rows of one engine, not measured yet; our fp32 stands for a file that the engine does not open."""
    here = [each for each in variants if each["engine"] == engine]
    by_name = {each["name"]: each for each in here}
    yield Row(engine, GIVEN, folder / by_name.get(GIVEN, by_name["fp32"])["path"], "fp32")
    inside = [each for each in here if each["inside_budget"] and each["name"] != GIVEN]
    if inside:
        best = min(inside, key=lambda each: each["latency"]["median_ms"])
        yield Row(engine, OURS, folder / best["path"], cast(RuntimePrecision, best["precision"]), best["name"])
    else:
        yield Row(engine, OURS, None, "fp32", failure="nothing is inside the budget")
    name, write = PEERS[engine]
    try:
        path = write(origin, Path(tempfile.mkdtemp(dir=folder)))
    except Exception as error:  # whatever the peer raises is its row
        yield Row(engine, name, None, "int8", failure=f"{type(error).__name__}: {str(error)[:160]}")
    else:
        yield Row(engine, name, path, "int8")


def figures(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return by engine and name the latency, the quality, and what is gained and lost against the given file there."""
    by_key = {(row.engine, row.name): row for row in rows}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry: dict[str, Any] = {"precision": row.precision, "detail": row.detail, "failure": row.failure}
        given = by_key[row.engine, GIVEN]
        if row.failure is None and given.failure is None:
            entry |= {
                "latency": summary(_seconds(row)).model_dump(),
                "quality": _quality(row).value,
                **_quality(row).beside,
                "speedup": compared(given, row)[0].model_dump(),
                "lost": compared(given, row)[1].model_dump(),
            }
        found.setdefault(row.engine, {})[row.name] = entry
    return found


def compared(reference: Row, row: Row) -> tuple[Interval, Interval]:
    """Return how many times faster a row is than another, and how much quality it loses against it."""
    faster = speedup(_seconds(reference), _seconds(row), SEED)
    return faster, quality_difference(_quality(reference), _quality(row), SEED)


def misses(rows: Sequence[Row], wanted: Wanted) -> Iterator[str]:
    """Yield in words where ours is not what is wanted, or a peer's is better in one thing and not worse in another."""
    gains: dict[EngineName, float] = {}
    for engine in ENGINES:
        here = {row.name: row for row in rows if row.engine == engine}
        ours, given, peer = here[OURS], here[GIVEN], here[PEERS[engine][0]]
        if given.failure is not None or ours.failure is not None:
            yield f"{engine}: {given.failure or ours.failure}"
            continue
        faster, lost = compared(given, ours)
        gains[engine] = faster.value
        if lost.value > wanted.most_lost(_quality(given).value):
            yield f"{engine}: {ours.detail} loses {lost.value:.4f} of {_quality(given).value:.4f}"
        if peer.failure is None:
            faster, lost = compared(peer, ours)
            if (lost.low > 0 and faster.low <= 1) or (faster.high < 1 and lost.high >= 0):
                behind = f"loses {lost.value:.4f} against {peer.name}'s and is {faster.value:.2f} times as fast"
                yield f"{engine}: {ours.detail} {behind}"
    for engine, least in wanted.on.items():
        if engine in gains and gains[engine] < least:
            yield f"{engine}: {gains[engine]:.2f} times as fast as the given file, {least} are wanted"
    if gains and max(gains.values()) < wanted.faster:
        yield f"{max(gains.values()):.2f} times as fast as the given file, {wanted.faster} are wanted"


def table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a model's figures."""
    for engine, entries in found.items():
        for name, entry in entries.items():
            start = f"    {engine:12} {name:16} {entry['detail'] or entry['precision']:22}"
            if "latency" not in entry:
                yield f"{start} {entry['failure'] or 'nothing to compare with'}"
                continue
            faster, lost = entry["speedup"], entry["lost"]
            yield (
                f"{start} {entry['latency']['median_ms']:9.3f} ms  {faster['value']:.2f} "
                f"({faster['low']:.2f} to {faster['high']:.2f})  {entry['quality']:.4f}, lost {lost['value']:.4f} "
                f"({lost['low']:.4f} to {lost['high']:.4f})"
            )


def origin_of(model: onnx.ModelProto, calibration: Path) -> Origin:
    """Return what the peers start from, with the samples of `prepare`."""
    return Origin(model, list(Samples.load(calibration).batches(1)))


def _seconds(row: Row) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert row.timed is not None
    return row.timed.seconds


def _quality(row: Row) -> Quality:
    assert row.quality is not None
    return row.quality
