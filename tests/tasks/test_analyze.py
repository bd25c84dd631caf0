"""The stages `analyze` and `select` as a user runs them, on the classifier."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from act.engines import inspection
from act.engines.inspection import Inspection, ask_engines
from act.onnx_graph.conversion import to_onnx
from act.program.graph import Graph
from act.program.model import InferenceModel
from act.settings import Job
from tests.support.engines import run_by
from tests.support.models import noise
from tests.support.place import JOB, Place

pytestmark = pytest.mark.usefixtures("brief_baseline")


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("analysed"))
    for stage in ("prepare", "analyze", "select"):
        done = place.run(stage)
        assert done.returncode == 0, done.stderr
    return place


def result(place: Place, name: str) -> Any:
    return json.loads((place.folder / "artifacts/mine" / name).read_text())


def test_what_the_model_costs(analysed: Place) -> None:
    analysis = result(analysed, "analyze/analysis.json")
    model = InferenceModel.load(analysed.folder / "artifacts/mine/prepare/model")
    assert analysis["parameters"] == sum(model.weight(name).size for name in model.weight_names())
    file = analysed.folder / "artifacts/mine/prepare/model/model.pdiparams"
    headers = file.stat().st_size - 4 * analysis["parameters"]
    assert 0 < headers < 64 * len(model.weight_names())
    assert analysis["dynamic_axes"] == {"x": [0, 2, 3]}
    assert analysis["sample_shapes"] == {"x": [1, 3, 48, 192]}
    assert analysis["macs"] == sum(o["macs"] for o in analysis["operators"])
    assert analysis["latency_source"].startswith("measured")
    shares = [o["latency_share"] for o in analysis["operators"] if o["latency_share"] is not None]
    assert len(shares) == sum(o["macs"] > 0 for o in analysis["operators"]) == 54
    seconds = {kernel["kind"]: kernel["seconds"] for kernel in analysis["kernels"]}
    layers = seconds["Convolution"] + seconds["FullyConnected"]
    assert sum(shares) == pytest.approx(layers / sum(seconds.values()))
    assert [kernel["count"] for kernel in analysis["kernels"] if kernel["kind"] == "Convolution"] == [53]


def test_what_the_model_is_made_of(analysed: Place) -> None:
    analysis = result(analysed, "analyze/analysis.json")
    found = analysis["structure"]
    assert found["kind"] == "cnn" and len(found["residual_joins"]) == 7 and len(found["gates"]) == 9
    assert found["heads"][0]["types"][-3:] == ["matmul_v2", "elementwise_add", "softmax"]
    parts = [found["backbone"], *found["heads"]]
    for cost in ("parameters", "macs"):
        assert sum(part[cost] for part in parts) == sum(row[cost] for row in analysis["census"])
    assert sum(row["count"] for row in analysis["census"]) == len(analysis["operators"])
    memory = analysis["memory"]
    floats = 4 * sum(math.prod(operator["shape"]) for operator in analysis["operators"])
    assert 0 < memory["peak_bytes"] < memory["total_bytes"] <= floats + 4 * 3 * 48 * 192
    assert analysis["foldable"] == [] and analysis["prepared"]["folded_batch_norms"] == 35


def test_what_the_engines_fuse(analysed: Place) -> None:
    analysis = result(analysed, "analyze/analysis.json")
    layers = {row["type"]: row["count"] for row in analysis["census"] if row["macs"]}
    for name, engine in analysis["engines"].items():
        fusion = engine["fusion"]
        assert fusion["operators"] == len(analysis["operators"])
        assert fusion["kernels"] == sum(kind["count"] for kind in fusion["kinds"])
        for row in fusion["types"]:
            assert row["own"] == sum(row["own_kinds"].values()), (name, row)
            assert row["own"] + sum(row["into"].values()) + row["beforehand"] == row["count"], (name, row)
            if row["type"] in layers:
                assert row["own"] == row["count"], (name, row)
            if row["type"] == "relu":
                assert row["own"] == 0, (name, row)
        assert engine["multiplying"]["fp32"] == {"fp32": sum(layers.values())}, name
        assert ("bf16" in engine["multiplying"]) == ("bf16" in engine["precisions"])


def test_how_sensitive_the_layers_are(analysed: Place) -> None:
    analysis = result(analysed, "analyze/analysis.json")
    found = analysis["sensitivity"]
    assert found["samples"] == 2 and found["why"] == "" and len(found["layers"]) == 54
    costs = {operator["name"]: operator["macs"] for operator in analysis["operators"]}
    ranked = [costs[layer["name"]] for layer in found["layers"]]
    assert ranked == sorted(ranked, reverse=True)
    assert all(0 < layer["quantized"] < 2 for layer in found["layers"])
    assert [layer["name"] for layer in found["layers"] if layer["pruned"] == {}] == [
        next(operator["name"] for operator in analysis["operators"] if operator["type"] == "matmul_v2")
    ]


def test_no_sensitivity_where_none_is_asked_for_and_the_strategy_is_the_same(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.shorten(12)
    place.job |= {"metric": "similarity", "target": {"engines": ["onnxruntime"]}}
    assert place.run("prepare").returncode == 0
    sensitivities, strategies = [], []
    for settings in ({"time_limit_seconds": 0}, {}):
        place.job["analyze"] = settings
        for stage in ("analyze", "select"):
            assert place.run(stage).returncode == 0
        sensitivities.append(result(place, "analyze/analysis.json")["sensitivity"])
        strategies.append(result(place, "select/strategy.json"))
    assert sensitivities[0]["layers"] == [] and sensitivities[0]["why"] == "not asked for"
    assert len(sensitivities[1]["layers"]) == 12
    assert strategies[0] == strategies[1]


def test_shapes_are_for_one_sample(analysed: Place) -> None:
    operators = result(analysed, "analyze/analysis.json")["operators"]
    assert {o["shape"][0] for o in operators if o["macs"]} == {1}
    first = next(o for o in operators if o["type"] == "conv2d")
    assert first["shape"] == [1, 8, 24, 96] and first["weights"] == [[8, 3, 3, 3]]
    assert first["macs"] == (8 * 24 * 96) * (3 * 3 * 3)
    last = [o for o in operators if o["macs"]][-1]
    assert (last["type"], last["shape"], last["macs"]) == ("matmul_v2", [1, 2], 200 * 2)


def test_what_each_engine_can_do(analysed: Place) -> None:
    analysis = result(analysed, "analyze/analysis.json")
    engines = analysis["engines"]
    assert {name: engine["failure"] for name, engine in engines.items() if engine["failure"]} == {}
    packages = {"openvino": "openvino", "onnxruntime": "onnxruntime", "paddle_inference": "paddlepaddle"}
    assert {name: engine["version"] for name, engine in engines.items()} == {
        name: version(package) for name, package in packages.items()
    }
    for engine in engines.values():
        assert {"fp32", "int8"} <= set(engine["precisions"])
        assert engine["int8_layers"] == 54 and engine["int8_macs"] == analysis["macs"]
        assert 0 < engine["int8_parameters"] < analysis["parameters"]


def test_bf16_is_offered_where_the_cpu_has_it(analysed: Place) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    bf16 = "avx512_bf16" in flags or "amx_bf16" in flags
    engines = result(analysed, "analyze/analysis.json")["engines"]
    assert ("bf16" in engines["paddle_inference"]["precisions"]) == bf16
    assert "bf16" in engines["openvino"]["precisions"] or not bf16
    assert "bf16" not in engines["onnxruntime"]["precisions"]
    for name, rows in result(analysed, "select/strategy.json")["precisions"].items():
        assert {row["name"] for row in rows} == set(engines[name]["precisions"]) - {"int8+bf16"}
        assert all(row["why"] for row in rows)


def asked(place: Place, *engines: str) -> dict[Any, Inspection]:
    prepared = place.folder / "artifacts/mine/prepare"
    job = Job.model_validate({**JOB, "target": {"engines": list(engines)}})
    model = InferenceModel.load(prepared / "model")
    return ask_engines(job, Graph(model, {"x": noise(1)}), to_onnx(model), prepared)


def test_an_engine_that_is_not_installed_is_told(analysed: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run_by(monkeypatch, "openvino", "tests.support.not_installed:Engine")
    told = asked(analysed, "openvino", "onnxruntime")
    timed = {kernel["kind"] for kernel in told["onnxruntime"].timed}
    assert {"Conv", "GlobalAveragePool"} <= timed, "those of the next engine"
    missing = told["openvino"]
    assert missing.precisions == [] and str(missing.failure).startswith("missing")
    assert told["onnxruntime"].precisions == ["fp32", "int8"] and told["openvino"].kernels == []


def test_an_engine_that_fails_in_passing_is_asked_again(
    analysed: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_ENGINE_TRIED", str(tmp_path / "tried"))
    monkeypatch.setattr(inspection, "check_outputs", lambda *_: None)  # these engines compute something else
    for engine, precisions in (("AbortsOnce", ["fp32"]), ("Exits", [])):
        run_by(monkeypatch, "openvino", f"tests.support.fake_engines:{engine}")
        assert asked(analysed, "openvino")["openvino"].precisions == precisions


def test_the_strategy_says_why(analysed: Place) -> None:
    strategy = result(analysed, "select/strategy.json")
    assert [part["name"] for part in strategy["strategy"]] == [
        "HyperParameterOptimization",
        "QuantPost",
        "QuantAware",
        "Distillation",
    ]
    assert all(len(part["why"]) > 20 for part in strategy["strategy"])
    assert strategy["quantize"] and strategy["search"] and strategy["train"]


def test_a_stage_without_its_input_ends_in_one_line(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for stage in ("analyze", "select"):
        done = place.run(stage)
        assert done.returncode == 2
        assert done.stderr.startswith("error: artifacts/mine/") and done.stderr.count("\n") == 1
    assert not (tmp_path / "artifacts").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda prepare: cut(prepare / "prepare.json"), "prepare.json: cannot be read as JSON"),
        (lambda prepare: cut(prepare / "model/model.pdiparams"), "is cut off"),
        (lambda prepare: cut(prepare / "calibration/0.values.npy"), "damaged samples"),
        (lambda prepare: shutil.rmtree(prepare / "model"), "no such folder"),
    ],
)
def test_a_damaged_input_ends_in_one_line(
    analysed: Place, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    place = Place(tmp_path)
    prepare = tmp_path / "artifacts/mine/prepare"
    shutil.copytree(analysed.folder / "artifacts/mine/prepare", prepare)
    spoil(prepare)
    done = place.run("analyze")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: artifacts/mine/prepare") and words in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in prepare.parent.iterdir()] == ["prepare"]


def test_the_strategy_depends_on_nothing_that_was_measured(analysed: Place, tmp_path: Path) -> None:
    analysis = result(analysed, "analyze/analysis.json")
    for kernel in analysis["kernels"]:
        kernel["seconds"] *= 7
    for operator in analysis["operators"]:
        operator["latency_share"] = None
    for precisions in analysis["own"].values():
        for told in precisions.values():
            told["seconds"] *= 7
    folder = tmp_path / "artifacts/mine/analyze"
    folder.mkdir(parents=True)
    (folder / "analysis.json").write_text(json.dumps(analysis))
    done = Place(tmp_path).run("select")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("select: HyperParameterOptimization + QuantPost + QuantAware + Distillation: ")
    written = "artifacts/mine/select/strategy.json"
    assert (tmp_path / written).read_bytes() == (analysed.folder / written).read_bytes()


def test_a_target_that_was_not_analysed_is_told(analysed: Place, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts/mine/analyze"
    folder.mkdir(parents=True)
    analysis = result(analysed, "analyze/analysis.json")
    del analysis["engines"]["onnxruntime"]
    (folder / "analysis.json").write_text(json.dumps(analysis))
    done = Place(tmp_path).run("select")
    assert done.returncode == 2
    assert "knows nothing of onnxruntime" in done.stderr and "tasks.analyze --job mine" in done.stderr
