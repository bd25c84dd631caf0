"""The stages `analyze` and `select` as a user runs them, on the classifier."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from act.model import InferenceModel
from tests.place import Place


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("analysed"))
    for stage in ("prepare", "analyze", "analyze.select"):
        done = place.run(stage)
        assert done.returncode == 0, done.stderr
    return place


def result(place: Place, name: str) -> Any:
    return json.loads((place.folder / "artifacts/mine" / name).read_text())


def test_what_the_model_costs(analysed: Place) -> None:
    analysis = result(analysed, "analyze/analysis.json")
    model = InferenceModel.load(analysed.folder / "artifacts/mine/prepare/model")
    assert analysis["parameters"] == sum(model.weight(name).size for name in model.weight_names())
    assert analysis["dynamic_axes"]["x"][0] == 0
    assert analysis["sample_shapes"] == {"x": [1, 3, 48, 192]}
    assert analysis["multiply_adds"] == sum(o["multiply_adds"] for o in analysis["operators"])
    assert analysis["latency_source"].startswith("measured")
    shares = [o["latency_share"] for o in analysis["operators"] if o["latency_share"] is not None]
    assert len(shares) > 40 and 0.3 < sum(shares) <= 1
    assert sum(kernel["seconds"] for kernel in analysis["kernels"]) > 0


def test_what_each_engine_can_do(analysed: Place) -> None:
    engines = result(analysed, "analyze/analysis.json")["engines"]
    assert set(engines) == {"openvino", "onnxruntime", "paddle_inference"}
    for engine in engines.values():
        assert engine["version"] and {"fp32", "int8"} <= set(engine["precisions"])
        assert engine["int8_layers"] > 40


def test_the_table_has_a_line_an_operator(analysed: Place) -> None:
    with (analysed.folder / "artifacts/mine/analyze/operators.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    operators = result(analysed, "analyze/analysis.json")["operators"]
    assert [(row["name"], int(row["multiply_adds"])) for row in rows] == [
        (operator["name"], operator["multiply_adds"]) for operator in operators
    ]


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
    for stage in ("analyze", "analyze.select"):
        done = place.run(stage)
        assert done.returncode == 2
        assert done.stderr.startswith("error: artifacts/mine/") and done.stderr.count("\n") == 1
    assert not (tmp_path / "artifacts").exists()


def test_a_target_that_was_not_analysed_is_told(analysed: Place, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts/mine/analyze"
    folder.mkdir(parents=True)
    analysis = result(analysed, "analyze/analysis.json")
    del analysis["engines"]["onnxruntime"]
    (folder / "analysis.json").write_text(json.dumps(analysis))
    done = Place(tmp_path).run("analyze.select")
    assert done.returncode == 2
    assert "knows nothing of onnxruntime" in done.stderr and "tasks.analyze --job mine" in done.stderr
