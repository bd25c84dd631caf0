"""Models and data on the edge: each goes through the stages for real, and is handled or refused with one clear line."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

import act.engines.writer
import act.onnx_graph.conversion
import act.search.schemes
from act.artifacts import read_json
from act.engines.check import Checker
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.passes.normalise import normalise
from act.quantization.scheme import make_scheme
from act.samples.dataset import Array, Samples
from tests.support.engines import export
from tests.support.models import seen
from tests.support.odd_models import ODD
from tests.support.place import JOB

pytestmark = pytest.mark.usefixtures("brief_baseline")
STAGES = ["prepare", "analyze", "select", "prune", "calibrate", "ptq_search"]
STAGES += ["refine", "plan", "qat", "export", "benchmark", "report"]
ARTIFACTS = Path("artifacts/mine")
CONVERTERS = (act.onnx_graph.conversion, act.engines.writer, act.search.schemes)


@pytest.fixture(autouse=True)
def converted_once(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each stage converts the model to ONNX in a process of its own; once is enough here."""
    real, known = act.onnx_graph.conversion.to_onnx, dict[bytes, onnx.ModelProto]()

    def to_onnx(model: InferenceModel) -> onnx.ModelProto:
        folder = tmp_path_factory.mktemp("model")
        model.save(folder)
        key = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
        if key not in known:
            known[key] = real(model)
        copy = onnx.ModelProto()
        copy.CopyFrom(known[key])
        return copy

    for module in CONVERTERS:
        monkeypatch.setattr(module, "to_onnx", to_onnx)


class Stages:
    """The stages on one odd model, in this process: starting one for each of them takes longer than they do."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self._monkeypatch = name, monkeypatch
        self.job: dict[str, Any] = {
            **JOB,
            "metric": ODD[name].metric,
            "target": {"engines": ["onnxruntime"]},
            "calibration": {"batch_size": 4, "batch_num": [1, 2]},
            "ptq_search": {"max_quant_count": 2},
            "refine": {"steps": 2},
            "qat": {"epochs": 1},
            "benchmark": {"rounds": 3, "runs_per_round": 2, "seconds": 0, "streams": 1},
        }
        model = ODD[name].model()
        Path("model").mkdir()
        Path("data").mkdir()
        model.save(Path("model"))
        self.save("calibration", ODD[name].samples(model, 6, seed=1))
        self.save("evaluation", ODD[name].samples(model, 7, seed=2))

    @staticmethod
    def save(role: str, samples: Samples) -> None:
        arrays: dict[str, Array] = {}
        for name, feed in samples.feeds.items():
            if len({tuple(shape) for shape in feed.shapes}) > 1:
                arrays |= {name: feed.flat, f"{name}.shapes": feed.shapes}
            else:
                arrays[name] = np.stack(list(feed))
        if samples.labels is not None and role == "evaluation":
            arrays["label"] = np.stack(list(samples.labels))
        np.savez(Path("data") / f"{role}.npz", **arrays)

    def run(self, first: str = "prepare", last: str = "ptq_search") -> None:
        Path("params.yaml").write_text(yaml.safe_dump({"jobs": {"mine": self.job}}))
        self._monkeypatch.setattr(sys, "argv", ["stage", "--job", "mine"])
        for name in STAGES[STAGES.index(first) : STAGES.index(last) + 1]:
            importlib.import_module(f"tasks.{name}.__main__").main()


@pytest.fixture
def stages(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    monkeypatch.chdir(tmp_path)
    return Stages(request.param, monkeypatch)


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stages", names, indirect=True)


def found() -> dict[str, Any]:
    return read_json(ARTIFACTS / "ptq_search" / "trials.json")


def lengths(folder: Path) -> set[tuple[int, ...]]:
    return {tuple(shape) for feed in Samples.load(folder).feeds.values() for shape in feed.shapes.tolist()}


@on("picture_and_ids")
def test_two_inputs_of_which_one_is_integers_of_any_length_reach_the_report(stages: Stages) -> None:
    stages.job["target"] = {"engines": ["onnxruntime", "openvino", "paddle_inference"], "batch": 3}
    stages.job["budget"] = {"max_quality_drop": 0.2}
    stages.job["ptq_search"] = {"max_quant_count": 2, "activation_symmetric": [True]}  # all that Paddle Inference knows
    stages.run(last="report")
    assert found()["reference"]["quality"] == 1.0
    assert len(found()["sensitivity"]) == 3, "the convolution and both matrix products"
    assert min(trial["quality"] for trial in found()["trials"]) > 0.5
    variants = read_json(ARTIFACTS / "benchmark" / "measurements.json")["variants"]
    measured = {(entry["engine"], entry["precision"]) for entry in variants if entry["failure"] is None}
    assert {(engine, kind) for engine in stages.job["target"]["engines"] for kind in ("fp32", "int8")} <= measured
    assert Path("deploy/mine/quant_model.onnx").is_file() and Path("deploy/mine/report.html").is_file()


@on("tokens")
def test_outputs_of_different_lengths_are_compared_to_the_report_and_smoothed_on_the_way(stages: Stages) -> None:
    stages.job["target"] = {"engines": ["onnxruntime"], "batch": 3}
    stages.job["ptq_search"]["smooth_strength"] = [0.5]
    stages.run(last="report")
    smoothed = [
        name for file in (ARTIFACTS / "refine" / "schemes").iterdir() for name in read_json(file)["activations"]
    ]
    assert smoothed and all(name.endswith(".smoothed_0.5") for name in smoothed)
    assert len(lengths(ARTIFACTS / "prepare" / "reference")) > 1
    assert all(trial["quality"] > 0.99 for trial in found()["trials"])
    manifest = read_json(Path("deploy/mine/manifest.json"))
    assert manifest["job"] == "mine"


@on("fixed_batch", "batch_of_one")
def test_a_batch_of_one_is_freed_or_kept_to_the_report(stages: Stages) -> None:
    """Trained, too: where one sample goes at a time, gradients are gathered over several."""
    freed = ODD["fixed_batch"].network is ODD[stages.name].network
    stages.job["target"] = {"engines": ["openvino", "onnxruntime"], "batch": 2 if freed else 1}
    stages.job |= {"budget": {"max_quality_drop": 0.0}, "strategy": ["QuantAware"]}
    stages.run(last="report")
    assert read_json(ARTIFACTS / "prepare" / "prepare.json")["batch"] == ("freed" if freed else "one")
    measured = read_json(ARTIFACTS / "benchmark" / "measurements.json")["variants"]
    ran = {entry["name"] for entry in measured if entry["engine"] == "openvino" and entry["failure"] is None}
    assert "fp32" in ran and ("given" in ran) is not freed, "the given file takes one sample, not two"
    assert any(name.startswith("int8") for name in ran)


@on("reader", "fully_convolutional")
def test_pictures_of_different_sizes_are_searched(stages: Stages) -> None:
    """Lines of different lengths under `ctc_exact`, maps of different sizes under `similarity`."""
    stages.run()
    assert len(lengths(ARTIFACTS / "prepare" / "evaluation")) > 2
    assert found()["reference"]["quality"] == pytest.approx(1.0)
    assert found()["front"] and max(trial["quality"] for trial in found()["trials"]) > 0.8


@on("constant", "silent_inside")
def test_a_constant_output_is_told_and_int8_keeps_it(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    stages.run()
    assert "is the same for every evaluation sample" in capsys.readouterr().out
    assert len(read_json(ARTIFACTS / "prepare" / "prepare.json")["constant_outputs"]) == 1
    assert all(entry["error"] == pytest.approx(0, abs=1e-6) for entry in found()["sensitivity"])
    assert all(trial["quality"] == pytest.approx(1) for trial in found()["trials"])


@on("nothing")
@pytest.mark.parametrize("strategy", ["auto", ["QuantPost"]])
def test_without_a_layer_to_quantize_fp32_is_what_is_left(
    stages: Stages, strategy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.job["strategy"] = strategy
    stages.run(last="report" if strategy == "auto" else "ptq_search")
    assert "ptq_search: nothing to do: the " in capsys.readouterr().out
    assert found()["trials"] == [] and found()["why"]
    if strategy == "auto":
        assert read_json(Path("deploy/mine/manifest.json"))["winner"]["precision"] in ("fp32", "bf16")


@on("deformable")
def test_without_an_onnx_form_an_engine_that_needs_none_measures_the_model(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.job["target"] = {"engines": ["paddle_inference", "openvino"]}
    stages.run(last="report")
    assert "has no ONNX form, so it is run as it is, not quantized or pruned" in capsys.readouterr().out
    variants = read_json(ARTIFACTS / "benchmark" / "measurements.json")["variants"]
    ran = {(each["engine"], each["precision"]) for each in variants if each["failure"] is None}
    assert ("paddle_inference", "fp32") in ran and {engine for engine, _ in ran} == {"paddle_inference"}
    written = [each for each in variants if each["engine"] == "openvino" and each["candidate"] == "fp32"]
    assert written and all("the model has no ONNX form: " in each["failure"]["cause"] for each in written)
    assert Path("deploy/mine/report.html").is_file() and not list(Path("deploy/mine").rglob("*.onnx"))
    stages.job["strategy"] = ["QuantPost"]
    with pytest.raises(SystemExit):
        stages.run("select", "select")
    assert "`strategy` asks for QuantPost, but the model has no ONNX form" in capsys.readouterr().err
    stages.job["target"] = {"engines": ["onnxruntime"]}
    with pytest.raises(SystemExit):
        stages.run("analyze", "analyze")
    assert "`target.engines: [paddle_inference]`" in capsys.readouterr().err


@on("one_class")
def test_one_class_and_one_evaluation_sample_reach_the_report(stages: Stages) -> None:
    model = InferenceModel.load(Path("model"))
    stages.save("evaluation", ODD["one_class"].samples(model, 1, seed=2))
    stages.run(last="report")
    assert [trial["quality"] for trial in found()["trials"]] == [1.0, 1.0]
    variants = read_json(ARTIFACTS / "benchmark" / "measurements.json")["variants"]
    drops = [entry["drop"] for entry in variants if entry["drop"] is not None]
    assert drops and all(drop == {"value": 0.0, "low": 0.0, "high": 0.0} for drop in drops)


@on("two_outputs", "integer_output")
def test_outputs_of_whole_numbers_are_searched_and_trained_by_what_they_are_made_of(stages: Stages) -> None:
    stages.job["strategy"] = ["QuantAware"]
    stages.run(last="qat")
    assert found()["front"]
    trained = read_json(ARTIFACTS / "qat" / "qat.json")
    assert trained["needed"]
    assert read_json(ARTIFACTS / "prepare" / "prepare.json")["tail"][0] == "arg_max"


@on("zero_over_zero")
def test_an_fp32_model_that_fails_on_an_evaluation_sample_is_not_searched(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = np.load("data/evaluation.npz")["x"]
    pictures[3] = 0
    np.savez("data/evaluation.npz", x=pictures, label=np.zeros(len(pictures), dtype=np.int64))
    stages.run()
    assert "onnxruntime cannot run the fp32 model" in found()["why"]
    assert "NaN or infinity in the output for sample 3" in capsys.readouterr().out


@on("transposed_same")
def test_an_engine_that_computes_something_else_is_not_searched_on_and_meets_no_budget(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.job["target"] = {"engines": ["openvino", "onnxruntime"], "precisions": ["fp32", "int8"]}
    stages.job |= {"analyze": {"time_limit_seconds": 0}, "strategy": ["QuantPost"]}
    stages.run(last="report")
    assert "candidates are searched on onnxruntime: openvino: wrong_output: " in capsys.readouterr().out
    reference, [trial] = found()["reference"], found()["trials"]
    assert reference["engine"] == "onnxruntime" and trial["quality"] > 0.9
    variants = read_json(ARTIFACTS / "benchmark" / "measurements.json")["variants"]
    ran = {entry["engine"]: entry["failure"] is None for entry in variants}
    assert ran == {"openvino": False, "onnxruntime": True}
    assert read_json(Path("deploy/mine/manifest.json"))["winner"]["engine"] == "onnxruntime"
    stages.job |= {"target": {"engines": ["openvino"]}, "strategy": ["ASPPrune", "QuantPost"]}
    stages.run(first="analyze", last="benchmark")
    assert read_json(ARTIFACTS / "prune" / "prune.json")["pruned"] is False and found()["trials"] == []
    with pytest.raises(SystemExit) as ended:
        stages.run(first="report", last="report")
    assert ended.value.code == 2 and "no engine of the target could run the model" in capsys.readouterr().err


def no_samples(stages: Stages) -> None:
    arrays = dict(np.load("data/calibration.npz"))
    np.savez("data/calibration.npz", **{name: values[:0] for name, values in arrays.items()})


def black_picture(stages: Stages) -> None:
    stages.job["metric"] = "similarity"
    pictures = np.load("data/evaluation.npz")["x"]
    pictures[3] = 0
    np.savez("data/evaluation.npz", x=pictures)


def another_size(role: str) -> Callable[[Stages], None]:
    """Return what adds a larger sample, behind those that are run to see that the model runs at all."""

    def spoil(stages: Stages) -> None:
        arrays = dict(np.load(f"data/{role}.npz"))
        samples = [*arrays["x"], np.zeros((3, 9, 8), np.float32)]
        arrays |= {"x": np.concatenate([each.reshape(-1) for each in samples]), "x.shapes": [s.shape for s in samples]}
        if "label" in arrays:
            arrays["label"] = np.resize(arrays["label"], len(samples))
        np.savez(f"data/{role}.npz", **arrays)

    return spoil


def misspelt_node(stages: Stages) -> None:
    stages.job |= {"strategy": ["QuantPost"], "distillation": {"loss": "l2", "node": ["relu_0.tmp_O"]}}


def one_id_out_of_range(stages: Stages) -> None:
    """Make ids fit, but for one behind the samples that are run first."""
    for role in ("calibration", "evaluation"):
        ids = np.load(f"data/{role}.npz")["ids"] % 11
        ids[-1] = 40 if role == "calibration" else 0
        np.savez(f"data/{role}.npz", ids=ids)


def int8_asked_for(stages: Stages) -> None:
    """Have a model quantized of which ONNX Runtime makes NaN, and Paddle none."""
    stages.job["strategy"] = ["QuantPost"]


def batch_of_two(stages: Stages) -> None:
    stages.job["target"] = {"engines": ["onnxruntime"], "batch": 2}


def bad_shapes(stages: Stages) -> None:
    arrays = dict(np.load("data/calibration.npz"))
    arrays["ids.shapes"] = arrays["ids.shapes"] + 1
    np.savez("data/calibration.npz", **arrays)


@pytest.mark.parametrize(
    ("stages", "spoil", "stage", "words"),
    [
        ("constant", no_samples, "prepare", "no samples; at least one is needed"),
        ("tokens", bad_shapes, "prepare", "`ids.shapes` asks for"),
        ("overflow", None, "prepare", "on the first calibration samples output"),
        ("zero_over_zero", black_picture, "prepare", "on evaluation sample 3 output"),
        ("ids_out_of_range", None, "prepare", "expected >= 0 and < 11, but got"),
        ("no_batch_axis", None, "prepare", "has shape [] for 4 samples"),
        ("batch_of_four", None, "prepare", "its inputs take 4 samples at a time"),
        ("batch_of_one", batch_of_two, "analyze", "`target.batch` is 2, but the model takes one sample at a time"),
        ("channels_last", None, "analyze", "what it writes is no valid model"),
        ("reshaped", another_size("calibration"), "prepare", "on calibration sample 6: Paddle cannot run the model"),
        ("reshaped", another_size("evaluation"), "prepare", "on evaluation sample 7: Paddle cannot run the model"),
        ("constant", misspelt_node, "prune", "the model has no variable `relu_0.tmp_O`"),
        ("ids_out_of_range", one_id_out_of_range, "calibrate", "the fp32 model cannot run all samples: "),
        ("infinite_inside", int8_asked_for, "calibrate", "of the fp32 model holds NaN or infinity"),
    ],
    indirect=["stages"],
)
def test_what_cannot_be_handled_is_one_line_and_code_2(
    stages: Stages, spoil: Any, stage: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if spoil is not None:
        spoil(stages)
    before = STAGES[: STAGES.index(stage)]
    if before:
        stages.run(last=before[-1])
    with pytest.raises(SystemExit) as ended:
        stages.run(first=stage, last=stage)
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last
    made = {*before, "options", "prune_machine.json"} if "select" in before else set(before)
    assert {path.name for path in ARTIFACTS.glob("*")} == made, "nothing half-written is left"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("turned", 3),  # the weights are stored the other way round
        ("turned_activation", 2),
        ("ranks", 3),
        ("rank_one", 0),
        ("fc", 2),
        ("tied", 1),
        ("shared_weight", 1),
        ("norm_left_over", 2),
        ("grouped", 4),  # with a channel of zeros
    ],
)
def test_what_is_quantized_of_unusual_layers_is_exported_alike(name: str, count: int, tmp_path: Path) -> None:
    original = ODD[name].model()
    model, _ = normalise(original)
    samples = ODD[name].samples(original, 4, seed=1)
    batch = next(samples.batches(4))
    np.testing.assert_allclose(model.run(batch)[0], original.run(batch)[0], atol=1e-5)
    layers = quantizable_layers(model)
    assert len(layers) == count
    for some in (layers, layers[:1]):
        scheme = make_scheme(model, some, seen(model, some, batch, symmetric=False))
        if some:  # raises where a file computes something else
            export(f"{len(some)}-layers", model, scheme, tmp_path, Checker(samples))
        shutil.rmtree(tmp_path / f"{len(some)}-layers", ignore_errors=True)
