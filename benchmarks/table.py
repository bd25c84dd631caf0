"""Every setting of a small search space, measured once on the real engine, so that samplers can be compared in seconds.

A table is kept in `benchmarks/cache/`, under a name that stands for all that it depends on: the space, the job, the
code that makes and measures a model, and the machine. It grows as settings are measured; a run that was killed goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from act import machine
from act.engines.base import RuntimePrecision
from act.engines.evaluation import Evaluation
from act.engines.process import EngineFailure
from act.engines.writer import writer_of
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.scheme import Scheme
from act.quantization.sensitivity import rank_layers
from act.quantization.statistics import STATISTICS_FILE, load
from act.results.ptq_search import TrialSettings
from act.samples.dataset import Samples
from act.search.sampler import Observation
from act.search.schemes import SchemeMaker
from act.search.space import Space
from act.settings import ThresholdAlgorithm
from benchmarks.bench import BATCH, CALIBRATION, ROOT, SUBJECTS, run_stage

CACHE = ROOT / "benchmarks" / "cache" / "settings"
ALGORITHMS: tuple[ThresholdAlgorithm, ...] = ("abs_max", "avg", "min_max", "hist", "mse", "emd", "KL")
CONVOLUTIONS, TRANSPOSED, PRODUCTS = ("conv2d", "depthwise_conv2d"), "conv2d_transpose", ("matmul_v2",)

SIDE_BY_SIDE = 2
SENSITIVITY_SAMPLES = 8
# The code that decides what a setting gives; what chooses settings and shows results has no part in it.
PARTS = (
    *("benchmarks/table.py", "benchmarks/mobilenet.py", "tasks/prepare/**/*.py", "act/search/schemes.py"),
    *(f"act/{room}/**/*.py" for room in ("engines", "metrics", "onnx_graph", "program", "quantization", "samples")),
)


@dataclass(frozen=True)
class Subspace:
    """What differs between the models' spaces.

    Attributes:
        samples: how many quality is measured on.
        op_types: the choices of operator types.
        float_layers: the choices of how many layers stay in float.
    """

    samples: int
    op_types: tuple[tuple[str, ...], ...]
    float_layers: tuple[int, ...]


SUBSPACES: Mapping[str, Subspace] = {
    "recogniser": Subspace(256, ((*CONVOLUTIONS, *PRODUCTS), ("conv2d", *PRODUCTS)), (0, 2, 8)),
    "classifier": Subspace(512, ((*CONVOLUTIONS, *PRODUCTS), ("conv2d", *PRODUCTS)), (0, 8)),
    "detector": Subspace(64, ((*CONVOLUTIONS, TRANSPOSED), ("conv2d", TRANSPOSED)), (0, 8)),
    "mobilenet_v1": Subspace(2000, ((*CONVOLUTIONS, *PRODUCTS), ("conv2d", *PRODUCTS)), (0, 8)),
}


@dataclass(frozen=True)
class Table:
    """What every setting of a space gives.

    Attributes:
        space: the settings.
        reference: the fp32 model's quality on the same samples.
        results: quality and cost of each setting, as trials of a search have them.
    """

    space: Space
    reference: float
    results: Mapping[TrialSettings, Observation]


def space_of(model: str) -> Space:
    """Return the declared space of one of `SUBSPACES`: 256 or 384 settings."""
    return Space(
        ptq_algo=ALGORITHMS,
        hist_percent=(0.999, 0.9999),
        batch_num=(CALIBRATION // BATCH,),
        activation_symmetric=(True, False),
        weight_quantize_type=("channel_wise_abs_max", "channel_wise_mse"),
        bias_correct=(True, False),
        quantizable_op_type=SUBSPACES[model].op_types,
        float_layers=SUBSPACES[model].float_layers,
    )


def table(model: str) -> Table:
    """Return the table of a model, from the cache where that has it."""
    space, job = space_of(model), _job(model)
    path = CACHE / f"{model}-{_digest(model, space, job)}.jsonl"
    rows = _read(path)
    if len(rows) < 1 + space.size:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name, path.open("a", encoding="utf-8") as file:
            for row in _measured(model, job, space, rows, Path(name)):
                file.write(json.dumps(row) + "\n")
                file.flush()
        rows = _read(path)
    results = {}
    for setting in space:
        row = rows[_key(setting)]
        quality = -math.inf if row["quality"] is None else row["quality"]
        results[setting] = Observation(setting, quality, row["cost"])
    return Table(space, rows[_key(None)]["quality"], results)


def _job(model: str) -> dict[str, Any]:
    subject = SUBJECTS[model]
    job = subject.settings(replace(subject, evaluation=SUBSPACES[model].samples))[0]
    job["target"]["engines"] = ["openvino"]
    job["calibration"] = {"batch_size": BATCH, "batch_num": [CALIBRATION // BATCH]}
    return job


def _digest(model: str, space: Space, job: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(repr((SUBSPACES[model].samples, space, space.first()[0])).encode())
    digest.update(json.dumps([job, machine.describe()], sort_keys=True, default=str).encode())
    for part in PARTS:
        for path in sorted(ROOT.glob(part)):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Read rows by setting; the last line may be cut off by a kill, and is then left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def _key(setting: TrialSettings | None) -> str:
    """Return the key of a row; None is the fp32 model."""
    return "fp32" if setting is None else setting.model_dump_json()


def _quality(evaluation: Evaluation, path: Path, precision: RuntimePrecision, samples: int) -> float:
    """Return the quality of a written model on the first so many samples."""
    with evaluation.process(path, precision) as process:
        process.load()
        return evaluation.quality_on(process, samples).value


def _measured(
    model: str, job: dict[str, Any], space: Space, known: Mapping[str, Any], folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield rows that are not known yet as they are measured, once for all settings that make the same model."""
    maker, evaluation, write = _prepare(job, space, folder)
    if _key(None) not in known:
        quality = _quality(evaluation, write(None), "fp32", SUBSPACES[model].samples)
        yield {"key": _key(None), "quality": quality, "cost": 1.0}
    same: dict[str, list[TrialSettings]] = {}
    for setting in space:
        if _key(setting) not in known:
            content = maker.make(setting).to_file().model_dump_json()
            same.setdefault(hashlib.sha256(content.encode()).hexdigest(), []).append(setting)

    def quality_of(setting: TrialSettings, path: Path) -> float | None:
        try:
            return _quality(evaluation, path, "int8", SUBSPACES[model].samples)
        except EngineFailure:
            return None
        finally:
            path.unlink()

    groups = list(same.values())
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool, tqdm(total=len(groups), desc=model, unit="model") as bar:
        for start in range(0, len(groups), 2 * SIDE_BY_SIDE):
            part = groups[start : start + 2 * SIDE_BY_SIDE]
            waiting = {pool.submit(quality_of, group[0], write(maker.make(group[0]))): group for group in part}
            for future in as_completed(waiting):
                for setting in waiting[future]:
                    yield {"key": _key(setting), "quality": future.result(), "cost": maker.cost(setting)}
                bar.update()


def _prepare(job: dict[str, Any], space: Space, folder: Path) -> tuple[SchemeMaker, Evaluation, Any]:
    """Make what the search stage has before its first trial, by the stages before it."""
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {"table": job}}), encoding="utf-8")
    for stage in ("prepare", "analyze", "select", "prune", "calibrate"):
        run_stage(stage, "table", folder)
    artifacts = folder / "artifacts" / "table"
    prepared = artifacts / "prepare"
    network = InferenceModel.load(artifacts / "calibrate" / "model")
    layers = quantizable_layers(network, max(space.quantizable_op_type, key=len))
    operators = json.loads((artifacts / "analyze" / "analysis.json").read_text(encoding="utf-8"))["operators"]
    statistics = load(artifacts / "calibrate" / STATISTICS_FILE)
    maker = SchemeMaker(network, layers, statistics, {entry["name"]: entry["macs"] for entry in operators})
    fp32 = to_onnx(network)
    batch = next(Samples.load(prepared / "calibration").head(SENSITIVITY_SAMPLES).batches(SENSITIVITY_SAMPLES))
    start = space.first()[0]
    sensitivities = rank_layers(fp32, layers, lambda layer: maker.make(start, [layer]), batch)
    maker.order = [entry.layer for entry in sensitivities]
    reference = prepared / "reference" if job["metric"] == "similarity" else None
    evaluation = Evaluation("openvino", job["metric"], prepared / "evaluation", reference)

    def write(scheme: Scheme | None) -> Path:
        return writer_of("openvino").write(network, scheme, Path(tempfile.mkdtemp(dir=folder)), fp32)

    return maker, evaluation, write
