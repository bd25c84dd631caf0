"""What the parts about pruning share: jobs that are run stage by stage, and models timed side by side."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from act.artifacts import read_json
from act.engines.base import RuntimePrecision
from act.engines.process import EngineProcess
from act.timing.rounds import TimedModel, time_in_rounds
from act.timing.statistics import mean_difference, speedup, summary
from benchmarks.bench import LEAST_SECONDS, run_stage

ROUNDS, RUNS = 15, 20
SEED = 0
TIME_LIMIT_SECONDS = 600
ENGINE = "openvino"
BEFORE_PRUNING = ("prepare", "analyze")
AFTER = ("select", "prune", "calibrate", "ptq_search", "refine", "plan", "qat", "export")


@dataclass
class Model:
    """A file to measure.

    Attributes:
        path: of the ONNX file.
        precision: how it runs.
        scores: of each sample.
        rounds: seconds of each run of each round.
    """

    path: Path
    precision: RuntimePrecision
    scores: list[float] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)


def settings(model: Path, data: Path, metric: str, **sections: Any) -> dict[str, Any]:
    """Return a job on OpenVINO with one thread; every section but those that are given has its defaults."""
    names = ("budget", "calibration", "ptq_search", "refine", "distillation", "prune", "qat", "benchmark")
    return {
        "model": {"path": str(model)},
        "data": {"reader": "arrays", "path": str(data)},
        "metric": metric,
        "target": {"engines": [ENGINE], "threads": 1},
        "strategy": [],
        **{name: {} for name in names},
        **sections,
    }


def write(folder: Path, jobs: Mapping[str, Any]) -> None:
    """Put the settings of the jobs where their stages find them."""
    (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": dict(jobs)}), encoding="utf-8")


def run(folder: Path, job: str, stages: Sequence[str] = (*BEFORE_PRUNING, *AFTER)) -> None:
    """Run stages of a job, as a user does."""
    for stage in stages:
        print(f"{job}: {stage}", flush=True)
        run_stage(stage, job, folder)


def exported(folder: Path, job: str) -> dict[str, tuple[Path, str]]:
    """Return by candidate the file that OpenVINO loads, and its precision."""
    place = folder / "artifacts" / job / "export"
    entries = read_json(place / "candidates.json")["candidates"]
    return {entry["name"]: (place / entry["files"][ENGINE], entry["precision"]) for entry in entries}


def told(folder: Path, job: str) -> dict[str, Any]:
    """Tell in few words what `prune` says that it did."""
    found = read_json(folder / "artifacts" / job / "prune" / "prune.json")
    kept = ("name", "why", "quality_before", "quality_pruned", "quality_after", "training")
    return {
        "steps": [{name: step[name] for name in kept} for step in found["steps"]],
        "parameters": found["parameters"],
        "zeros": {name: round(each["zeros"], 4) for name, each in found["sparse"].items()},
    }


def measure(models: Mapping[str, Model], samples: Path, metric: Any) -> None:
    """Measure quality on all samples, then seconds in turns of random order, each model in a process of its own."""
    with ExitStack() as stack:
        timed = {}
        for name, model in models.items():
            process = EngineProcess(ENGINE, model.path, model.precision, 1, TIME_LIMIT_SECONDS)
            timed[name] = TimedModel(stack.enter_context(process), samples, 1, RUNS)
            process.load()
            model.scores = list(process.quality(samples, metric, None, None, 1).scores)
            timed[name].warm_up()
        time_in_rounds(list(timed.values()), ROUNDS, SEED, LEAST_SECONDS)
        for name, model in models.items():
            model.rounds = timed[name].rounds


def figures(models: Mapping[str, Model], reference: str) -> dict[str, dict[str, Any]]:
    """Return by model quality and what it loses, latency and speed-up, bytes of the file, also compressed."""
    fp32 = models[reference]
    result = {}
    for name, model in models.items():
        content = model.path.read_bytes()
        result[name] = {
            "precision": model.precision,
            "quality": float(np.mean(model.scores)),
            "loss": mean_difference(np.array(fp32.scores), np.array(model.scores), SEED).model_dump(),
            "latency": summary(np.array(model.rounds)).model_dump(),
            "times_fp32": speedup(np.array(fp32.rounds), np.array(model.rounds), SEED).model_dump(),
            "bytes": len(content),
            "gzip_bytes": len(gzip.compress(content, 6, mtime=0)),
        }
    return result


def faster(models: Mapping[str, Model], name: str, other: str) -> dict[str, float]:
    """Return how many times faster one model is than another, with its interval."""
    return speedup(np.array(models[other].rounds), np.array(models[name].rounds), SEED).model_dump()


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line a model."""
    lines = [f"{'':26} quality    lost        ms   times fp32 (95 % interval)      MB   gzip MB"]
    for name, row in found.items():
        ratio = row["times_fp32"]
        lines.append(
            f"{name:26} {row['quality']:.4f} {row['loss']['value']:+.4f} {row['latency']['median_ms']:9.3f}   "
            f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})       {row['bytes'] / 1e6:8.2f} "
            f"{row['gzip_bytes'] / 1e6:8.2f}"
        )
    return "\n".join(lines)
