"""How much faster a smaller model is, measured on an engine before it is trained."""

from __future__ import annotations

import math

import numpy as np
import pytest

from act.engines.process import EngineFailure, EngineProcess
from act.engines.quiet import PATIENCE
from act.engines.turns import FEWEST
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.pruning import timing
from act.pruning.timing import Stopwatch
from act.samples.dataset import Ragged, Samples
from act.settings import Job, Target, validate
from tasks.prune.__main__ import _stopwatch, _with_settings
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


def test_medians_over_rounds_and_the_quickest_precision_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "WARM_UP_SECONDS", 0.05)
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)
    asked: list[str] = []

    def seconds(process: EngineProcess, *_: object) -> list[float]:
        # The whole model is asked first in every round; in the second round something else is at work.
        place, number = len(asked) % 3, len(asked) // 3
        asked.append(process.precision)
        return [(6.0, 3.0, 2.0)[place] * (9 if (number, place) == (1, 2) else 1)]

    monkeypatch.setattr(EngineProcess, "time", seconds)
    monkeypatch.setattr(EngineProcess, "quickest", lambda *_: [math.inf])
    stopwatch = Stopwatch(network(16), {"x": pictures(1, SHAPE)}, TARGET, "openvino", ["fp32", "int8"])
    assert stopwatch(network(8)) == pytest.approx(3.0)
    assert asked == ["fp32", "fp32", "int8"] * timing.FEWEST_ROUNDS
    assert str(stopwatch) == "openvino in fp32 or int8"
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.5)
    assert stopwatch(network(8)) == pytest.approx(3.0)
    assert len(asked) > 3 * 3 * timing.FEWEST_ROUNDS, "small models get more rounds"


def test_where_too_little_was_not_disturbed_more_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "WARM_UP_SECONDS", 0.05)
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)
    monkeypatch.setenv(PATIENCE, "1")
    asked = 0

    def seconds(_: EngineProcess, *__: object) -> list[float]:
        # In all rounds but the first something else is at work while the whole model is timed, and is gone then.
        nonlocal asked
        asked += 1
        in_rounds = asked <= 2 * timing.FEWEST_ROUNDS
        if in_rounds and asked % 2 == 0:
            return [2.0] * timing.RUNS
        return [18.0 if in_rounds and asked > 2 else 6.0] * timing.RUNS

    monkeypatch.setattr(EngineProcess, "time", seconds)
    monkeypatch.setattr(EngineProcess, "quickest", lambda *_: [math.inf])
    stopwatch = Stopwatch(network(16), {"x": pictures(1, SHAPE)}, TARGET, "openvino")
    assert stopwatch(network(8)) == pytest.approx(3.0)
    assert asked == 2 * timing.FEWEST_ROUNDS + FEWEST - 1

    def disturbed(process: EngineProcess, samples: object, *_: object) -> list[float]:
        # Of the next model's time nothing more is known of the whole one than before.
        nonlocal asked
        asked += 1
        return [3.0 if asked % 2 == 0 else 18.0] * timing.RUNS

    asked = 0
    monkeypatch.setattr(EngineProcess, "time", disturbed)
    assert stopwatch(network(12)) == pytest.approx(2.0) and asked == 2 * timing.FEWEST_ROUNDS

    # An earlier process knows that all of this was disturbed, as does the clock: the time for more is soon up.
    monkeypatch.setattr(EngineProcess, "quickest", lambda process, *_: [1.0])
    monkeypatch.setattr(timing, "MORE_SECONDS", 0.2)
    assert stopwatch(network(12)) == pytest.approx(2.0) and asked > 4 * timing.FEWEST_ROUNDS


def test_what_an_engine_cannot_run_is_told() -> None:
    model = network(8)
    with pytest.raises(EngineFailure):
        Stopwatch(model, {"x": pictures(1, SHAPE)}, TARGET, "tensorrt")(model)


def test_the_strategy_says_where_it_is_timed_unless_it_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    job = validate(Job, {**JOB, "target": {"engines": ["onnxruntime"], "batch": 4}}, "here")
    model, samples = network(8), Samples({"x": Ragged.of(list(pictures(2, SHAPE)))})
    found = _stopwatch(job, samples, model, {})
    assert isinstance(found, Stopwatch) and (found.engine, list(found.precisions)) == ("onnxruntime", ["fp32"])
    assert np.shape(found.batch["x"]) == (4, *SHAPE)
    found = _stopwatch(job, samples, model, {"engine": "openvino", "precisions": ["int8"]})
    assert isinstance(found, Stopwatch) and str(found) == "openvino in int8"
    assert _stopwatch(job, samples, model, {"engine": "tensorrt"}) is None
    assert "cannot be timed" in capsys.readouterr().out


def test_what_the_job_says_itself_comes_before_the_strategy() -> None:
    chosen = {"channel": {"target_speedup": 3.15}}
    job = validate(Job, JOB, "here")
    assert _with_settings(job, chosen).prune.channel.target_speedup == 3.15
    fixed = validate(Job, {**JOB, "prune": {"channel": {"pruned_ratio": 0.5}}}, "here")
    assert _with_settings(fixed, chosen) == fixed and _with_settings(job, {}) == job
