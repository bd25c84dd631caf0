"""The models that the comparisons are made on, and what every part of them needs: prepared files, quality, latency.

All is made by the pipeline's own stages, run as a user runs them. Quality is measured on samples that neither the
search nor any calibration sees.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import yaml

from act.engines.process import EngineProcess
from act.engines.writer import writer_of
from act.metrics import Quality
from act.onnx_graph.conversion import to_onnx
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.calibration import calibrated_model
from act.quantization.scheme import Scheme
from act.samples.dataset import Samples
from act.settings import Benchmark
from act.timing.rounds import TimedModel, time_in_rounds
from benchmarks import mobilenet

ROOT = Path(__file__).parents[1]
# In their order, `machine` first.
STAGES: Sequence[str] = tuple(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
CALIBRATION, BATCH = 64, 8
TRIALS = 30
REFINE_MINUTES = 3.0
ROUNDS, RUNS = 15, 20
# As in the benchmark stage: the rounds of small models would all fall into one moment of what else the machine does.
LEAST_SECONDS = Benchmark().seconds
PAGE = 320  # pixels of a side

Settings = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model to compare on.

    Attributes:
        evaluation: how many samples the search sees beside those for calibration.
        held_out: how many others quality is measured on in the end.
        score: what quality is, in a few words.
        settings: gives the settings of the search's job and of the held-out samples' job.
    """

    evaluation: int
    held_out: int
    score: str
    settings: Callable[[Subject], tuple[Settings, Settings]]


def _shipped(name: str) -> Settings:
    job: Settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["jobs"][name]
    return job


def _drawn(job: Settings, subject: Subject) -> tuple[Settings, Settings]:
    """Set how many samples are drawn; return a second job beside it that draws from another seed."""
    job["data"].update(calibration=CALIBRATION, evaluation=subject.evaluation)
    other = copy.deepcopy(job)
    other["data"].update(seed=job["data"]["seed"] + 1, evaluation=subject.held_out)
    return job, other


def _detector(subject: Subject) -> tuple[Settings, Settings]:
    job = _shipped("classifier")
    job["model"]["path"] = "examples/ppocr-detector.yaml"
    job["data"].update(task="detection", width=PAGE, height=PAGE)
    return _drawn({**job, "metric": "similarity"}, subject)


def _mobilenet(_: Subject) -> tuple[Settings, Settings]:
    folder = mobilenet.ensure()
    job = {**_shipped("classifier"), "model": {"path": str(folder / "model")}, "metric": "top1"}
    search, test = ({"reader": "arrays", "path": str(folder / name)} for name in ("search", "test"))
    return {**job, "data": search}, {**copy.deepcopy(job), "data": test}


SUBJECTS: Mapping[str, Subject] = {
    "recogniser": Subject(512, 1024, "lines read exactly", lambda it: _drawn(_shipped("recogniser"), it)),
    "classifier": Subject(512, 2048, "lines told right", lambda it: _drawn(_shipped("classifier"), it)),
    "detector": Subject(128, 200, "similarity to fp32's maps", _detector),
    "mobilenet_v1": Subject(mobilenet.KEPT_FROM_TRAINING, 10_000, "test images told right", _mobilenet),
}


class Bench:
    """One model with its samples, prepared in a scratch folder.

    Args:
        name: one of `SUBJECTS`.
        folder: empty.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.subject = SUBJECTS[name]
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        jobs = dict(zip(("search", "held_out"), self.subject.settings(self.subject)))
        for job in jobs.values():
            job["target"]["engines"] = ["openvino"]
            job["calibration"] = {"batch_size": BATCH, "batch_num": [2, CALIBRATION // BATCH]}
            job["ptq_search"] = {"max_quant_count": TRIALS}
            job["refine"] = {**job.get("refine", {}), "time_limit_minutes": REFINE_MINUTES}
        self.job = jobs["search"]
        (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": jobs}), encoding="utf-8")
        for job_name in jobs:
            self.stage("prepare", job_name)
        prepared = folder / "artifacts" / "search" / "prepare"
        self.model_folder = prepared / "model"
        self.model = InferenceModel.load(self.model_folder)
        self.layers: list[Layer] = quantizable_layers(self.model)
        self.onnx = to_onnx(self.model)
        self.calibration = Samples.load(prepared / "calibration")
        self._held_out = folder / "artifacts" / "held_out" / "prepare"
        self.fp32 = self.quality(self.write(None), "fp32")

    def stage(self, module: str, job: str = "search") -> float:
        """Run a stage as a user does; its seconds."""
        started = time.perf_counter()
        run_stage(module, job, self.folder)
        return time.perf_counter() - started

    def write(self, scheme: Scheme | None) -> Path:
        """Write the fp32 model (`scheme` is None), or its int8 form, as OpenVINO loads it."""
        return writer_of("openvino").write(self.model, scheme, Path(tempfile.mkdtemp(dir=self.folder)), self.onnx)

    def write_found(self, scheme: Scheme, strength: float | None) -> Path:
        """Write the model of a scheme that the search found with a strength of smoothing, as OpenVINO loads it."""
        folder = self.folder / "artifacts" / "search" / "calibrate"
        return self.write_for(calibrated_model(folder, strength), scheme)

    def write_for(self, model: InferenceModel, scheme: Scheme, converted: onnx.ModelProto | None = None) -> Path:
        """Write the int8 form of another model of the same program, as OpenVINO loads it."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return writer_of("openvino").write(model, scheme, folder, converted)

    def quality(self, path: Path, precision: Any = "int8") -> Quality:
        """Return the quality on the held-out samples."""
        metric = self.job["metric"]
        reference = self._held_out / "reference" if metric == "similarity" else None
        with EngineProcess("openvino", path, precision, 1, 600) as process:
            process.load()
            return process.quality(self._held_out / "evaluation", metric, reference, None, 1)

    def latencies(self, rows: Mapping[str, tuple[Path, Any]]) -> dict[str, npt.NDArray[np.float64]]:
        """Return the seconds of each model, float64 [rounds, runs], in turns of random order.

        Args:
            rows: path and precision by name.
        """
        samples = self._held_out / "evaluation"
        processes = {name: EngineProcess("openvino", path, kind, 1, 600) for name, (path, kind) in rows.items()}
        models = {name: TimedModel(process, samples, 1, RUNS) for name, process in processes.items()}
        try:
            for process in processes.values():
                process.__enter__()
                process.load()
            for model in models.values():
                model.warm_up()
            time_in_rounds(list(models.values()), ROUNDS, least_seconds=LEAST_SECONDS)
        finally:
            for process in processes.values():
                process.close()
        return {name: model.seconds for name, model in models.items()}

    @cached_property
    def nncf(self) -> dict[str, Path]:
        """NNCF's int8 models by preset, from the same calibration samples."""
        return {name: self.quantize_with_nncf(name)[0] for name in nncf_presets()}

    def quantize_with_nncf(self, preset: str) -> tuple[Path, float]:
        """Return NNCF's int8 model, and the seconds that quantizing took."""
        import nncf
        import openvino

        source = self.folder / "fp32.onnx"
        onnx.save(self.onnx, source)
        read = openvino.Core().read_model(source)
        samples = list(self.calibration.batches(1))
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars, between our tables
            quantized = nncf.quantize(read, nncf.Dataset(samples), subset_size=CALIBRATION, **nncf_presets()[preset])
        seconds = time.perf_counter() - started
        path = self.folder / f"{preset}.xml"
        openvino.save_model(quantized, path, compress_to_fp16=False)
        return path, seconds


def conclude(path: Path, results: Mapping[str, Any], misses: Sequence[str], beside: str = "") -> int:
    """Write the results of a benchmark, with every figure that was not reached, and name those; the exit code.

    Args:
        beside: what else was written, for the message.
    """
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**results, "misses": list(misses)}, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {path.relative_to(ROOT)}{beside}")
    for miss in misses:
        print(f"missed: {miss}")
    return 1 if misses else 0


def nncf_presets() -> dict[str, dict[str, Any]]:
    """Return what is passed to NNCF's `quantize`, by preset."""
    import logging

    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    return {
        "performance": {"preset": nncf.QuantizationPreset.PERFORMANCE},
        "transformer": {"model_type": nncf.ModelType.TRANSFORMER},
    }


def run_stage(module: str, job: str, folder: Path, code: str | None = None) -> str:
    """Run a stage in a folder as a user does, and return what it prints on stdout.

    Args:
        code: Python code that is run instead of the module, with the stage's arguments.

    Raises:
        RuntimeError: it failed; has its last words.
    """
    start = ["-m", f"tasks.{module}"] if code is None else ["-c", code]
    command = [sys.executable, *start, "--job", job]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"tasks.{module} failed with code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
