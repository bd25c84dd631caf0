"""Whether `similarity` ranks int8 candidates as a task's metric does: `python -m benchmarks.similarity --models DIR`.

Two detectors and two segmenters are quantized in many ways: at random from the search's space, and with activations
clipped so far that values are lost, for between candidates that are all good the task's metric tells chance. Each is
run on the evaluation samples, alternately on OpenVINO and on ONNX Runtime, as many as there is time for. Prints
Spearman's rank correlation of the task's metric with `similarity`, which must reach 0.8, and with the mean cosine of
whole outputs; and the share of pairs in the same order, of those that the task itself tells apart: whose difference is
more than two standard errors, by a paired bootstrap over samples. Writes `benchmarks/results/similarity.json`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from scipy.stats import spearmanr  # type: ignore[import-untyped]
from tqdm import tqdm

from act.engines.process import EngineFailure, EngineProcess
from act.engines.writer import further_tensors, writer_of
from act.metrics import Choice, Quality, cosine, resampled, scorer
from act.onnx_graph.conversion import to_onnx
from act.program.costs import layer_macs
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.activations import reader
from act.quantization.calibration import equalise_channels, first_batches
from act.quantization.sensitivity import rank_layers
from act.quantization.statistics import collect
from act.results.ptq_search import TrialSettings
from act.samples.dataset import Ragged, Samples
from act.search.schemes import SchemeMaker
from act.search.space import Space
from act.settings import PtqSearch
from benchmarks.bench import ROOT, conclude, run_stage
from benchmarks.tasks import TASKS, job_of

RESULTS = ROOT / "benchmarks" / "results" / "similarity.json"
JOB = "similarity"
LEAST = 0.8
CANDIDATES, SEED = 24, 0
ENGINES = ("openvino", "onnxruntime")
LOSSY_SHARES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
# Samples: of evaluation, and batches for calibration.
EVALUATION = {"yolov5n": 64, "nanodet_m": 96, "pphumanseg": 48, "unet": 8}
BATCH, BATCHES, RANKING = 2, 8, 2
TIME_LIMIT_SECONDS = 1800
# For the candidates of one model, after which none is begun.
MINUTES = 15.0
CERTAIN = 2.0  # standard errors


@dataclass(frozen=True)
class Row:
    """A candidate's figures on the same samples."""

    name: str
    task: Quality
    similarity: float
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures alone."""
        return {**vars(self), "task": self.task.value}


def main() -> int:
    """Measure the models; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.similarity", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder with the models, and their data in `data`")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="for a model's candidates (default: %(default)g)"
    )
    parser.add_argument("names", nargs="*", choices=[*EVALUATION, []], help="some of them (default: all)")
    arguments = parser.parse_args()
    if not (arguments.models / "data").is_dir():
        print(f"error: {arguments.models}: no folder with models and `data`", file=sys.stderr)
        return 2
    results, misses = {}, []
    for name in arguments.names or EVALUATION:
        with tempfile.TemporaryDirectory() as scratch:
            rows = list(_measured(name, arguments.models.resolve(), Path(scratch), 60 * arguments.minutes))
        tasks, apart = [row.task.value for row in rows], _told_apart([row.task for row in rows])
        figures = {"similarity": [row.similarity for row in rows], "cosine": [row.cosine for row in rows]}
        ranks = {each: float(spearmanr(tasks, values).statistic) for each, values in figures.items()}
        ordered = {each: _in_order(tasks, values, apart) for each, values in figures.items()}
        results[name] = {
            "spearman": ranks,
            "pairs_in_order": ordered,
            "pairs": int(apart.sum()),
            "candidates": [row.to_json() for row in rows],
        }
        told = ", ".join(f"{each} {ranks[each]:.3f} ({ordered[each]:.1%} of them in order)" for each in figures)
        spread = f"metric {min(tasks):.4f} to {max(tasks):.4f}"
        print(f"  {name:12} {len(rows)} candidates, {spread}, {apart.sum()} pairs apart: {told}", flush=True)
        found = ranks["similarity"]
        if not found >= LEAST:
            misses.append(f"{name}: Spearman {found:.3f} of similarity with the task's metric, {LEAST} is asked for")
    return conclude(RESULTS, {"models": results}, misses)


def _told_apart(tasks: Sequence[Quality]) -> npt.NDArray[np.bool_]:
    """Return for each pair of models, the first before the second, whether the task tells them apart, bool [n, n]."""
    figures = resampled(tasks, SEED)
    values = np.array([task.value for task in tasks])
    errors = np.array([(figures - each).std(axis=1) for each in figures])
    return np.triu(np.abs(values[:, None] - values) > CERTAIN * errors, 1)


def _in_order(tasks: Sequence[float], values: Sequence[float], pairs: npt.NDArray[np.bool_]) -> float:
    """Return the share of pairs that values order as the task does; NaN where there is none."""
    first, second = (np.subtract.outer(each, each)[pairs] for each in (tasks, values))
    return float((first * second > 0).mean()) if len(first) else float("nan")


def _measured(name: str, models: Path, folder: Path, seconds: float) -> Iterator[Row]:
    """Yield the figures of every candidate of a model that its engine runs, until the time is up."""
    task = TASKS[name]
    job = job_of(task, models)
    job["data"]["evaluation"] = EVALUATION[name]
    shutil.copyfile(Path(__file__).with_name("drive.py"), folder / "drive.py")
    (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {JOB: job}}), encoding="utf-8")
    run_stage("prepare", JOB, folder)
    prepared = folder / "artifacts" / JOB / "prepare"
    model, calibration = InferenceModel.load(prepared / "model"), Samples.load(prepared / "calibration")
    Samples.load(prepared / "evaluation").head(EVALUATION[name]).save(folder / "samples")
    samples = Samples.load(folder / "samples")
    model, fp32, _ = equalise_channels(model, to_onnx(model), quantizable_layers(model), calibration, BATCH)
    layers = quantizable_layers(model)
    batches = min(BATCHES, len(calibration.groups(BATCH)))
    read = reader(fp32, layers, further_tensors(fp32))
    statistics = collect(read, first_batches(calibration, BATCH, batches), batches, [batches])
    maker = SchemeMaker(model, layers, statistics, layer_macs(model, calibration.first(1)))
    space = Space.of(PtqSearch(), [batches], [layer.op_type for layer in layers])
    batch = next(calibration.head(RANKING).batches(RANKING))
    ranking = rank_layers(fp32, layers, lambda layer: maker.make(space.first()[0], [layer]), batch)
    maker.order = [entry.layer for entry in ranking]
    half = writer_of(ENGINES[0]).write(model, None, Path(tempfile.mkdtemp(dir=folder)), fp32)
    reference = _outputs(ENGINES[1], half, "fp32", folder / "samples")
    assert reference is not None
    candidates: list[tuple[str, str, Path | TrialSettings]] = [(ENGINES[0], "bf16", half)]
    candidates += [(ENGINES[n % 2], "int8", each) for n, each in enumerate(_settings(space))]
    deadline = time.monotonic() + seconds
    for engine, precision, candidate in tqdm(candidates, desc=name, unit="model", leave=False):
        if time.monotonic() > deadline:
            break
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = candidate
            if isinstance(path, TrialSettings):
                path = writer_of(engine).write(model, maker.make(path), Path(scratch), fp32)
            outputs = _outputs(engine, path, precision, folder / "samples")
        if outputs is not None:
            label = candidate.model_dump_json() if isinstance(candidate, TrialSettings) else precision
            similarity = _quality("similarity", samples, outputs, dict(zip(model.fetch_names, reference))).value
            yield Row(
                f"{engine} {label}", _quality(task.metric, samples, outputs), similarity, _cosine(outputs, reference)
            )


def _settings(space: Space) -> list[TrialSettings]:
    """Draw settings from the space, every other with activations that are clipped too far."""
    rng, every = random.Random(SEED), list(space)
    drawn = rng.sample(every, CANDIDATES)
    clipped = {"ptq_algo": "hist", "float_layers": 0}
    return [
        each.model_copy(update={**clipped, "hist_percent": rng.choice(LOSSY_SHARES)}) if number // 2 % 2 else each
        for number, each in enumerate(drawn)
    ]


def _outputs(engine: str, path: Path, precision: Any, samples: Path) -> list[Ragged] | None:
    """Return the outputs of a model on an engine; None where it does not run there."""
    try:
        with EngineProcess(engine, path, precision, 1, TIME_LIMIT_SECONDS) as process:
            process.load()
            return process.outputs(samples)
    except EngineFailure as failure:
        print(f"  {engine} {precision}: {failure}", file=sys.stderr)
        return None


def _quality(
    metric: Choice, samples: Samples, outputs: Sequence[Ragged], reference: dict[str, Ragged] | None = None
) -> Quality:
    found = scorer(metric, samples, Samples(reference) if reference is not None else None)
    for each in zip(*outputs):
        found.add(each)
    return found.quality()


def _cosine(outputs: Sequence[Ragged], reference: Sequence[Ragged]) -> float:
    return float(np.mean([cosine(*pair) for found, wanted in zip(outputs, reference) for pair in zip(found, wanted)]))


if __name__ == "__main__":
    sys.exit(main())
