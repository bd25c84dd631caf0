"""A model with a tail from the user's file to the table: cut off by `prepare`, put back in files, and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from act.engines.check import Checker
from act.engines.process import EngineProcess
from act.engines.with_tail import put_back
from act.program.model import InferenceModel
from act.results.prepare import Preparation
from act.samples.dataset import Samples
from act.settings import Job
from act.tail.files import SavedTail
from act.timing.benchmark import Given, measure
from tests.support import tails
from tests.support.engines import exported_by
from tests.support.place import Place

ENGINES = ["openvino", "onnxruntime"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    rng = np.random.default_rng(0)
    for role in ("calibration", "evaluation"):
        np.savez(tmp_path / "data" / f"{role}.npz", x=rng.normal(size=(2, 3, 8, 8)).astype(np.float32))
    (tmp_path / "net.onnx").write_bytes(
        tails.onnx_detector(tails.NMS, "int64[k, 3] selected, float[k] best").SerializeToString()
    )
    place.job |= {"model": {"path": "net.onnx"}, "metric": "similarity"}
    place.job |= {"target": {"engines": ENGINES, "precisions": ["fp32"]}}
    place.job |= {"benchmark": {"rounds": 3, "runs_per_round": 1, "seconds": 0}}
    return place


def test_the_boxes_are_those_of_the_given_model_on_every_engine(place: Place) -> None:
    done = place.run()
    assert done.returncode == 0, done.stderr
    prepared = place.folder / "artifacts/mine/prepare"
    preparation = Preparation.read(prepared / "prepare.json")
    assert preparation.tail == ["NonMaxSuppression", "GatherND"]
    assert [each.name for each in preparation.outputs] == ["selected", "best"]
    tail, folder = SavedTail.read(prepared / "tail"), place.folder / "export"
    (folder / "bodies").mkdir(parents=True)
    checker = Checker(Samples.load(prepared / "calibration"))
    model = InferenceModel.load(prepared / "model")
    candidate = put_back(tail, exported_by("fp32", model, folder / "bodies", checker, ENGINES), folder)
    assert set(candidate.files) >= set(ENGINES)
    job = Job.model_validate(place.job | {"analyze": {}})
    given = Given(
        prepared / preparation.given,
        preparation.given_format,
        prepared / "expected",
        body=prepared / "tail" / tail.description.given,
        whole=tail.description.whole,
    )
    samples = prepared / "evaluation"
    rows, _ = measure([candidate], folder, job, samples, prepared / "reference", lambda done: None, given)
    assert [(row.variant.engine, row.variant.name, row.measured.failure) for row in rows] == [
        ("openvino", "given", None),
        ("openvino", "fp32", None),
        ("onnxruntime", "given", None),
        ("onnxruntime", "fp32", None),
    ]
    assert min(row.quality.value for row in rows if row.quality is not None) > 1 - 1e-6
    wanted = _tensors("onnxruntime", prepared / preparation.given, samples)
    assert len(wanted[0]) > 0
    for engine in ENGINES:
        for found, output in zip(_tensors(engine, folder / candidate.files[engine], samples), wanted, strict=True):
            np.testing.assert_allclose(np.sort(found, axis=0), np.sort(output, axis=0), atol=1e-5)


def _tensors(engine: str, path: Path, samples: Path) -> list[np.ndarray]:
    with EngineProcess(engine, path, "fp32") as process:
        process.load()
        return process.tensors(samples)


def test_a_file_that_cannot_have_the_tail_is_named(place: Place) -> None:
    (place.folder / "net.onnx").unlink()
    tails.paddle_choice().save(place.folder / "model")
    for file in (place.folder / "model").glob("inference*"):
        file.unlink()
    place.job["model"] = {"path": "model"}
    done = place.run()
    assert done.returncode == 0, done.stderr
    prepared, folder = place.folder / "artifacts/mine/prepare", place.folder / "export"
    (folder / "bodies").mkdir(parents=True)
    checker = Checker(Samples.load(prepared / "calibration"))
    written = exported_by("fp32", InferenceModel.load(prepared / "model"), folder / "bodies", checker, ENGINES)
    candidate = put_back(SavedTail.read(prepared / "tail"), written, folder)
    assert set(candidate.files) == {"paddle_inference"}
    for engine in ("openvino", "onnxruntime"):
        assert "masked_select" in candidate.refused[engine]
        assert "the file without the tail is bodies/fp32/model.onnx" in candidate.refused[engine]
    onnx.checker.check_model(onnx.load(folder / candidate.bodies["openvino"]))
