"""`python -m tasks.select.learn --job NAME`: note what the chosen strategy came to, where another may be better.

Reads the measurements and the winner that the pipeline left, and adds an attempt to `attempts/NAME.json`. The next run
of `select` chooses by it; `dvc repro` then carries that out. `python -m flows.compress` does all of this by itself. A
job whose budget was met at once, with no more cut out than that needs, or whose strategy the user fixed, has nothing to
learn from.
"""

from __future__ import annotations

import logging
from typing import Any

from act.artifacts import DEPLOY_ROOT, ROOT, read_json, stage_folder
from act.settings import ROUNDING, Job
from act.strategy.attempts import Attempt, add, overshot, read
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and learn."""
    with job_from_command_line("tasks.select.learn", "Note what a strategy came to.") as (name, job):
        log.info(f"learn: {learn(name, job)}")


def learn(name: str, job: Job) -> str:
    """Add the attempt that the artefacts hold, unless there is nothing to learn; return what was found, in a sentence.

    Raises:
        InputError: a stage has not run yet.
    """
    told = read_json(stage_folder(name, "options") / "options.json")
    if told["chosen"] is None:
        return "the strategy is fixed in params.yaml"
    manifest = read_json(DEPLOY_ROOT / name / "manifest.json")
    tried = read(name, told["of"])
    if not told["open"]:
        return str(told["verdict"]) if tried or not manifest["budget"]["met"] else f"{told['chosen']} meets the budget"
    attempt = _attempt(name, told, manifest, job.budget.max_quality_drop)
    if attempt.met and not tried and not overshot(attempt, job.budget):
        return f"{attempt.key} meets the budget"
    add(name, told["of"], attempt)
    outcome = "meets the budget" if attempt.met else "misses the budget"
    return f"{attempt.key} {outcome}: {attempt.fastest:.2f} times as fast, {attempt.lost:.4f} of quality lost"


def _attempt(name: str, told: dict[str, Any], manifest: dict[str, Any], may_lose: float) -> Attempt:
    strategy = read_json(stage_folder(name, "select") / "strategy.json")
    measured = [each for each in manifest["variants"] if each["speedup"] is not None and each["drop"] is not None]
    fastest = max(measured, key=lambda each: float(each["speedup"]["value"]), default=None)
    kept = [each for each in measured if float(each["drop"]["value"]) <= may_lose + ROUNDING]
    winner = manifest["winner"]
    pruned = read_json(stage_folder(name, "prune") / "prune.json")
    timed = [each["measured_speedup"] for each in pruned["steps"] if each.get("measured_speedup")]
    return Attempt(
        key=told["chosen"],
        share=float(pruned["kept_multiply_adds"]),
        quantized=bool(strategy["quantize"]),
        predicted=float(told["predicted_speedup"] or 0.0),
        fastest=float(fastest["speedup"]["value"]) if fastest else 1.0,
        lost=float(fastest["drop"]["value"]) if fastest else 0.0,
        kept=max((float(each["speedup"]["value"]) for each in kept), default=1.0),
        speedup=float(winner["speedup"]["value"]) if winner["speedup"] else 1.0,
        drop=float(winner["drop"]["value"]) if winner["drop"] else 0.0,
        latency_ms=float(winner["latency_ms"]),
        met=bool(manifest["budget"]["met"]),
        minutes=_minutes(name),
        strategy=strategy,
        timed=float(timed[-1]) if timed else 0.0,
        pruned_lost=float(pruned["quality"]["before"] - pruned["quality"]["after"]) if timed else 0.0,
    )


def _minutes(name: str) -> float:
    """Return what the stages took that the flow ran; 0 where it did not run them."""
    path = ROOT / "flow" / f"{name}.json"
    if not path.exists():
        return 0.0
    return sum(float(row["seconds"] or 0.0) for row in read_json(path)["stages"] if row["outcome"] == "ran") / 60


if __name__ == "__main__":
    main()
