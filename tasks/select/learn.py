"""`python -m tasks.select.learn --job NAME`: note what the chosen strategy came to, where another may be better.

Reads the measurements and the winner that the pipeline left, and adds an attempt to `attempts/NAME.json`. The next run
of `select` chooses by it; `dvc repro` then carries that out. `python -m flows.compress` does all of this by itself.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from act.artifacts import DEPLOY_ROOT, ROOT, stage_folder
from act.results.flow import FlowRecord
from act.results.report import Manifest
from act.results.select import Attempt, Options, Strategy
from act.results.training import Pruning
from act.settings import ROUNDING, Job
from act.strategy.attempts import FOLDER, add, overshot, read
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and learn."""
    with job_from_command_line("tasks.select.learn", "Note what a strategy came to.") as (name, job):
        log.info(f"learn: {learn(name, job)}")


def has_learned(name: str, job: Job, tell: Callable[[str], None], folder: Path = Path()) -> bool:
    """Learn; tell whether another strategy is worth a try, or the best is to be done again. False before `select`."""
    if not (folder / stage_folder(name, "options")).exists():
        return False
    path = folder / FOLDER / f"{name}.json"
    before = path.read_bytes() if path.exists() else b""
    outcome = learn(name, job, folder)
    if (path.read_bytes() if path.exists() else b"") == before:
        return False
    tell(f"{name}: {outcome}")
    return True


def learn(name: str, job: Job, folder: Path = Path()) -> str:
    """Add the attempt that the artefacts hold, and return what was found, in a sentence.

    There is nothing to learn from a job whose budget was met at once, with no more cut out than that needs. The stages
    ran in `folder`; `InputError` where one has not run yet.
    """
    options = Options.read(folder / stage_folder(name, "options") / "options.json")
    if options.chosen is None:
        return "the strategy is fixed in params.yaml"
    manifest = Manifest.read(folder / DEPLOY_ROOT / name / "manifest.json")
    tried = read(name, options.of, folder / FOLDER)
    if not options.open:
        return options.verdict if tried or not manifest.budget.met else f"{options.chosen} meets the budget"
    strategy = Strategy.read(folder / stage_folder(name, "select") / "strategy.json")
    pruning = Pruning.read(folder / stage_folder(name, "prune") / "prune.json")
    measured = [(row.speedup.value, row.drop.value) for row in manifest.variants if row.speedup and row.drop]
    fastest, lost = max(measured, key=lambda each: each[0], default=(1.0, 0.0))
    may_lose = job.budget.max_quality_drop + ROUNDING
    timed = [step.measured_speedup for step in pruning.steps if step.measured_speedup]
    winner = manifest.winner
    attempt = Attempt(
        key=options.chosen,
        share=pruning.kept_multiply_adds,
        quantized=strategy.quantize,
        predicted=options.predicted_speedup or 0.0,
        fastest=fastest,
        lost=lost,
        kept=max((speedup for speedup, drop in measured if drop <= may_lose), default=1.0),
        speedup=winner.speedup.value if winner.speedup else 1.0,
        drop=winner.drop.value if winner.drop else 0.0,
        latency_ms=winner.latency_ms,
        met=manifest.budget.met,
        minutes=_minutes(folder / ROOT / "flow" / f"{name}.json"),
        strategy=strategy,
        timed=timed[-1] if timed else 0.0,
        pruned_lost=pruning.quality.lost if timed and pruning.quality else 0.0,
    )
    if attempt.met and not tried and not overshot(attempt, job.budget):
        return f"{attempt.key} meets the budget"
    add(name, options.of, attempt, folder / FOLDER)
    outcome = "meets the budget" if attempt.met else "misses the budget"
    return f"{attempt.key} {outcome}: {attempt.fastest:.2f} times as fast, {attempt.lost:.4f} of quality lost"


def _minutes(record: Path) -> float:
    """Return what the stages took that the flow ran; 0 where it did not run them."""
    if not record.exists():
        return 0.0
    return sum(run.seconds or 0.0 for run in FlowRecord.read(record).stages if run.outcome == "ran") / 60


if __name__ == "__main__":
    main()
