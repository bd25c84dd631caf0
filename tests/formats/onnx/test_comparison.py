"""An import is run beside the file's own runtime, and the first tensor that differs is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from act.engines.process import EngineFailure, EngineProcess, LoadInfo
from act.errors import InputError
from act.formats import SourceModel
from act.program.outputs import deviation
from act.samples.dataset import Ragged, Samples
from tests.formats.onnx.support import model_of

X = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
NODES = [
    helper.make_node("Relu", ["x"], ["a"], name="first"),
    helper.make_node("LeakyRelu", ["x"], ["b"], name="second", alpha=0.1),
    helper.make_node("Add", ["a", "b"], ["y"], name="third"),
]


@pytest.fixture
def source(tmp_path: Path) -> SourceModel:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of(NODES, {"x": ["N", 3, 5]}, ["y"]).SerializeToString())
    return SourceModel.find(path)


def saved(folder: Path) -> Samples:
    samples = Samples({"x": Ragged.of(list(X))})
    samples.save(folder)
    return samples


def test_a_right_import_is_told_how_near_it_is(source: SourceModel, tmp_path: Path) -> None:
    deviation = source.check(source.load(), saved(tmp_path / "samples"), tmp_path / "samples")
    assert deviation is not None and deviation < 1e-6


def test_the_first_tensor_that_differs_is_named(source: SourceModel, tmp_path: Path) -> None:
    model = source.load()
    model.producer("b")._set_attr("alpha", 0.2)
    with pytest.raises(InputError, match=r"first at node `second` \(LeakyRelu\), tensor `b`"):
        source.check(model, saved(tmp_path / "samples"), tmp_path / "samples")


def test_rows_that_are_chosen_by_score_may_come_in_another_order(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["scores"], axes=[2], keepdims=0),
        helper.make_node("TopK", ["scores", "k"], ["best", "index"]),
        helper.make_node("Unsqueeze", ["index", "last"], ["column"]),
        helper.make_node("Expand", ["column", "width"], ["places"]),
        helper.make_node("GatherElements", ["x", "places"], ["rows"], axis=1),
        helper.make_node("MatMul", ["rows", "w"], ["boxes"]),
    ]
    constants = {"k": np.array([3]), "last": np.array([2]), "width": np.array([1, 1, 5]), "w": X[0, 0, :, None]}
    proto = model_of(nodes, {"x": ["N", 3, 5]}, ["rows", "boxes"], constants)
    path.write_bytes(proto.SerializeToString())
    source = SourceModel.find(path)
    model, samples = source.load(), saved(tmp_path / "samples")
    next(op for op in model.ops if op.type == "top_k_v2")._set_attr("largest", False)
    off = source.check(model, samples, tmp_path / "samples")
    assert off is not None and off < 1e-6
    model.set_weight("w", 1.1 * model.weight("w"))
    with pytest.raises(InputError, match="computes something else"):
        source.check(model, samples, tmp_path / "samples")


def test_a_file_that_its_runtime_cannot_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["y"], ["z"], domain="")]
    proto = model_of(nodes, {"x": ["N", 3, 5]}, ["z"])
    proto.ir_version = 99
    path.write_bytes(proto.SerializeToString())
    source = SourceModel.find(path)
    with pytest.raises(InputError, match="ONNX Runtime cannot run it"):
        source.check(source.load(), saved(tmp_path / "samples"), tmp_path / "samples")


def test_a_runtime_that_crashes_on_what_it_makes_of_a_file_runs_it_as_it_is_written(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As ONNX Runtime 1.32 does on transformers in half precision."""
    load = EngineProcess.load

    def crash(self: EngineProcess, optimised: bool = True) -> LoadInfo:
        if optimised:
            raise EngineFailure("crash", "ended by SIGSEGV")
        return load(self, optimised=False)

    monkeypatch.setattr(EngineProcess, "load", crash)
    off = source.check(source.load(), saved(tmp_path / "samples"), tmp_path / "samples")
    assert off is not None and off < 1e-6
    assert "crashes as it optimises it (ended by SIGSEGV)" in caplog.text


def test_axes_of_one_name_are_of_one_length(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    inputs: dict[str, list[object]] = {"x": ["N", "L", None], "z": ["N", 4, "L"]}
    path.write_bytes(model_of([helper.make_node("Relu", ["x"], ["y"])], inputs, ["y"]).SerializeToString())

    def samples(*lengths: tuple[int, int]) -> Samples:
        return Samples(
            {
                "x": Ragged.of([np.zeros((length, 2), np.float32) for length, _ in lengths]),
                "z": Ragged.of([np.zeros((4, length), np.float32) for _, length in lengths]),
            }
        )

    source = SourceModel.find(path)
    source.check_axes(samples((2, 2), (5, 5), (1, 1)), "data")
    words = "data: sample 1: axis 2 of `z` has length 4, but axis 1 of `x` 5, and the model calls both `L`"
    with pytest.raises(InputError, match=words):
        source.check_axes(samples((2, 2), (5, 4), (1, 1)), "data")


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0), r"output `y` has shape \[\] for 1 samples"),
        (helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0), r"output `y` has shape \[3, 5\] for 1"),
        (helper.make_node("Log", ["x"], ["y"]), "output `y` holds NaN or infinity; mend the model or"),
        (helper.make_node("Reshape", ["x", "t"], ["y"]), "on the first calibration samples .*mend the samples or the"),
    ],
    ids=["no axes", "no batch", "NaN", "samples that do not fit"],
)
def test_what_a_file_or_the_samples_have_wrong_is_told(node: onnx.NodeProto, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of([node], {"x": ["N", 3, "L"]}, ["y"], {"t": np.array([-1, 7])}).SerializeToString())
    source = SourceModel.find(path)
    with pytest.raises(InputError, match=words):
        source.check(source.load(), saved(tmp_path / "samples"), tmp_path / "samples")


def test_the_deviation_is_that_of_the_worst_output() -> None:
    a, b = np.array([1.0, 2.0]), np.array([[100.0]])
    assert deviation([a, b], [a, b]) == 0
    assert deviation([a + 0.1, b], [a, b]) == pytest.approx(0.05)
    assert deviation([a], [b]) == np.inf
    assert deviation([a * np.nan], [a]) == np.inf
    assert deviation([np.array([np.nan, np.inf])], [np.array([np.nan, np.inf])]) == 0
