"""What a job's results depend on beside the checkout: this machine where something is timed, and plug-ins it uses."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.machine.__main__ import are_noted
from tests.support import plugins, results
from tests.support.place import Place

METRIC = """
from act.metrics.top1 import Metric
"""


def read(place: Place, name: str) -> Any:
    return json.loads((place.folder / "artifacts" / "mine" / name).read_text())


def test_the_version_of_a_plug_in_is_noted_for_the_jobs_that_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.install(monkeypatch, tmp_path / "toys", {"metrics": {"mymetric": METRIC}})
    place = Place(tmp_path)
    assert (done := place.run("machine")).returncode == 0, done.stderr
    assert read(place, "plugins.json")["versions"] == {} and read(place, "machine.json")["cores"] == os.cpu_count()
    assert (tmp_path / "attempts" / "mine.json").exists()
    assert are_noted(tmp_path, "mine")

    place.job |= {"metric": "mymetric"}
    place.write()
    assert not are_noted(tmp_path, "mine")
    assert place.run("machine").returncode == 0 and are_noted(tmp_path, "mine")
    assert read(place, "plugins.json")["versions"] == {"toys": "1.0"}


@pytest.mark.parametrize("path", ["model", "model/inference.pdmodel"])
def test_other_weights_of_the_same_size_and_time_are_noted(tmp_path: Path, path: str) -> None:
    place = Place(tmp_path)
    place.job |= {"model": {"path": path}}
    assert place.run("machine").returncode == 0 and are_noted(tmp_path, "mine")
    before, weights = read(place, "model.json"), tmp_path / "model" / "inference.pdiparams"
    assert set(before["sha256"]) == {"inference.pdmodel", "inference.pdiparams"}
    times = (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
    weights.write_bytes(weights.read_bytes()[::-1])
    os.utime(weights, ns=times)
    assert not are_noted(tmp_path, "mine")
    assert place.run("machine").returncode == 0 and read(place, "model.json") != before
    place.job |= {"model": {"path": "nothing"}}
    assert place.run("machine").returncode == 0 and read(place, "model.json")["sha256"] == {}


def test_other_data_and_teachers_of_the_same_size_and_time_are_noted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    shutil.copytree(tmp_path / "model", tmp_path / "teacher")
    place.job |= {"distillation": {"teachers": [{"path": "teacher"}]}}
    assert place.run("machine").returncode == 0 and are_noted(tmp_path, "mine")
    for name, file in (("data", "data/evaluation.npz"), ("teachers", "teacher/inference.pdiparams")):
        before, status = read(place, f"{name}.json"), (tmp_path / file).stat()
        values = bytearray((tmp_path / file).read_bytes())
        values[-1] ^= 1
        (tmp_path / file).write_bytes(values)
        assert before["sha256"] and status.st_size == len(values)
        os.utime(tmp_path / file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert not are_noted(tmp_path, "mine")
        assert place.run("machine").returncode == 0 and read(place, f"{name}.json") != before
        os.utime(tmp_path / file)
        assert are_noted(tmp_path, "mine"), "another time alone is no other data"


@pytest.mark.parametrize(
    ("strategy", "channel", "depends"),
    [
        (["ChannelPrune"], {"target_speedup": 2.0}, True),
        (["ChannelPrune"], {"pruned_ratio": 0.3}, True),
        (["ASPPrune"], {"pruned_ratio": 0.3}, False),
        (["QuantPost"], {"target_speedup": 2.0}, False),
    ],
)
def test_prune_depends_on_the_machine_where_channels_go(
    tmp_path: Path, strategy: list[str], channel: dict[str, Any], depends: bool
) -> None:
    place = Place(tmp_path)
    place.job |= {"strategy": strategy, "prune": {"channel": channel}, "target": {"engines": ["openvino"]}}
    assert place.run("machine").returncode == 0
    (tmp_path / "artifacts/mine/analyze").mkdir()
    results.analysis().write(tmp_path / "artifacts/mine/analyze/analysis.json")
    assert (done := place.run("select")).returncode == 0, done.stderr
    assert read(place, "prune_machine.json")["machine"] == (read(place, "machine.json") if depends else None)
