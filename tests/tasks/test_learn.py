"""What is noted of a strategy that was carried out, from what the stages leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from act.results.benchmark import Interval
from act.results.flow import FlowRecord, StageRun
from act.results.report import JudgedVariant, RefusedVariant
from act.results.select import ChannelAim, Options, PruneSettings, StageSettings
from act.results.training import Pruning, PruningStep, Qualities
from act.settings import Job
from act.strategy import attempts
from tasks.select.learn import has_learned, learn
from tests.support import results
from tests.support.measured import entry
from tests.support.measured import failed as failed_variant
from tests.support.place import JOB

OF = "the job's fingerprint"
SETTINGS = StageSettings(prune=PruneSettings(channel=ChannelAim(target_speedup=3.15)))


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    leave()
    return Job.model_validate({**JOB, "budget": {"min_speedup": 3.0}})


def interval(value: float) -> Interval:
    return Interval(value=value, low=value, high=value)


def variant(name: str, speedup: float, drop: float) -> JudgedVariant:
    row = entry("openvino", name, 10.0, 0.8)
    figures = {**dict(row), "speedup": interval(speedup), "drop": interval(drop)}
    return JudgedVariant(**figures, inside_budget=True, misses=[])


def leave(met: bool = False, opened: bool = True, chosen: str | None = "a key", speedup: float = 2.0) -> None:
    folder = Path("artifacts/mine")
    made = [folder / name for name in ("select", "options", "prune")]
    for place in (*made, Path("deploy/mine"), Path("artifacts/flow")):
        place.mkdir(parents=True, exist_ok=True)
    steps = [
        PruningStep(name="a", why="", layers=[], measured_speedup=each, quality_before=0.95, quality_pruned=0.9)
        for each in (3.1, None)
    ]
    quality = Qualities(before=0.95, after=0.93)
    pruning = Pruning(pruned=True, why="", kept_multiply_adds=0.4, steps=steps, quality=quality)
    pruning.write(folder / "prune" / "prune.json")
    results.strategy(quantize=True, settings=SETTINGS).write(folder / "select" / "strategy.json")
    options = Options(chosen=chosen, of=OF, open=opened, verdict="nothing is left", predicted_speedup=3.2)
    options.write(folder / "options" / "options.json")
    failed = failed_variant("openvino", "bf16", "crash", "gone")
    variants = [variant("fp32", 1.0, 0.0), variant("int8", 2.8, 0.05), variant("bf16", speedup, 0.001)]
    refused = RefusedVariant(**dict(failed), inside_budget=False, misses=["gone"])
    manifest = results.manifest([*variants, refused], variants[-1], met)
    manifest.write(Path("deploy/mine/manifest.json"))
    runs = [StageRun(name="a", outcome="ran", seconds=90.0), StageRun(name="b", outcome="cached", seconds=600.0)]
    FlowRecord(job="mine", stages=runs).write(Path("artifacts/flow/mine.json"))


def test_what_missed_the_budget_is_noted(job: Job) -> None:
    assert "a key misses the budget: 2.80 times as fast, 0.0500 of quality lost" in learn("mine", job)
    (found,) = attempts.read("mine", OF)
    assert (found.key, found.share, found.quantized, found.met) == ("a key", 0.4, True, False)
    assert (found.predicted, found.fastest, found.lost) == (3.2, 2.8, 0.05)
    assert (found.speedup, found.drop, found.latency_ms, found.minutes) == (2.0, 0.001, 5.0, 1.5)
    assert found.kept == 2.0, "int8 was faster, and lost too much"
    assert found.timed == 3.1 and found.pruned_lost == pytest.approx(0.02)
    assert found.strategy.settings == SETTINGS


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ({"met": True}, "a key meets the budget"),
        ({"met": True, "speedup": 3.2}, "a key meets the budget"),
        ({"met": True, "opened": False, "speedup": 3.5}, "a key meets the budget"),
        ({"opened": False}, "nothing is left"),
        ({"chosen": None}, "fixed in params.yaml"),
    ],
)
def test_nothing_is_noted_where_there_is_nothing_to_learn(job: Job, left: dict[str, Any], words: str) -> None:
    leave(**left)
    assert words in learn("mine", job)
    assert not attempts.FOLDER.exists()


def test_what_gave_more_than_asked_for_is_noted(job: Job) -> None:
    leave(met=True, speedup=3.5)
    assert "a key meets the budget" in learn("mine", job)
    assert [each.met for each in attempts.read("mine", OF)] == [True]


def test_what_met_it_after_others_is_noted_so_that_it_stays(job: Job) -> None:
    learn("mine", job)
    leave(met=True, chosen="another")
    assert "another meets the budget" in learn("mine", job)
    assert [each.met for each in attempts.read("mine", OF)] == [False, True]


def test_learning_is_told_once_and_from_any_folder(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    told: list[str] = []
    assert has_learned("mine", job, told.append, tmp_path)
    assert not has_learned("mine", job, told.append, tmp_path), "the same attempt teaches nothing new"
    assert not has_learned("other", job, told.append, tmp_path), "whose strategy was never chosen"
    (line,) = told
    assert line.startswith("mine: a key misses the budget")
