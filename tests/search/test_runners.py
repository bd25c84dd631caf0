"""What measures and runs trials here."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest

from act.engines.evaluation import Evaluation
from act.errors import InputError
from act.metrics import Quality
from act.samples.dataset import Ragged, Samples
from act.search.measure import Result, TrialJob, measure
from act.search.runners import run_here
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
