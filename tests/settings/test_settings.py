"""Settings are checked in full, and an error names the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from act.errors import InputError
from act.settings import Distillation, ModelSource, load, load_job
from tests.support import plugins

GOOD: dict[str, Any] = {
    "model": {"path": "models/mine"},
    "data": {"reader": "arrays", "path": "data"},
    "metric": "similarity",
    "target": {},
    "budget": {},
    "strategy": "auto",
    "calibration": {},
    "ptq_search": {},
    "refine": {},
    "distillation": {},
    "prune": {},
    "qat": {},
    "benchmark": {},
}


def write(folder: Path, job: dict[str, Any], name: str = "mine") -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({"jobs": {name: job}}))
    return path


def test_the_shipped_settings_are_right() -> None:
    jobs = load(Path(__file__).parents[2] / "params.yaml").jobs
    assert set(jobs) == {"recogniser", "classifier"}
    assert jobs["recogniser"].data.model_dump()["evaluation"] == 512


def test_a_short_job_gets_the_defaults(tmp_path: Path) -> None:
    job = load_job("mine", write(tmp_path, GOOD))
    assert job.budget.max_quality_drop == 0.05
    assert job.target.threads == 1
    judged = load_job("mine", write(tmp_path, {**GOOD, "metric": "top1"}))
    assert judged.budget.max_quality_drop == 0.01


def test_the_parts_of_a_distillation_belong_together() -> None:
    """What is given once holds for all parts."""
    teachers = [ModelSource(path="first"), ModelSource(path="second")]
    settings = Distillation(loss="l2", node=["a", "b"], alpha=[1.0, 0.5], teachers=teachers)
    assert settings.terms() == [("l2", ["a", "b"], 1.0, 0), ("l2", ["a", "b"], 0.5, 1)]
    settings = Distillation(loss=["l2", "fsp"], node=[["a"], ["b", "c"]])
    assert settings.terms() == [("l2", ["a"], 1.0, 0), ("fsp", ["b", "c"], 1.0, 0)]


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"budget": {"max_quality_dorp": 1}}, ["jobs.mine.budget.max_quality_dorp", "max_quality_drop"]),
        (
            {"budget": {"max_quality_drop": -0.5}},
            ["jobs.mine.budget.max_quality_drop", "-0.5", "greater than"],
        ),
        (
            {"budget": {"min_worst_part": 0.9}, "metric": "top1"},
            ["`budget.min_worst_part`", "metric `top1`", "use `similarity`"],
        ),
        ({"target": {"engines": ["tensorflow"]}}, ["jobs.mine.target.engines.0", "tensorflow", "openvino"]),
        ({"target": {"precisions": ["int8"]}}, ["jobs.mine.target.precisions", "fp32"]),
        ({"target": {"threads": "1"}}, ["jobs.mine.target.threads", "'1'", "integer"]),
        ({"metric": "accuracies"}, ["jobs.mine.metric", "accuracies", "top1"]),
        ({"metric": {"name": "coco_map", "decoder": "yolo"}}, ["jobs.mine.metric", "`decoder` is 'yolo'", "`yolov5`"]),
        (
            {"metric": {"name": "f1", "positiv": 1}},
            ["`positiv` is not a known key; known here: name, output, positive"],
        ),
        ({"metric": {"name": "f1", "positive": "1"}}, ["`positive`", "valid integer"]),
        ({"metric": {"output": 1}}, ["jobs.mine.metric", "give the name of a metric, or a mapping"]),
        ({"metric": {"function": "mine"}}, ["it must be `package.module:name`"]),
        ({"data": {"reader": "video", "path": "x"}}, ["jobs.mine.data", "text_lines", "arrays"]),
        ({"strategy": ["Distillation"]}, ["jobs.mine.strategy", "QuantAware"]),
        (
            {"ptq_search": {"hist_percent": [99.9]}},
            ["jobs.mine.ptq_search.hist_percent.0", "99.9", "less than"],
        ),
        ({"ptq_search": {"ptq_algo": ["avg", "avg"]}}, ["jobs.mine.ptq_search.ptq_algo", "stands twice"]),
        ({"ptq_search": {"ptq_algo": ["median"]}}, ["jobs.mine.ptq_search.ptq_algo.0", "median", "emd"]),
        ({"ptq_search": {"batch_num": [3]}}, ["jobs.mine", "ptq_search.batch_num", "[3]", "calibration.batch_num"]),
        ({"calibration": {"batch_num": [0]}}, ["jobs.mine.calibration.batch_num.0", "greater than or equal to 1"]),
        ({"qat": {"learning_rate": float("nan")}}, ["jobs.mine.qat.learning_rate"]),
        ({"qat": {"optimizer": "Nadam"}}, ["jobs.mine.qat.optimizer", "Nadam", "AdamW"]),
        (
            {"qat": {"learning_rate_schedule": {"type": "StepDecay"}}},
            ["qat.learning_rate_schedule", "StepDecay needs `step_size`"],
        ),
        (
            {"qat": {"learning_rate_schedule": {"gamma": 0.5}}},
            ["CosineAnnealingDecay has no `gamma`", "`T_max`"],
        ),
        ({"qat": {"use_pact": True, "scale_trainable": True}}, ["jobs.mine.qat", "choose one"]),
        ({"distillation": {"loss": "mse"}}, ["jobs.mine.distillation.loss", "mse", "soft_label"]),
        ({"distillation": {"loss": ["l2", "fsp"], "alpha": [1, 2, 3]}}, ["`loss` has 2", "`alpha` has 3"]),
        ({"distillation": {"node": ["x"]}}, ["jobs.mine.distillation", "`node` needs a `loss`"]),
        ({"strategy": ["QuantPost", "ChannelPrune"]}, ["ChannelPrune must stand before QuantPost"]),
        ({"strategy": ["UnstructurePrune", "ASPPrune"]}, ["choose one"]),
        ({"strategy": ["ASPPrune", "ChannelPrune"]}, ["ChannelPrune must stand before ASPPrune"]),
        ({"strategy": ["ASPPrune", "ASPPrune"]}, ["jobs.mine.strategy", "`ASPPrune` stands twice"]),
        ({"prune": {"channel": {"pruned_ratio": [0.5]}}}, ["prune.channel", "1 ratios for 0 names"]),
        ({"prune": {"channel": {"pruned_ratio": 0.5, "target_speedup": 2.0}}}, ["prune.channel", "choose one"]),
        ({"prune": {"channel": {"pruned_ratio": 1.0}}}, ["prune.channel.pruned_ratio", "less than 1"]),
        (
            {"prune": {"unstructured": {"prune_strategy": "gmp", "prune_mode": "threshold"}}},
            ["prune.unstructured", "`prune_mode: ratio`"],
        ),
        ({"prune": {"unstructured": {"ratio": 0.1}}}, ["prune.unstructured", "initial_ratio` is 0.15"]),
        ({"colour": "red"}, ["jobs.mine.colour", "is not a known key"]),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, change: dict[str, Any], fragments: list[str]) -> None:
    path = write(tmp_path, {**GOOD, **change})
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_a_job_may_be_called_like_a_section(tmp_path: Path) -> None:
    path = write(tmp_path, {**GOOD, "budget": {"max_quality_dorp": 1}}, "qat")
    with pytest.raises(InputError, match="`jobs.qat.budget.max_quality_dorp` is not a .*here: max_quality_drop"):
        load(path)


BROKEN: list[dict[str, Any]] = [
    {"target": {"engines": ["broken"]}},
    {"metric": "broken"},
    {"data": {"reader": "broken", "path": "x"}},
    {"ptq_search": {"ptq_algo": ["broken"]}},
    {"prune": {"channel": {"criterion": "broken"}}},
]


def test_a_plugin_that_cannot_be_imported_is_refused_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kinds = ("engines", "metrics", "readers", "thresholds", "criteria", "formats")
    plugins.install(monkeypatch, tmp_path / "plugin", {kind: {"broken": "import not_there"} for kind in kinds})
    load(write(tmp_path, GOOD))
    for change in BROKEN:
        why = "`broken` cannot be imported: ModuleNotFoundError: No module named 'not_there'"
        with pytest.raises(InputError, match=f"jobs.mine.*{why}"):
            load(write(tmp_path, {**GOOD, **change}))


def test_all_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metric.*budget") as caught:
        load(write(tmp_path, {**GOOD, "metric": 3, "budget": {"x": 1}}))
    assert "jobs.mine.metric" in str(caught.value)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    job = {key: value for key, value in GOOD.items() if key != "budget"}
    with pytest.raises(InputError, match="`jobs.mine.budget` is missing"):
        load(write(tmp_path, job))


@pytest.mark.parametrize("text", ["1e-05", "1E-5", "+1e-5", "0.00001"])
def test_numbers_are_read_as_dvc_writes_them(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, {**GOOD, "qat": {"learning_rate": "RATE"}})
    path.write_text(path.read_text().replace("RATE", text))
    assert load_job("mine", path).qat.learning_rate == 1e-5


@pytest.mark.parametrize("name", ["on", "No", "'123'", '"null"', "1a", "0x"])
def test_a_name_is_the_text_that_dvc_takes_it_for(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, GOOD, "NAME")
    path.write_text(path.read_text().replace("NAME", name))
    assert load_job(name.strip("'\""), path)


@pytest.mark.parametrize("name", ["123", "null", "true", "1e5", "2026-11-30"])
def test_a_name_that_is_no_text_in_yaml_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, GOOD, "NAME")
    path.write_text(path.read_text().replace("NAME", name))
    with pytest.raises(InputError, match="`jobs` .*is no text in YAML: put it in quotes"):
        load(path)


@pytest.mark.parametrize("name", ["a@b", "", "-x", "a/b", "x" * 65])
def test_names_that_would_not_make_a_path_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not allowed"):
        load(write(tmp_path, GOOD, name))


@pytest.mark.parametrize("text", ["jobs: [", "- 1", "", "jobs: {}", "jobs: {a: !!python/object/apply:os.getcwd []}"])
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="params.yaml"):
        load(path)


def test_an_unknown_job_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no job `other`.*mine"):
        load_job("other", write(tmp_path, GOOD))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "params.yaml")


def test_references_that_stand_for_billions_of_values_are_told_in_short(tmp_path: Path) -> None:
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 30))
    (tmp_path / "params.yaml").write_text(f"l0: &l0 [x]\n{levels}jobs: *l29\n")
    with pytest.raises(InputError, match="`jobs` is ") as error:
        load(tmp_path / "params.yaml")
    assert len(str(error.value)) < 5000
