"""The stage: killed and begun again, with another teacher, and with what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.ranges import Range
from act.quantization.scheme import make_scheme
from act.results.ptq_search import Candidates, Plan, Reference
from tests.support.models import noise, seen
from tests.support.place import CHECKOUT, Place
from tests.support.results import candidate


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A job whose candidate clips its activations at half of their range, ready to be trained."""
    place = Place(tmp_path_factory.mktemp("stage"))
    place.shorten(12)
    place.job["metric"] = "similarity"
    np.savez(place.folder / "data" / "calibration.npz", x=noise(4, width=96))
    np.savez(place.folder / "data" / "evaluation.npz", x=noise(3, width=96, seed=1))
    done = place.run("prepare")
    assert done.returncode == 0, done.stderr
    here = place.folder / "artifacts" / "mine"
    model = InferenceModel.load(here / "prepare" / "model")
    layers = quantizable_layers(model)
    ranges = seen(model, layers, {"x": noise(4, width=96)}, symmetric=True)
    halved = {name: Range.around_zero(span.threshold / 2) for name, span in ranges.items()}
    for folder in ("calibrate", "refine/schemes", "plan"):
        (here / folder).mkdir(parents=True)
    shutil.copytree(here / "prepare" / "model", here / "calibrate" / "model")
    make_scheme(model, layers, halved).write(here / "refine" / "schemes" / "one.json")
    reference = Reference(engine="openvino", quality=1.0)
    Candidates(reference=reference, candidates=[candidate("one")]).write(here / "refine" / "candidates.json")
    Plan(keep=["one"], train=True, start="one").write(here / "plan" / "plan.json")
    return place


@pytest.fixture
def qat(place: Place) -> Iterator[Path]:
    """Where the stage's result will be."""
    here = place.folder / "artifacts" / "mine"
    place.job["qat"] = {"epochs": 3, "batch_size": 2, "learning_rate": 1e-4}
    place.job["distillation"] = {}
    yield here / "qat"
    for name in ("qat", ".qat_checkpoint"):
        shutil.rmtree(here / name, ignore_errors=True)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_killed_stage_goes_on_to_the_same_result(place: Place, qat: Path) -> None:
    done = place.run("qat")
    assert done.returncode == 0, done.stderr
    whole = files(qat)
    assert "model/model.pdiparams" in whole and not list(qat.parent.glob(".qat_checkpoint/*"))
    shutil.rmtree(qat)

    command = [sys.executable, "-m", "tasks.qat", "--job", "mine"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, cwd=place.folder, env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        while not list(qat.parent.glob(".qat_checkpoint/*/checkpoint.npz")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert not qat.exists()
    done = place.run("qat")
    assert done.returncode == 0, done.stderr
    assert "qat: goes on from step" in done.stdout
    assert files(qat) == whole


def test_another_teacher_by_path_is_shown(place: Place, qat: Path) -> None:
    place.job["distillation"] = {"loss": ["soft_label", "fsp"], "alpha": [1.0, 0.1], "teachers": [{"path": "model"}]}
    place.job["qat"] = {**place.job["qat"], "epochs": 1, "not_quant_pattern": ["conv2d_0.tmp"]}
    done = place.run("qat")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads((qat / "qat.json").read_text())
    losses = [part["loss"] for part in result["distillation"]]
    assert losses[0] == "soft_label" and set(losses[1:]) == {"fsp"}
    assert "qat: distillation: soft_label x 1 on" in done.stdout and "fsp x 0.1 on" in done.stdout
    if result["candidate"] is not None:
        assert "conv2d_0.tmp_0" not in json.loads((qat / "scheme.json").read_text())["layers"]


def test_a_teacher_that_is_not_there_is_named(place: Place, qat: Path) -> None:
    place.job["distillation"] = {"teachers": [{"path": "nowhere"}]}
    done = place.run("qat")
    assert done.returncode == 2 and "nowhere: no such folder" in done.stderr
    assert not qat.exists()


def test_two_processes_of_the_launcher_train_together(place: Place, qat: Path) -> None:
    """As README says it; the first process alone writes."""
    command = [sys.executable, "-W", "ignore", "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    command += ["--backend", "gloo", "--log_dir", "log", str(CHECKOUT / "tasks" / "qat" / "__main__.py")]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    place.job["qat"] = {**place.job["qat"], "epochs": 1}
    place.write()
    done = subprocess.run(
        [*command, "--job", "mine"], cwd=place.folder, env=environment, capture_output=True, text=True, timeout=150
    )
    logs = [(place.folder / "log" / f"workerlog.{rank}").read_text() for rank in range(2)]
    assert done.returncode == 0, "\n".join(logs)
    assert "qat: trained" in logs[0] and "qat: trained" not in logs[1]
    assert json.loads((qat / "qat.json").read_text())["history"][-1]["step"] == 2
    assert not list(qat.parent.glob(".qat.*")) and not list(qat.parent.glob(".qat_checkpoint/*"))
