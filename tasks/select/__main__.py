"""`python -m tasks.select --job NAME`: choose the strategy, in ACT's vocabulary, with a reason for each part.

A strategy that the user fixed is obeyed; else the first that could meet the budget is chosen and was not tried in vain.
Writes `strategy.json`, which holds no measured figure, so that later stages stay cached when something is measured
anew; the figures are in `options.json`, in a folder of its own. `prune_timing.json` names the machine where `prune` is
to time something, so that `prune` depends on the machine there and nowhere else.
"""

import logging

from act.artifacts import fingerprint, replace_folder, stage_folder
from act.errors import InputError
from act.results.analyze import Analysis
from act.results.machine import PruneTiming, TimedOn
from act.results.select import Options, Strategy
from act.settings import Job
from act.strategy import attempts
from act.strategy.choice import next_strategy, obey, precisions
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.select", "Choose one job's strategy.") as (name, job):
        analyzed = stage_folder(name, "analyze")
        analysis = Analysis.read(analyzed / "analysis.json")
        missing = [name for name in job.target.engines if name not in analysis.engines]
        if missing:
            raise InputError(
                f"the analysis of {name} knows nothing of {', '.join(missing)}: the target has changed since; "
                f"run `python -m tasks.analyze --job {name}`, or `dvc repro`"
            )
        if job.strategy != "auto":
            strategy, options = obey(job), Options()
        else:
            # The settings that attempts hold for.
            counting = job.model_dump(mode="json", exclude={"benchmark", "act_config"})
            of = fingerprint(counting, [stage_folder(name, "prepare") / "model"], ())
            strategy, options = next_strategy(job, analysis, analyzed / "own", attempts.read(name, of), of)
        found = precisions(job, analysis, strategy.quantize)
        with replace_folder(stage_folder(name, "select")) as folder:
            strategy.model_copy(update={"precisions": found}).write(folder / "strategy.json")
            timed_on = TimedOn.read(stage_folder(name, "machine.json")) if _is_timed(strategy, job) else None
            PruneTiming(timed_on=timed_on).write(stage_folder(name, "prune_timing.json"))
        with replace_folder(stage_folder(name, "options")) as folder:
            options.write(folder / "options.json")
        names = " + ".join(part.name for part in strategy.strategy) or "no compression"
        log.info(f"select: {names}: {strategy.why}")
        if options.chosen is not None:
            log.info(f"select: {options.verdict}")


def _is_timed(strategy: Strategy, job: Job) -> bool:
    """Tell whether `prune` times what it has pruned: a speed-up says how much goes."""
    chosen = strategy.settings.prune
    aims = (job.prune.channel.target_speedup, chosen.channel.target_speedup if chosen else None)
    return "ChannelPrune" in strategy.prune and aims != (None, None)


if __name__ == "__main__":
    main()
