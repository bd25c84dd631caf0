"""The search over quantization settings: trials that a sampler suggests, each measured on a real engine.

Trials are suggested in rounds of two, whatever the number of cores, so that the same seed gives the same search
everywhere; where cores allow, the trials of a round run side by side. Every trial is written to a journal as it ends. A
search that was killed goes through the same rounds again and takes from the journal what it holds, so that it ends
exactly as it would have ended at once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.process import EngineFailure
from act.params import PtqSearch
from act.quality import Quality
from act.quantization import Scheme
from tasks.ptq_search.pareto import front
from tasks.ptq_search.sampler import Observation, Sampler
from tasks.ptq_search.space import Setting

SIDE_BY_SIDE = 2
# A trial is given up after its first samples when it is all but certain to lose this share of fp32's quality.
HOPELESS_SHARE = 0.1
FIRST_SHARE = 0.25
FEWEST_FIRST_SAMPLES = 64
_CERTAINTY = 2.58  # standard errors: 99 %

# Gives the quality on the first so many samples, or on all (None).
Measure = Callable[[int | None], Quality]


@dataclass(frozen=True)
class Result:
    """What a trial gave.

    Attributes:
        quality: on the samples that were run; of a trial that was given up, an estimate for all of them; minus
            infinity where the engine failed.
        beside: further figures on the same samples.
        samples: how many were run.
        failure: why there is no quality, or None.
        seconds: making and measuring.
    """

    quality: float
    beside: Mapping[str, float]
    samples: int
    failure: str | None
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One setting and its result; `cost` is what the model is expected to cost, 1 being fp32."""

    number: int
    setting: Setting
    cost: float
    result: Result
    whole: bool

    def to_json(self, reference: float) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "id": self.number,
            "settings": self.setting.to_json(),
            "quality": None if self.result.failure else self.result.quality,
            "beside": dict(self.result.beside),
            "drop": None if self.result.failure else reference - self.result.quality,
            "cost": self.cost,
            "samples": self.result.samples,
            "failure": self.result.failure,
            "seconds": round(self.result.seconds, 3),
        }


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
        """The result of a setting that was tried before."""
        return self._results.get(self._key(setting))

    def add(self, setting: Setting, result: Result) -> None:
        """Keep a result."""
        self._results[self._key(setting)] = result
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"setting": self._key(setting), "result": vars(result)}) + "\n")

    @staticmethod
    def _key(setting: Setting) -> str:
        return json.dumps(setting.to_json(), sort_keys=True)


class Search:
    """Runs trials and keeps them all.

    Args:
        sampler: suggests settings.
        make: gives the scheme of a setting.
        cost: what a setting is expected to cost.
        write: puts the model of a scheme where `Measure` finds it; called in one thread.
        reference: the fp32 model's quality on all samples.
        journal: results of an earlier, unfinished run of the same search.
        workers: how many trials may run side by side.
    """

    def __init__(
        self,
        sampler: Sampler,
        make: Callable[[Setting], Scheme],
        cost: Callable[[Setting], float],
        write: Callable[[Scheme], Measure],
        reference: Quality,
        journal: Journal,
        workers: int = 1,
    ) -> None:
        self._sampler = sampler
        self._make = make
        self._cost = cost
        self._write = write
        self._reference = reference
        self._journal = journal
        self._workers = max(1, min(workers, SIDE_BY_SIDE))
        self.trials: list[Trial] = []

    def run(self, settings: PtqSearch, progress: Callable[[Trial], None]) -> None:
        """Run trials until their number, the time or the space is used up.

        Args:
            settings: `max_quant_count` and `time_limit_minutes` count here.
            progress: told of each trial.
        """
        deadline = time.monotonic() + 60 * settings.time_limit_minutes
        with ThreadPoolExecutor(self._workers) as pool:
            while len(self.trials) < settings.max_quant_count and time.monotonic() < deadline:
                suggested = self._sampler.suggest(self.history(), SIDE_BY_SIDE)
                suggested = suggested[: settings.max_quant_count - len(self.trials)]
                if not suggested:
                    break
                for setting, result in zip(suggested, self._results(suggested, pool)):
                    whole = result.failure is None and result.samples == len(self._reference.scores)
                    self.trials.append(Trial(len(self.trials), setting, self._cost(setting), result, whole))
                    progress(self.trials[-1])

    def history(self) -> list[Observation]:
        """What the sampler learns from."""
        return [Observation(trial.setting, trial.result.quality, trial.cost) for trial in self.trials]

    def front(self) -> list[Trial]:
        """The Pareto front of quality and cost among the trials measured on all samples, best quality first."""
        whole = [trial for trial in self.trials if trial.whole]
        return [whole[index] for index in front([(trial.result.quality, trial.cost) for trial in whole])]

    def candidates(self) -> list[Trial]:
        """The Pareto front, and the best symmetric trial where it has none, best quality first.

        Paddle's int8 kernels and calibration tables know no zero point.
        """
        chosen = self.front()
        symmetric = [trial for trial in self.trials if trial.whole and trial.setting.symmetric]
        if symmetric and not any(trial.setting.symmetric for trial in chosen):
            chosen.append(max(symmetric, key=lambda trial: trial.result.quality))
        return sorted(chosen, key=lambda trial: -trial.result.quality)

    def _results(self, settings: Sequence[Setting], pool: ThreadPoolExecutor) -> list[Result]:
        known = {setting: result for setting in settings if (result := self._journal.get(setting)) is not None}
        started = time.perf_counter()
        measures = {setting: self._write(self._make(setting)) for setting in settings if setting not in known}
        made = (time.perf_counter() - started) / max(1, len(measures))
        waiting = {setting: pool.submit(self._measure, measure, made) for setting, measure in measures.items()}
        for setting, future in waiting.items():
            known[setting] = future.result()
            self._journal.add(setting, known[setting])
        return [known[setting] for setting in settings]

    def _measure(self, measure: Measure, made: float) -> Result:
        started = time.perf_counter()
        total = len(self._reference.scores)
        first = max(FEWEST_FIRST_SAMPLES, int(total * FIRST_SHARE))
        try:
            if 2 * first <= total:
                quality = measure(first)
                losses = np.array(self._reference.scores[:first]) - np.array(quality.scores)
                if is_hopeless(losses, self._reference.value):
                    estimate = self._reference.value - float(losses.mean())
                    return Result(estimate, quality.beside, first, None, made + time.perf_counter() - started)
            quality = measure(None)
            return Result(quality.value, quality.beside, total, None, made + time.perf_counter() - started)
        except EngineFailure as failure:
            return Result(-math.inf, {}, 0, str(failure), made + time.perf_counter() - started)


def is_hopeless(losses: np.ndarray[Any, np.dtype[np.float64]], reference: float) -> bool:
    """Whether these losses of single samples make it all but certain that too much is lost over all.

    Args:
        losses: of the first samples, float64 [samples], in units of the metric.
        reference: quality of the fp32 model.
    """
    error = float(losses.std(ddof=1)) / len(losses) ** 0.5
    return float(losses.mean()) - _CERTAINTY * error > HOPELESS_SHARE * reference
