"""`python -m tasks.plan --job NAME`: decide which candidates go on, and whether and where training starts.

A stage of its own, whose result (`plan.json`) holds no figure of the budget: when the budget changes, DVC repeats
training, export and benchmark only if a decision changes.
"""

import logging

from act.artifacts import replace_folder, stage_folder
from act.results.ptq_search import Candidates, Plan
from act.results.select import Strategy
from act.results.training import Pruning
from act.strategy.candidates import training_start, worth_exporting
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.plan", "Decide whether one job needs training.") as (name, job):
        strategy = Strategy.read(stage_folder(name, "select") / "strategy.json")
        pruning = Pruning.read(stage_folder(name, "prune") / "prune.json")
        candidates = Candidates.read(stage_folder(name, "refine") / "candidates.json").candidates
        most = job.budget.max_quality_drop
        keep = worth_exporting(candidates, most)
        lost = pruning.quality.lost if pruning.quality else 0.0
        start, why = training_start(candidates, most, strategy.train, strategy.train_always, lost)
        with replace_folder(stage_folder(name, "plan")) as folder:
            Plan(keep=keep, train=start is not None, start=start).write(folder / "plan.json")
        log.info(f"plan: {why}; to be measured: {', '.join(keep) or 'none'}")


if __name__ == "__main__":
    main()
