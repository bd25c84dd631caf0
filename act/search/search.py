"""The search over quantization settings: trials that a sampler suggests, each measured on a real engine.

Trials are suggested in rounds of `side_by_side`, whatever runs them, so that the same seed gives the same search
everywhere; the trials of a round run at the same time where there is room (`act/search/runners.py`). Every trial
is written to a journal as it ends. A search that was killed goes through the same rounds again and takes from the
journal what it holds, so that it ends exactly as it would have ended at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from act.metrics import Quality
from act.results import ptq_search
from act.search.measure import Result, TrialJob
from act.search.pareto import front
from act.search.runners import Runner
from act.search.sampler import ForestSampler, Observation
from act.search.space import Setting
from act.settings import PtqSearch


@dataclass(frozen=True)
class Trial:
    """One setting and its result.

    Attributes:
        number: counted from 0 in the order of suggestion.
        cost: what the model is expected to cost, 1 being fp32.
        complete: whether it was measured on all samples.
    """

    number: int
    setting: Setting
    cost: float
    result: Result
    complete: bool

    def to_result(self, reference: float) -> ptq_search.Trial:
        """Return the trial as it stands in `trials.json`, beside fp32's quality."""
        failure = self.result.failure
        return ptq_search.Trial(
            id=self.number,
            settings=self.setting.to_result(),
            quality=None if failure else self.result.quality,
            beside=dict(self.result.beside),
            drop=None if failure else reference - self.result.quality,
            cost=self.cost,
            samples=self.result.samples,
            failure=failure,
            seconds=round(self.result.seconds, 3),
        )


class Journal:
    """Results by setting, in a file that only grows; the last line may be cut off by a kill, and is then left out.

    Args:
        path: of the file, made when the first result is added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: dict[str, Result] = {}
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._results[entry["setting"]] = Result(**entry["result"])
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, setting: Setting) -> Result | None:
        """Return the result of a setting that was tried before."""
        return self._results.get(self._key(setting))

    def add(self, setting: Setting, result: Result) -> None:
        """Keep a result."""
        self._results[self._key(setting)] = result
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"setting": self._key(setting), "result": vars(result)}) + "\n")

    @staticmethod
    def _key(setting: Setting) -> str:
        return json.dumps(setting.to_result().model_dump(), sort_keys=True)


@dataclass
class Search:
    """Runs trials and keeps them all.

    Attributes:
        cost: what a setting is expected to cost.
        job: the measurement of a setting's model.
        fp32: the fp32 model's quality on all samples.
        journal: results of an earlier, unfinished run of the same search.
        runner: measures the trials of a round.
    """

    sampler: ForestSampler
    cost: Callable[[Setting], float]
    job: Callable[[Setting], TrialJob]
    fp32: Quality
    journal: Journal
    runner: Runner
    trials: list[Trial] = field(default_factory=list)

    def run(self, settings: PtqSearch, progress: Callable[[Trial], object]) -> None:
        """Run trials until their number, the time or the space is used up.

        Args:
            settings: `max_quant_count`, `side_by_side` and `time_limit_minutes` count here.
            progress: told of each trial as it ends; those of a round may end in any order.
        """
        deadline = time.monotonic() + 60 * settings.time_limit_minutes
        while len(self.trials) < settings.max_quant_count and time.monotonic() < deadline:
            suggested = self.sampler.suggest(self.history(), settings.side_by_side)
            suggested = suggested[: settings.max_quant_count - len(self.trials)]
            if not suggested:
                break
            self.trials += self._round(suggested, progress)

    def history(self) -> list[Observation]:
        """Return what the sampler learns from."""
        return [Observation(trial.setting, trial.result.quality, trial.cost) for trial in self.trials]

    def front(self) -> list[Trial]:
        """Return the Pareto front of quality and cost among the trials measured on all samples, best quality first."""
        complete = [trial for trial in self.trials if trial.complete]
        return [complete[index] for index in front([(trial.result.quality, trial.cost) for trial in complete])]

    def candidates(self) -> list[Trial]:
        """Return the Pareto front, and the best symmetric trial where it has none, best quality first.

        Paddle's int8 kernels and calibration tables know no zero point.
        """
        chosen = self.front()
        symmetric = [trial for trial in self.trials if trial.complete and trial.setting.symmetric]
        if symmetric and not any(trial.setting.symmetric for trial in chosen):
            chosen.append(max(symmetric, key=lambda trial: trial.result.quality))
        return sorted(chosen, key=lambda trial: -trial.result.quality)

    def _round(self, settings: Sequence[Setting], progress: Callable[[Trial], object]) -> list[Trial]:
        """Run these settings and return their trials in order; each is in the journal before `progress` hears of it."""
        trials: dict[int, Trial] = {}
        jobs: dict[int, TrialJob] = {}
        seconds: dict[int, float] = {}

        def take(index: int, result: Result) -> None:
            complete = result.failure is None and result.samples == len(self.fp32.scores)
            cost = self.cost(settings[index])
            trials[index] = Trial(len(self.trials) + index, settings[index], cost, result, complete)
            progress(trials[index])

        for index, setting in enumerate(settings):
            if (known := self.journal.get(setting)) is not None:
                take(index, known)
                continue
            started = time.perf_counter()
            jobs[index] = self.job(setting)
            seconds[index] = time.perf_counter() - started
        unknown = list(jobs)

        def ended(job: int, result: Result) -> None:
            index = unknown[job]
            result = replace(result, seconds=result.seconds + seconds[index])
            self.journal.add(settings[index], result)
            take(index, result)

        self.runner(list(jobs.values()), ended)
        return [trials[index] for index in range(len(settings))]
