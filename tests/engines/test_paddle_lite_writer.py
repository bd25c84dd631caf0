"""The files for Paddle Lite: each written by `opt`, or with the cause why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from act.engines.check import Checker
from act.engines.paddle_lite.runtime import read_kernels
from act.engines.paddle_lite.writer import write_nb
from act.engines.process import EngineFailure
from act.environments import LITE
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, make_scheme
from act.samples.dataset import Ragged, Samples
from act.settings import Target
from tests.support.engines import export
from tests.support.lite import REAL, fake_environment
from tests.support.models import noise, normalised_classifier, seen


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return normalised_classifier()


@pytest.fixture(scope="module")
def scheme(model: InferenceModel) -> Scheme:
    layers = quantizable_layers(model, ("conv2d", "depthwise_conv2d", "matmul_v2"))
    return make_scheme(model, layers, seen(model, layers, {"x": noise(2)}, symmetric=True))


def added(model: InferenceModel, scheme: Scheme | None, folder: Path) -> dict[str, Any]:
    checker = Checker(Samples({"x": Ragged.of(list(noise(2)))}))
    return export("fp32" if scheme is None else "int8-ptq", model, scheme, folder, checker, ["paddle_lite"])


def test_fp32_gives_two_files_and_int8_one(
    model: InferenceModel, scheme: Scheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_environment(tmp_path / "environment", monkeypatch)
    fp32, int8 = added(model, None, tmp_path), added(model, scheme, tmp_path)
    assert [file["kind"] for file in fp32["elsewhere"]["paddle_lite"]] == ["ARM, fp32", "ARM, fp16"]
    assert [file["file"] for file in int8["elsewhere"]["paddle_lite"]] == ["int8-ptq/paddle_lite/arm-int8.nb"]
    halves = [(tmp_path / file["file"]).read_bytes().endswith(b"true") for file in fp32["elsewhere"]["paddle_lite"]]
    assert halves == [False, True]
    for entry in (fp32, int8):
        assert (tmp_path / entry["files"]["paddle_lite"] / "model.pdmodel").is_file()
        for file in entry["elsewhere"]["paddle_lite"]:
            assert file["failure"] is None and file["bytes"] == (tmp_path / file["file"]).stat().st_size
            assert file["operators"]["multiplying"] == {"int8": {"conv2d": 1}}
            assert file["operators"]["conversions"] == {"calib": 1}
    assert int8["bytes"]["paddle_lite"] < fp32["bytes"]["paddle_lite"]


@pytest.mark.parametrize(
    ("how", "kind", "cause"),
    [
        ("hangs", "timeout", "not done within its time limit of 3 s"),
        ("aborts", "crash", "ended by SIGABRT: Check failed: no kernel for it"),
        ("forgets", "error", "wrote no file: opt is at work"),
    ],
)
def test_what_opt_does_wrong_is_a_cause_and_leaves_no_file(
    how: str, kind: str, cause: str, model: InferenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_environment(tmp_path / "environment", monkeypatch, how)
    model.save(tmp_path)
    with pytest.raises(EngineFailure) as failure:
        write_nb(tmp_path, tmp_path / "arm.nb", "fp32", seconds=3)
    assert failure.value.kind == kind and cause in failure.value.cause
    assert not (tmp_path / "arm.nb").exists()


def test_without_the_environment_each_file_has_the_cure(
    model: InferenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LITE.variable, str(tmp_path / "nothing"))
    entry = added(model, None, tmp_path)
    failures = [file["failure"] for file in entry["elsewhere"]["paddle_lite"]]
    assert len(failures) == 2 and all(each.startswith("missing: ") and "`make lite`" in each for each in failures)
    assert not list(tmp_path.rglob("*.nb"))


def test_a_candidate_with_zero_points_is_refused_with_the_cause(
    model: InferenceModel, scheme: Scheme, tmp_path: Path
) -> None:
    first = next(iter(scheme.activations))
    shifted = replace(scheme, activations={**scheme.activations, first: Range(0.0, 1.0)})
    entry = added(model, shifted, tmp_path)
    assert "paddle_lite" not in entry["files"] and "paddle_lite" not in entry["elsewhere"]
    assert "knows no zero point" in entry["refused"]["paddle_lite"]


def test_paddle_lite_cannot_be_what_candidates_are_searched_on() -> None:
    assert Target(engines=["openvino", "paddle_lite"]).engines == ["openvino", "paddle_lite"]
    assert "paddle_lite" not in Target().engines
    with pytest.raises(ValueError, match="cannot stand first"):
        Target(engines=["paddle_lite", "openvino"])


@REAL
def test_the_real_opt_writes_int8_kernels_for_arm_the_same_bytes_each_time(
    model: InferenceModel, scheme: Scheme, tmp_path: Path
) -> None:
    fp32, int8 = added(model, None, tmp_path), added(model, scheme, tmp_path)
    (file,) = int8["elsewhere"]["paddle_lite"]
    counts = {kind: sum(kinds.values()) for kind, kinds in file["operators"]["multiplying"].items()}
    assert counts == {"int8": len(scheme.layers)}
    half = fp32["elsewhere"]["paddle_lite"][1]["operators"]["multiplying"]
    assert list(half) == ["fp16"]
    again = tmp_path / "again.nb"
    write_nb(tmp_path / int8["files"]["paddle_lite"], again, "int8")
    assert again.read_bytes() == (tmp_path / file["file"]).read_bytes()
    assert {**read_kernels(again), "failure": None} == file["operators"]
