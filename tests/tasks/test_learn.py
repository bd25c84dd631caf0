"""What is noted of a strategy that was carried out, from what the stages leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from act.artifacts import write_json
from act.settings import Job
from act.strategy import attempts
from tasks.select.learn import learn
from tests.support.place import JOB

OF = "the job's fingerprint"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    leave()
    return Job.model_validate({**JOB, "budget": {"min_speedup": 3.0}})


def variant(name: str, speedup: float, drop: float) -> dict[str, Any]:
    return {"name": name, "speedup": {"value": speedup}, "drop": {"value": drop}}


def leave(met: bool = False, opened: bool = True, chosen: str | None = "a key", speedup: float = 2.0) -> None:
    folder = Path("artifacts/mine")
    for name in ("select", "options", "prune"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = {"prune": {"channel": {"target_speedup": 3.15}}}
    quality = {"before": 0.95, "after": 0.93}
    steps = [{"measured_speedup": 3.1}, {"measured_speedup": None}]
    write_json(folder / "prune" / "prune.json", {"kept_multiply_adds": 0.4, "steps": steps, "quality": quality})
    write_json(folder / "select" / "strategy.json", {"quantize": True, "settings": settings, "strategy": [], "why": ""})
    told = {"chosen": chosen, "of": OF, "open": opened, "verdict": "nothing is left", "predicted_speedup": 3.2}
    write_json(folder / "options" / "options.json", told)
    Path("deploy/mine").mkdir(parents=True, exist_ok=True)
    failed = {"name": "bf16", "speedup": None, "drop": None}
    winner = {**variant("bf16", speedup, 0.001), "latency_ms": 5.0}
    manifest: dict[str, Any] = {"budget": {"met": met}, "winner": winner}
    manifest["variants"] = [variant("fp32", 1.0, 0.0), variant("int8", 2.8, 0.05), winner, failed]
    write_json(Path("deploy/mine/manifest.json"), manifest)
    Path("artifacts/flow").mkdir(exist_ok=True)
    stages = [{"outcome": "ran", "seconds": 90.0}, {"outcome": "cached", "seconds": 600.0}]
    write_json(Path("artifacts/flow/mine.json"), {"stages": stages})


def test_what_missed_the_budget_is_noted(job: Job) -> None:
    assert "a key misses the budget: 2.80 times as fast, 0.0500 of quality lost" in learn("mine", job)
    (found,) = attempts.read("mine", OF)
    assert (found.key, found.share, found.quantized, found.met) == ("a key", 0.4, True, False)
    assert (found.predicted, found.fastest, found.lost) == (3.2, 2.8, 0.05)
    assert (found.speedup, found.drop, found.latency_ms, found.minutes) == (2.0, 0.001, 5.0, 1.5)
    assert found.kept == 2.0, "int8 was faster, and lost too much"
    assert found.timed == 3.1 and found.pruned_lost == pytest.approx(0.02)
    assert found.strategy["settings"] == {"prune": {"channel": {"target_speedup": 3.15}}}


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
