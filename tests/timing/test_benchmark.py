"""The benchmark stage with real engines on the direction classifier: every variant a row, failures included."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from act.engines.spec import all_specs
from act.errors import InputError
from act.machine import cpu_flags
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.onnx_model import quantize_onnx
from act.quantization.quantized_program import quantize
from act.quantization.scheme import make_scheme
from act.results.benchmark import Noise
from act.results.export import ExportedCandidate, ExportedCandidates
from act.samples.dataset import Ragged, Samples
from act.settings import Benchmark, Job, Target
from act.timing.benchmark import Given, Row, measure, to_results, variants
from tests.support import results
from tests.support.engines import run_by
from tests.support.models import CLASSIFIER, noise, seen
from tests.support.place import JOB

ROOT = Path(__file__).parents[2]
HAS_BF16 = bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
FP32, INT8 = results.exported("fp32", "fp32"), results.exported("int8-ptq", "int8")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `prepare` and `export` leave it, with settings."""
    folder = tmp_path_factory.mktemp("workspace")
    job = yaml.safe_load((ROOT / "params.yaml").read_text())["jobs"]["classifier"]
    job["benchmark"] = {"rounds": 3, "runs_per_round": 2, "seconds": 0, "streams": 2, "shapes": [{"x": [3, 48, 96]}]}
    (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {"demo": job}}))

    exported = folder / "artifacts" / "demo" / "export"
    model = InferenceModel.load(CLASSIFIER)
    converted = to_onnx(model)
    layers = quantizable_layers(model)
    scheme = make_scheme(model, layers, seen(model, layers, {"x": noise(4)}, symmetric=True))
    for name, saved, twin in (
        ("fp32", model, converted),
        ("int8-ptq", quantize(model, scheme), quantize_onnx(converted, model, scheme)),
    ):
        (exported / name).mkdir(parents=True)
        saved.save(exported / name)
        onnx.save(twin, exported / name / "model.onnx")
    candidates = [
        results.exported(
            name,
            precision,
            files={each.name: name if each.reads == "paddle" else f"{name}/model.onnx" for each in all_specs()},
            bytes={each.name: 1000 for each in all_specs()},
        )
        for name, precision in (("fp32", "fp32"), ("int8-ptq", "int8"))
    ]
    ExportedCandidates(candidates=candidates, deploy="int8-ptq").write(exported / "candidates.json")
    labels = [np.array(index % 2) for index in range(12)]
    prepared = folder / "artifacts/demo/prepare"
    Samples({"x": Ragged.of(list(noise(12)))}, Ragged.of(labels)).save(prepared / "evaluation")
    Samples({"y": Ragged.of(list(model.run({"x": noise(12)[:4]})[0]))}).save(prepared / "expected")
    shutil.copytree(exported / "fp32", prepared / "given", ignore=shutil.ignore_patterns("*.onnx"))
    results.preparation(given="given/model.pdmodel").write(prepared / "prepare.json")
    return folder


def names(engine: Any, precisions: list[Any], offered: list[str]) -> list[str]:
    found = variants(engine, [INT8, FP32], Path(), Target(engines=[engine], precisions=precisions), offered)
    return [variant.name for variant in found]


def test_variants_are_what_the_target_allows_and_the_mixture_where_the_engine_has_it() -> None:
    everything = ["fp32", "bf16", "int8"]
    mixture = ["fp32", "bf16", "int8-ptq", "int8-ptq+bf16"]
    assert names("openvino", everything, [*everything, "int8+bf16"]) == mixture
    assert names("onnxruntime", everything, ["fp32", "int8"]) == ["fp32", "bf16", "int8-ptq"]
    assert names("onnxruntime", everything, []) == ["fp32", "bf16", "int8-ptq"]
    assert names("openvino", ["fp32", "int8"], [*everything, "int8+bf16"]) == ["fp32", "int8-ptq"]
    assert names("openvino", ["fp32"], everything) == ["fp32"]


def test_a_pruned_model_runs_in_fp32_and_bf16_after_fp32() -> None:
    pruned, target = results.exported("pruned", "fp32"), Target(engines=["openvino"])
    found = variants("openvino", [pruned, INT8, FP32], Path(), target, ["fp32", "bf16", "int8"])
    assert [each.name for each in found] == ["fp32", "bf16", "pruned", "pruned+bf16", "int8-ptq"]


def measured(
    workspace: Path, candidates: list[ExportedCandidate], told: list[str], **settings: Any
) -> tuple[list[Row], Noise]:
    job = Job.model_validate({**JOB, "metric": "top1", **settings})
    folder = workspace / "artifacts" / "demo"
    return measure(candidates, folder / "export", job, folder / "prepare" / "evaluation", None, told.append)


def exported(workspace: Path) -> list[ExportedCandidate]:
    return ExportedCandidates.read(workspace / "artifacts" / "demo" / "export" / "candidates.json").candidates


def test_candidates_without_fp32_are_refused(workspace: Path) -> None:
    with pytest.raises(InputError, match="one fp32 candidate"):
        measured(workspace, [INT8], [])


def test_the_stage_measures_every_variant_on_its_engine(workspace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.benchmark", "--job", "demo"],
        cwd=workspace,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    folder = workspace / "artifacts" / "demo" / "benchmark"
    measured = json.loads((folder / "measurements.json").read_text())
    assert measured["evaluation_samples"] == 12 and measured["machine"]["cpu"]
    assert "budget" not in json.dumps(measured)
    rows = {(entry["engine"], entry["name"]): entry for entry in measured["variants"]}
    assert [key[0] for key in rows] == sorted((key[0] for key in rows), key=Target().engines.index)
    for engine in Target().engines:
        fp32, int8 = rows[engine, "fp32"], rows[engine, "int8-ptq"]
        assert fp32["failure"] is None and int8["failure"] is None
        assert int8["latency"]["runs"] == 6 and int8["latency"]["median_ms"] > 0
        assert int8["speedup"]["low"] <= int8["speedup"]["value"] <= int8["speedup"]["high"]
        assert int8["drop"]["value"] == pytest.approx(fp32["quality"]["value"] - int8["quality"]["value"])
        assert [shape["inputs"] for shape in int8["shapes"]] == [{"x": [1, 3, 48, 192]}, {"x": [1, 3, 48, 96]}]
        assert int8["shapes"][0]["latency"] == int8["latency"] and int8["shapes"][1]["latency"]["median_ms"] > 0
        assert int8["throughput"]["per_second"] > 0 and int8["warm_up"]["first_ms"] > 0
    given = [row for row in rows.values() if row["name"] == "given"]
    assert [row["engine"] for row in given] == ["openvino", "paddle_inference"]
    reference = min(given, key=lambda row: row["latency"]["median_ms"])
    assert [row for row in rows.values() if row["is_reference"]] == [reference]
    assert reference["speedup"] == {"value": 1, "low": 1, "high": 1}
    assert reference["drop"] == {"value": 0, "low": 0, "high": 0}
    assert measured["noise"]["cores_used_by_others"] is not None
    assert rows["onnxruntime", "bf16"]["failure"]["kind"] == "unsupported"
    assert ("openvino", "int8-ptq+bf16") in rows if HAS_BF16 else rows["openvino", "bf16"]["failure"]
    ran = sum(entry["failure"] is None for entry in rows.values())
    with (folder / "latencies.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 6 * ran and {line["inputs"] for line in lines} == {"1x3x48x192", "1x3x48x96"}
    with (folder / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert len(scores) == 12 and len(scores[0]) == ran + 1


def test_an_engine_whose_fp32_computes_something_else_fails_whole(workspace: Path) -> None:
    expected = Samples({"y": Ragged.of(list(noise(4)))})
    expected.save(workspace / "other")
    given = Given(workspace / "artifacts/demo/prepare/given/model.pdmodel", "paddle", workspace / "other")
    job = Job.model_validate({**JOB, "metric": "top1", "target": {"engines": ["openvino"], "precisions": ["fp32", "int8"]}})
    folder = workspace / "artifacts" / "demo"
    rows, _ = measure(exported(workspace), folder / "export", job, folder / "prepare/evaluation", None, print, given)
    causes = {row.variant.name: row.measured.failure for row in rows}
    assert list(causes) == ["given", "fp32", "int8-ptq"]
    assert all(cause is not None and cause.kind == "wrong_output" for cause in causes.values())
    assert "where the given model gives [3, 48, 192]" in str(causes["int8-ptq"])


def test_a_shape_that_does_not_fit_the_samples_is_named(workspace: Path) -> None:
    for shape in ({"x": [48, 96]}, {"y": [3, 48, 96]}):
        with pytest.raises(InputError, match=r"`benchmark.shapes.0.[xy]` is .*feeds are `x` with 3 axes"):
            measured(workspace, exported(workspace), [], benchmark={"shapes": [shape]})


def test_crashes_absences_and_missing_files_are_rows(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run_by(monkeypatch, "onnxruntime", "tests.support.fake_engines:Aborts")
    run_by(monkeypatch, "paddle_inference", "tests.support.not_installed:Engine")
    candidates, told = exported(workspace), list[str]()
    del candidates[1].files["openvino"]
    candidates[1].refused["paddle_inference"] = "it knows no zero point"
    settings = Benchmark(rounds=3, runs_per_round=1, seconds=0)
    target = {"precisions": ["fp32", "int8"]}
    found, machine = measured(workspace, candidates, told, target=target, benchmark=settings.model_dump())
    rows = to_results(found, 1, settings)
    failures = {(row.engine, row.name): row.failure and row.failure.kind for row in rows}
    assert failures == {
        ("openvino", "fp32"): None,
        ("openvino", "int8-ptq"): "error",
        ("onnxruntime", "fp32"): "crash",
        ("onnxruntime", "int8-ptq"): "unsupported",
        ("paddle_inference", "fp32"): "missing",
        ("paddle_inference", "int8-ptq"): "unsupported",
    }
    assert rows[1].failure is not None and "wrote no file" in rows[1].failure.cause
    assert rows[5].failure is not None and rows[5].failure.cause == "it knows no zero point"
    assert len(told) == 6 + 3
    assert list(machine.by_engine) == ["openvino"]
