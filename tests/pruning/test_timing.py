"""How much faster a smaller model is, measured on an engine before it is trained."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from act.engines.process import EngineFailure, EngineProcess
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.pruning import speedup
from act.pruning.speedup import Stopwatch, find_stopwatch
from act.results.select import ChannelAim, PruneSettings, SpeedupSearch
from act.samples.dataset import Array, Ragged, Samples
from act.settings import Job, Target, validate
from tasks.prune.__main__ import _with_settings
from tests.support.place import JOB
from tests.support.prune_networks import pictures, static

SHAPE = [3, 24, 24]
TARGET = Target(engines=["openvino"])


def network(width: int) -> InferenceModel:
    def layers(x: object) -> object:
        for _ in range(3):
            x = paddle.static.nn.conv2d(x, width, 3, padding=1)
        return x

    return static(layers, SHAPE)


def test_rounds_that_nothing_disturbed_and_the_quickest_precision_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Counter[EngineProcess]()

    def seconds(process: EngineProcess, samples: Path, batch: int, runs: int) -> list[float]:
        # In every other round something else is at work; the whole model is the one with the largest file.
        turns[process] += 1
        whole = process.path.stat().st_size > 15_000
        taken = 6.0 if whole else 3.0 if process.precision == "fp32" else 2.0
        return [taken * (9 if turns[process] % 2 == 0 else 1)] * runs

    monkeypatch.setattr(EngineProcess, "time", seconds)
    batch: dict[str, Array] = {"x": pictures(1, SHAPE)}
    stopwatch = Stopwatch(network(16), batch, TARGET, "openvino", ("fp32", "int8"), least_seconds=0.0)
    assert stopwatch(network(8)) == pytest.approx(3.0)
    assert len(turns) == 3 and len(set(turns.values())) == 1
    assert str(stopwatch) == "openvino in fp32 or int8"


def test_a_failure_while_it_is_timed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> list[float]:
        raise EngineFailure("crash", "ended by SIGSEGV")

    monkeypatch.setattr(EngineProcess, "time", crash)
    with pytest.raises(EngineFailure, match="SIGSEGV"):
        Stopwatch(network(16), {"x": pictures(1, SHAPE)}, TARGET, "openvino")(network(8))


def test_what_an_engine_cannot_run_is_told() -> None:
    model = network(8)
    with pytest.raises(EngineFailure):
        Stopwatch(model, {"x": pictures(1, SHAPE)}, TARGET, "tensorrt")(model)


def timed(engine: str, precision: str) -> SpeedupSearch:
    return SpeedupSearch(engine=engine, precisions=[precision], kept_multiply_adds=0.5)


def test_the_strategy_says_where_it_is_timed_unless_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(speedup, "Stopwatch", partial(Stopwatch, least_seconds=0.0))  # no one asks how steady it is
    job = validate(Job, {**JOB, "target": {"engines": ["onnxruntime"], "batch": 4}}, "here")
    model, samples = network(8), Samples({"x": Ragged.of(list(pictures(2, SHAPE)))})
    found = find_stopwatch(model, samples, job.target, None, job.target.engines[0])
    assert isinstance(found, Stopwatch) and (found.engine, list(found.precisions)) == ("onnxruntime", ["fp32"])
    assert np.shape(found.batch["x"]) == (4, *SHAPE)
    found = find_stopwatch(model, samples, job.target, timed("openvino", "int8"), "onnxruntime")
    assert isinstance(found, Stopwatch) and str(found) == "openvino in int8"
    assert find_stopwatch(model, samples, job.target, timed("tensorrt", "fp32"), "onnxruntime") is None
    assert "cannot be timed" in caplog.text


def test_what_the_job_says_itself_comes_before_the_strategy() -> None:
    chosen = PruneSettings(channel=ChannelAim(target_speedup=3.15))
    job = validate(Job, JOB, "here")
    assert _with_settings(job, chosen).prune.channel.target_speedup == 3.15
    fixed = validate(Job, {**JOB, "prune": {"channel": {"pruned_ratio": 0.5}}}, "here")
    assert _with_settings(fixed, chosen) == fixed and _with_settings(job, None) == job
