"""What took how long at its quickest, kept between processes."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act import machine
from act.engines import kept, quiet, worker
from act.engines.kept import Kept


def test_what_is_written_is_read_by_name(tmp_path: Path) -> None:
    file = tmp_path / "made" / "file.json"
    Kept(file).write("one", 0.5)
    Kept(file).write("other", 0.75)
    assert [Kept(file).read(name) for name in ("one", "other", "third")] == [0.5, 0.75, math.inf]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    some = Kept(tmp_path / "file.json", most=2)
    for place in range(3):
        some.write(str(place), 1.0)
    assert [some.read(str(place)) for place in range(3)] == [math.inf, 1.0, 1.0]


@pytest.mark.parametrize("told", ["", "[1]", "{", '{"CPU: it": 0.5}', '{"CPU: it": {"seconds": 0.5}}', "\xff"])
def test_a_file_that_says_nothing_is_as_good_as_none(tmp_path: Path, told: str) -> None:
    file = tmp_path / "file.json"
    file.write_text(told.replace("CPU", machine.cpu_name()), encoding="latin-1")
    assert Kept(file).read("it") == math.inf
    Kept(file).write("it", 0.5)
    assert Kept(file).read("it") == 0.5


@pytest.mark.parametrize(
    ("cpu", "seconds", "hours", "counts"),
    [
        (machine.cpu_name(), 0.5, 1, True),
        ("another CPU", 0.5, 1, False),
        (machine.cpu_name(), "0.5", 1, False),
        (machine.cpu_name(), [0.5], 1, False),
        (machine.cpu_name(), -0.5, 1, False),
        (machine.cpu_name(), 0.5, 48, False),
        (machine.cpu_name(), 0.5, -1, False),
    ],
)
def test_what_was_kept_counts_for_a_day_on_such_a_cpu(
    tmp_path: Path, cpu: str, seconds: Any, hours: int, counts: bool
) -> None:
    file = tmp_path / "file.json"
    told = {f"{cpu}: it": {"seconds": seconds, "at": time.time() - hours * 3600}}
    file.write_text(json.dumps(told), encoding="utf-8")
    assert Kept(file).read("it") == (0.5 if counts else math.inf)


def test_the_file_is_one_of_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept.of_the_user("some.json").write("it", 0.5)
    assert Kept(tmp_path / "act-pipeline" / "some.json").read("it") == 0.5


class Engine:
    """Loads any file, and takes no time at all."""

    @staticmethod
    def precisions() -> list[str]:
        return ["fp32"]

    @staticmethod
    def version() -> str:
        return "1"

    def load(self, *_: object) -> None: ...

    def describe(self) -> dict[str, Any]:
        return {}


def test_a_later_process_knows_how_quick_the_same_model_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(quiet.PATIENCE, "1")
    monkeypatch.setattr(worker.Worker, "_create", lambda _: Engine())
    monkeypatch.setattr(quiet.Quiet, "wait", lambda _: None)
    monkeypatch.setattr(quiet.Quiet, "is_now", lambda _: True)

    class Inputs:
        """Two batches of one sample each, which begin with this number."""

        first = 0

        @classmethod
        def load(cls, _: Path) -> Inputs:
            return cls()

        def batches(self, _: int) -> list[dict[str, Any]]:
            return [{"x": np.full((1, 2), self.first + place, np.float32)} for place in (0, 1)]

    monkeypatch.setattr(worker, "Samples", Inputs)

    def quickest(content: str, *taken: float) -> tuple[float, list[float]]:
        """What a process knows before it times a model of that content, with each input, and after it."""

        def run(_: worker.Worker, batch: worker._Batch) -> float:
            seconds = taken[int(batch.feeds["x"][0, 0]) - Inputs.first]
            batch.seen = min(batch.seen, seconds)
            return seconds

        monkeypatch.setattr(worker.Worker, "_run_timed", run)
        (tmp_path / "model.onnx").write_text(content, encoding="utf-8")
        process = worker.Worker("here")
        process.load(str(tmp_path / "model.onnx"), "fp32", 1)
        known = process._batches("samples", 1)[0].shape.known
        process.time("samples", 1, runs=2, first=0, patience=0, as_quick=True)
        return known, process.quickest("samples", 1)["seconds"]

    assert quickest("a model", 0.5, 1.0) == (math.inf, [0.5, 1.0])
    # With other inputs of that shape, too; how these compare with one another stays.
    monkeypatch.setattr(Inputs, "first", 5)
    assert quickest("a model", 0.75, 1.5) == (0.5, [0.5, 1.0])
    assert quickest("another", 0.75, 0.75) == (math.inf, [0.75, 0.75])
    assert quickest("a model", 0.25, 0.5) == (0.5, [0.25, 0.5])
    # What no neighbour explains is another machine, and what is seen now is kept.
    assert quickest("a model", 0.75, 0.75) == (0.25, [0.75, 0.75])
    assert quickest("a model", 1.0, 1.0) == (0.75, [0.75, 0.75])
    monkeypatch.setenv(quiet.PATIENCE, "0")
    assert quickest("a model", 1.0, 1.0) == (math.inf, [1.0, 1.0])
