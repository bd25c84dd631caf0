"""The search over quantization settings: trials that a sampler suggests, each measured on a real engine.

Trials are suggested in rounds of `side_by_side`, whatever runs them, so that the same seed gives the same search
everywhere; the trials of a round run at the same time where there is room (`act/search/runners.py`). Every trial
is written to a journal as it ends. A search that was killed goes through the same rounds again and takes from the
journal what it holds, so that it ends exactly as it would have ended at once.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from act.metrics import Quality
from act.progress import Progress
from act.results.ptq_search import Trial, TrialSettings
from act.search.measure import Result, TrialJob
from act.search.runners import Runner
from act.search.sampler import ForestSampler, Observation, front
from act.settings import PtqSearch

# The pace is that of the last rounds: trials that the journal knew take no time and say nothing of what is to come.
_ROUNDS = 4


class Journal:
    """Trials by their settings, in a file that only grows; a line that a kill has cut off is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.trials: dict[TrialSettings, Trial] = {}
        for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
            with suppress(ValidationError):
                trial = Trial.model_validate_json(line)
                self.trials[trial.settings] = trial

    def add(self, trial: Trial) -> None:
        """Keep a trial."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(trial.model_dump_json() + "\n")


@dataclass
class Search:
    """Runs trials and keeps them all, in the order of suggestion."""

    sampler: ForestSampler
    cost: Callable[[TrialSettings], float]  # what a setting is expected to cost, 1 being fp32
    job: Callable[[TrialSettings], TrialJob]  # the measurement of a setting's model
    fp32: Quality  # the fp32 model's, on all samples
    journal: Journal  # of an earlier, unfinished run of the same search
    trials: list[Trial] = field(default_factory=list)

    def run(self, settings: PtqSearch, progress: Callable[[Trial], object], runner: Runner) -> None:
        """Run trials until their number, the time or the space is used up.

        Args:
            settings: `max_quant_count`, `side_by_side` and `time_limit_minutes` count here.
            progress: told of each trial as it ends; those of a round may end in any order.
            runner: measures the trials of a round.
        """
        deadline = time.monotonic() + 60 * settings.time_limit_minutes
        while (left := settings.max_quant_count - len(self.trials)) > 0 and time.monotonic() < deadline:
            suggested = self.sampler.suggest(self.history(), settings.side_by_side)[:left]
            if not suggested:
                break
            self.trials += self._round(suggested, progress, runner)

    def history(self) -> list[Observation]:
        """Return what the sampler learns from."""
        return [Observation(trial.settings, _quality(trial), trial.cost) for trial in self.trials]

    def front(self) -> list[Trial]:
        """Return the Pareto front of quality and cost among the trials measured on all samples, best quality first."""
        complete = [trial for trial in self.trials if is_complete(trial, self.fp32)]
        return [complete[index] for index in front([(_quality(trial), trial.cost) for trial in complete])]

    def candidates(self) -> list[Trial]:
        """Return the Pareto front, and the best symmetric trial where it has none, best quality first.

        Paddle's int8 kernels and calibration tables know no zero point.
        """
        chosen = self.front()
        if not any(trial.settings.activation_symmetric for trial in chosen):
            symmetric = [trial for trial in self.trials if trial.settings.activation_symmetric]
            complete = [trial for trial in symmetric if is_complete(trial, self.fp32)]
            chosen += [max(complete, key=_quality)] if complete else []
        return sorted(chosen, key=_quality, reverse=True)

    def _least_useful(self, setting: TrialSettings) -> float:
        """Return the quality below which a setting's trial is no candidate: that of one no dearer, measured on all
        samples, and as symmetric.

        No more than fp32's: what is above that is luck with these samples.
        """
        rivals = [
            _quality(trial)
            for trial in self.trials
            if is_complete(trial, self.fp32)
            and trial.cost <= self.cost(setting)
            and trial.settings.activation_symmetric >= setting.activation_symmetric
        ]
        return min(max(rivals, default=-math.inf), self.fp32.value)

    def _round(
        self, settings: Sequence[TrialSettings], progress: Callable[[Trial], object], runner: Runner
    ) -> list[Trial]:
        """Run these settings and return their trials in order; each is in the journal before `progress` hears of it."""
        known = self.journal.trials
        trials = {index: known[setting] for index, setting in enumerate(settings) if setting in known}
        for trial in trials.values():
            progress(trial)
        unknown = [index for index in range(len(settings)) if index not in trials]
        jobs, seconds = [], []
        for index in unknown:
            started = time.perf_counter()
            jobs.append(replace(self.job(settings[index]), least=self._least_useful(settings[index])))
            seconds.append(time.perf_counter() - started)

        def ended(job: int, result: Result) -> None:
            index, failed = unknown[job], result.failure is not None
            trial = trials[index] = Trial(
                id=len(self.trials) + index,
                settings=settings[index],
                quality=None if failed else result.quality,
                beside=result.beside,
                drop=None if failed else self.fp32.value - result.quality,
                cost=self.cost(settings[index]),
                samples=result.samples,
                failure=result.failure,
                seconds=round(result.seconds + seconds[job], 3),
            )
            self.journal.add(trial)
            progress(trial)

        runner(jobs, ended)
        return [trials[index] for index in range(len(settings))]


class SearchProgress(Progress):
    """Told of each trial as it ends; shows the best so far and the time left at the present pace."""

    def __init__(
        self,
        total: int,
        fp32: Quality,
        limit_seconds: float,
        side_by_side: int,
        stream: IO[str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("search", total, limit_seconds, stream=stream, now=now)
        self._fp32 = fp32
        self._ended = deque([self._began], maxlen=_ROUNDS * side_by_side + 1)
        self._best = -math.inf

    def __call__(self, trial: Trial) -> None:
        """Take note of a trial, and show it when it is time."""
        self._ended.append(self._now())
        if is_complete(trial, self._fp32):
            self._best = max(self._best, _quality(trial))
        self._show(1)

    def line(self) -> str:
        """Return what is known now."""
        best, drop = "none whole yet", self._fp32.value - self._best
        if math.isfinite(drop):
            best = f"best {self._best:.4f} ({abs(drop):.4f} {'below' if drop >= 0 else 'above'} fp32)"
        pace = (self._ended[-1] - self._ended[0]) / max(1, len(self._ended) - 1)
        return f"trial {self._done} of {self._total}, {best}, {self._left(pace)}"


def is_complete(trial: Trial, fp32: Quality) -> bool:
    """Tell whether a trial was measured on all samples, as the fp32 model was."""
    return trial.failure is None and trial.samples == len(fp32)


def _quality(trial: Trial) -> float:
    return -math.inf if trial.quality is None else trial.quality
