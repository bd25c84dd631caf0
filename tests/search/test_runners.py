"""What runs trials: the same results everywhere, and a clear end where a cluster cannot be used."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.engines.evaluation import Evaluation
from act.errors import InputError
from act.metrics import Quality
from act.samples.dataset import Ragged, Samples
from act.search import runners
from act.search.measure import Result, TrialJob, measure
from act.search.runners import Cluster, as_they_end, run_here, run_on_cluster, with_runner
from tests.support.engines import run_by
from tests.support.place import CHECKOUT


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    values = [np.array(row, dtype=np.float32) for row in ([0, 1], [1, 0], [0, 1], [0, 1])]
    Samples({"x": Ragged.of(values)}, Ragged.of([np.array(1)] * 4)).save(folder)
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    run_by(monkeypatch, "openvino", "tests.support.fake_engines:Int8Doubles")
    return monkeypatch


def job(samples: Path, count: int = 4, name: str = "a") -> TrialJob:
    evaluation = Evaluation("openvino", "top1", samples, None, time_limit_seconds=30)
    return TrialJob(evaluation, {name: b"model"}, name, Quality(1.0, [1.0] * count))


def test_a_measurement_carries_its_model_and_reads_the_samples(fake: pytest.MonkeyPatch, samples: Path) -> None:
    result = measure(job(samples))
    assert (result.quality, result.samples, result.failure) == (0.75, 4, None)
    assert result.seconds > 0


def test_an_engine_that_crashes_is_a_result(fake: pytest.MonkeyPatch, samples: Path) -> None:
    run_by(fake, "openvino", "tests.support.fake_engines:Int8Aborts")
    result = measure(job(samples))
    assert result.quality == -math.inf and "SIGABRT" in str(result.failure)


def test_samples_that_are_missing_or_others_are_no_result(samples: Path) -> None:
    with pytest.raises(InputError, match="nowhere.*shared file system"):
        measure(job(Path("/nowhere")))
    with pytest.raises(InputError, match="holds 4 samples .* and 5 where the search runs"):
        measure(job(samples, count=5))


def test_threads_tell_of_each_as_it_ends(samples: Path) -> None:
    released, told = threading.Event(), []

    def work(job: TrialJob) -> Result:
        if job.entry == "0":  # the first is the last to end
            assert released.wait(10)
        return Result(float(job.entry), {}, 4, None, 0)

    def ended(index: int, result: Result) -> None:
        told.append((index, result.quality))
        if len(told) == 2:
            released.set()

    run_here(2, work, [job(samples, name=str(number)) for number in range(3)], ended)
    assert told == [(1, 1), (2, 2), (0, 0)]


def test_as_many_workers_as_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    cluster, asked = Cluster("dask", None), []
    here: list[Any] = []
    monkeypatch.setattr(runners, "run_on_cluster", lambda *given: asked.append(given[:3]))
    for side_by_side, threads in ((2, 1), (32, 1), (32, 3), (4, 64)):
        with_runner(cluster, side_by_side, threads, print)
        with_runner(None, side_by_side, threads, here.append)
    assert asked == [(cluster, 2, 1), (cluster, 8, 1), (cluster, 2, 3), (cluster, 1, 64)]
    assert [(runner.func, runner.args[0]) for runner in here] == [(run_here, workers) for workers in (2, 8, 2, 1)]


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{kind}", None)
    place = Cluster.parse(kind, "here")
    with pytest.raises(InputError, match=f"ACT_TRIALS_ON is '{kind}', which needs the package `prefect-{kind}`"):
        run_on_cluster(place, 1, 1, lambda runner: runner)


def test_on_dask_nothing_waits_for_a_result_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that times out there spoils all later ones: dask/distributed issue 8514."""
    monkeypatch.setattr(runners, "POLL_SECONDS", 0.0)

    class Future:
        def __init__(self, looks: int, result: Any) -> None:
            self.looks, self._result = looks, result

        @property
        def wrapped_future(self) -> Future:
            return self

        def done(self) -> bool:
            self.looks -= 1
            return self.looks < 0

        def result(self, timeout: float, raise_on_failure: bool) -> Any:
            assert self.looks < 0 and timeout > 1 and not raise_on_failure
            return self._result

    def ended(futures: dict[int, Future]) -> list[tuple[int, Any]]:
        return list(as_they_end(Cluster("dask", None), futures, time.monotonic() + 60, lambda: True))

    assert ended({0: Future(2, "a"), 1: Future(0, "b"), 2: Future(1, "c")}) == [(1, "b"), (2, "c"), (0, "a")]
    with pytest.raises(InputError, match="no samples"):
        ended({0: Future(1, InputError("no samples"))})


def test_a_search_is_the_same_on_dask(tmp_path: Path, prefect_home: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PREFECT_HOME": str(prefect_home)}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "tests.support.dask_search", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wanted = found["one worker"]
    assert len(wanted) == 12 and any(failure for _, _, failure in wanted)
    assert found["several workers"] == wanted
    assert found["on dask"] == wanted
    assert found["killed after"] == 5
    assert found["resumed on dask"] == wanted
    assert found["resumed here"] == wanted
    assert "/nowhere/samples: no such folder" in found["no samples"]
    assert not found["kept without samples"], "a worker without samples says nothing of the trial"
