"""`python -m tasks.select --job NAME`: choose the strategy, in ACT's vocabulary, with a reason for each part.

A strategy that the user fixed is obeyed; else the first that could meet the budget is chosen and was not tried in vain.
Writes `strategy.json`, which holds no measured figure, so that later stages stay cached when something is measured
anew; the figures are in `options.json`, in a folder of its own. `prune_machine.json` names the machine where channels
or heads are pruned, so that `prune` depends on the machine there and nowhere else: channels go in blocks of as many as
the CPU computes at a time, and for a speed-up they are timed.
"""

import logging
from itertools import takewhile

from act.artifacts import fingerprint, replace_folder, stage_folder
from act.errors import InputError
from act.results.analyze import Analysis
from act.results.machine import PruneMachine, TimedOn
from act.results.select import Options
from act.strategy import attempts
from act.strategy.choice import in_float, next_strategy, obey, precisions, search_engine
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)

_LACKS = {True: "it computes int8 wrongly", False: "no candidates can be searched on it"}


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
            strategy, options = obey(job, analysis), Options()
        else:
            # The settings that attempts hold for.
            counting = job.model_dump(mode="json", exclude={"benchmark", "act_config"})
            of = fingerprint(counting, [stage_folder(name, "prepare") / "model"], ())
            strategy, options = next_strategy(job, analysis, analyzed / "own", attempts.read(name, of), of)
        found, engine = precisions(job, analysis, strategy.quantize), search_engine(job, analysis, strategy.quantize)
        with replace_folder(stage_folder(name, "select")) as folder:
            update = {"precisions": found, "engine": engine, "in_float": in_float(analysis)}
            strategy.model_copy(update=update).write(folder / "strategy.json")
            hangs_on_it = {"ChannelPrune", "TransformerPrune"}.intersection(strategy.prune)
            timed_on = TimedOn.read(stage_folder(name, "machine.json")) if hangs_on_it else None
            PruneMachine(machine=timed_on).write(stage_folder(name, "prune_machine.json"))
        with replace_folder(stage_folder(name, "options")) as folder:
            options.write(folder / "options.json")
        names = " + ".join(part.name for part in strategy.strategy) or "no compression"
        log.info(f"select: {names}: {strategy.why}")
        if engine != job.target.engines[0]:
            log.info("select: candidates are searched on %s: %s", engine or "no engine", _why_not(engine, analysis))
        if options.chosen is not None:
            log.info(f"select: {options.verdict}")


def _why_not(engine: str | None, analysis: Analysis) -> str:
    """Tell why the engines ahead of one, or all, are not searched on."""
    ahead = takewhile(lambda entry: entry[0] != engine, analysis.engines.items())
    return "; ".join(f"{name}: {each.failure or _LACKS[bool(each.wrong_int8)]}" for name, each in ahead)


if __name__ == "__main__":
    main()
