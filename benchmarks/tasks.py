"""Each trained model of a folder judged by its own task: `python -m benchmarks.tasks --models DIR`.

The stage `prepare` reads model and data, as for a user. The given file, where ONNX Runtime opens it, and what we made
of it run there in fp32 on all evaluation samples; each metric is printed with its 95 % interval over samples beside the
figure that is known of the model. Then all stages run, and what they ship stands beside the given file and the peers'
models (`benchmarks.shipped`). Writes `benchmarks/results/tasks.json`, and ends with code 1, naming each figure that was
not reached. Takes minutes a model on 2 cores.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import yaml

from act.engines.process import EngineFailure, EngineProcess
from act.metrics import Choice, Quality
from act.onnx_graph.conversion import to_onnx
from act.program.model import InferenceModel
from act.timing.statistics import quality_interval
from benchmarks import shipped
from benchmarks.bench import ROOT, conclude, run_stage
from benchmarks.shipped import Wanted

RESULTS = ROOT / "benchmarks" / "results" / "tasks.json"
ENGINE, JOB = "onnxruntime", "task"
# Of the figure that is known, which may be of a selection of the samples: then it lies in the interval.
TOLERANCE = 0.005
EVERY = 100_000  # samples: all there are
TIME_LIMIT_SECONDS = 1800

ZERO_TO_ONE = {"mean": [0.0], "std": [1.0]}
MINUS_ONE_TO_ONE = {"scale": 1 / 127.5, "mean": [1.0], "std": [1.0]}
PIXELS = {"scale": 1.0, "mean": [0.0], "std": [1.0]}
# Pictures become smaller as in OpenCV, which these models are evaluated with.
BOXES = {"reader": "coco", "path": "coco", "antialias": False, "evaluation": EVERY}
LISTS = {
    "reader": "image_folder",
    "calibration_list": "calibration_list.txt",
    "evaluation_list": "evaluation_list.txt",
    "evaluation": EVERY,
}
# The latter of models whose given file takes under a millisecond.
LARGE, SMALL = Wanted(), Wanted(faster=1.5)


@dataclass(frozen=True)
class Task:
    """A model and what it is for.

    Attributes:
        model: its file or folder, below that of all models.
        data: settings of the reader; `path` is below `data`.
        metric: how a job names it.
        known: what others measured with fp32.
        wanted: of what is shipped.
    """

    model: str
    data: dict[str, Any]
    metric: Choice
    known: float
    wanted: Wanted = LARGE


TASKS = {
    "resnet20": Task(
        "resnet20_cifar10/resnet20.onnx", {**LISTS, "path": "cifar10", "fit": "stretch"}, "top1", 0.915, SMALL
    ),
    "mobilenet_v1_025": Task(
        "mbv1_025_imagenet/mobilenet_v1_0.25_224.onnx",
        {**LISTS, **MINUS_ONE_TO_ONE, "path": "imagenet1k_sample"},
        "top1",
        0.59,
        SMALL,
    ),
    "resnet8": Task(
        "mlperf_tiny/pretrainedResnet.tflite",
        {**LISTS, **PIXELS, "path": "cifar10", "fit": "stretch"},
        "top1",
        0.88,
        SMALL,
    ),
    "pplcnet_textline": Task(
        "pplcnet_textline_ori_paddle3",
        {**LISTS, "path": "textlines", "fit": "stretch", "size": [80, 160]},
        "top1",
        0.963,
        SMALL,
    ),
    "yolov5n": Task(
        "yolov5n/yolov5n.onnx",
        {**ZERO_TO_ONE, **BOXES, "fit": "letterbox"},
        "coco_map",
        0.334,
        Wanted(on={"openvino": 1.8, "onnxruntime": 1.5}, lost=0.003),
    ),
    "nanodet_m": Task(
        "nanodet_m/nanodet_m.onnx",
        {
            **BOXES,
            "fit": "stretch",
            "order": "BGR",
            "scale": 1.0,
            "mean": [103.53, 116.28, 123.675],
            "std": [57.375, 57.12, 58.395],
        },
        "coco_map",
        0.247,
        Wanted(faster=1.3),  # a ShuffleNet's kin
    ),
    "pphumanseg": Task(
        "pphumanseg_lite/ppseg_lite_portrait_398x224_with_softmax_fixed.onnx",
        {**MINUS_ONE_TO_ONE, "reader": "mask_folder", "path": "person_masks", "fit": "stretch", "evaluation": EVERY},
        {"name": "mean_iou", "only": 1},
        0.53,
    ),
    "unet": Task(
        "unet_retina/unet_drive.onnx",
        {
            "reader": "function",
            "path": "drive",
            "function": "drive:calibration",
            "evaluation_function": "drive:evaluation",
            "calibration": 20,
        },
        {"name": "dice", "only": 1},
        0.82,
    ),
    "minilm": Task(
        "minilm_l6/minilm_l6.onnx",
        {
            "reader": "tokens",
            "path": "stsb",
            "label": 0,
            "text": 1,
            "second": 2,
            "apart": True,
            "kind": "score",
            "evaluation": EVERY,
        },
        "spearman",
        0.83,
        Wanted(faster=1.5, lost=0.003),
    ),
}


def main() -> int:
    """Measure the tasks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder with the models, and their data in `data`")
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], help="some of them (default: all)")
    parser.add_argument("--fp32", action="store_true", help="only the models as they are given")
    arguments = parser.parse_args()
    if not (arguments.models / "data").is_dir():
        print(f"error: {arguments.models}: no folder with models and `data`", file=sys.stderr)
        return 2
    print("  task                 metric      known   given file (95 % interval)       ours (95 % interval)")
    results, misses = {}, []
    for name in arguments.tasks or TASKS:
        with tempfile.TemporaryDirectory() as scratch:
            row, missed = _measured(TASKS[name], arguments.models.resolve(), Path(scratch), arguments.fp32)
        results[name] = row
        misses += [f"{name}: {miss}" for miss in missed]
        metric = TASKS[name].metric
        title = metric if isinstance(metric, str) else metric["name"]
        print(
            f"  {name:20} {title:10} {TASKS[name].known:6.3f}   {_cell(row, 'given'):32} {_cell(row, 'ours')}",
            flush=True,
        )
        for line in shipped.table(row.get("shipped", {})):
            print(line, flush=True)
    return conclude(RESULTS, {"tasks": results}, misses)


def job_of(task: Task, models: Path) -> dict[str, Any]:
    """Return a job for a task, with settings of the demo's where it does not say."""
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["jobs"]["classifier"]
    path = str(models / "data" / task.data["path"])
    data = {**task.data, "path": path}
    if "function" in data:
        data["settings"] = {"folder": path}
    return {**shipped, "model": {"path": str(models / task.model)}, "data": data, "metric": task.metric}


def _measured(task: Task, models: Path, folder: Path, fp32: bool) -> tuple[dict[str, Any], list[str]]:
    """Return what the given file, ours and what is shipped reach, and what they miss."""
    shutil.copyfile(Path(__file__).with_name("drive.py"), folder / "drive.py")
    budget = {"max_quality_drop": task.wanted.most_lost(task.known), "min_speedup": 1.0}
    job = job_of(task, models) | {"budget": budget, **shipped.EFFORT}
    job["target"] = {**job["target"], "engines": list(shipped.ENGINES)}
    (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {JOB: job}}), encoding="utf-8")
    try:
        run_stage("prepare", JOB, folder)
    except RuntimeError as error:
        cause = str(error).splitlines()[-1]
        return {"failure": cause}, [cause]
    prepared = folder / "artifacts" / JOB / "prepare"
    row, misses = {}, []
    for name, path in _files(prepared, folder):
        try:
            quality = _quality(path, prepared / "evaluation", task.metric)
        except EngineFailure as failure:
            misses.append(f"{name}: {failure}")
            continue
        interval = quality_interval(quality, 0)
        row[name] = {**interval.model_dump(), **quality.beside, "samples": len(quality)}
        if abs(quality.value - task.known) > TOLERANCE and not interval.low <= task.known <= interval.high:
            misses.append(f"{name}: {quality.value:.4f}, known is {task.known:.3f}")
    if fp32:
        return row, misses
    try:
        manifest = shipped.run_stages(JOB, folder)
    except RuntimeError as error:
        return row, [*misses, str(error).splitlines()[-1]]
    given, ours = (dict(_files(prepared, folder)).get(name) for name in ("given", "ours"))
    origin = shipped.origin_of(onnx.load(given or str(ours)), prepared / "calibration")
    rows = shipped.measure(manifest, folder, prepared / "evaluation", task.metric, origin)
    row["shipped"] = shipped.figures(rows)
    return row, [*misses, *shipped.misses(rows, task.wanted)]


def _files(prepared: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    given = next(iter(sorted((prepared / "given").rglob("*.onnx"))), None)
    if given is not None:
        yield "given", given
    ours = folder / "ours.onnx"
    onnx.save(to_onnx(InferenceModel.load(prepared / "model")), ours)
    yield "ours", ours


def _quality(path: Path, samples: Path, metric: Choice) -> Quality:
    with EngineProcess(ENGINE, path, "fp32", 1, TIME_LIMIT_SECONDS) as process:
        process.load()
        return process.quality(samples, metric if isinstance(metric, str) else dict(metric))


def _cell(row: dict[str, Any], name: str) -> str:
    found = row.get(name)
    return "-" if found is None else f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f})"


if __name__ == "__main__":
    sys.exit(main())
