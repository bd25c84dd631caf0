"""The least that must go for a speed-up over the whole model in fp32, found by measuring smaller models.

Training moves weights and not latency, and neither do the ranges of int8: so how much must go is known within seconds
of each guess, before anything is trained.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.writer import export_variants
from act.program.model import InferenceModel
from act.pruning.groups import Gone
from act.results.select import SpeedupSearch
from act.samples.dataset import Array, Samples
from act.settings import EngineName, Target
from act.timing.rounds import TimedModel, time_in_rounds

log = logging.getLogger(__name__)

MEASUREMENTS = 8
NEAR_ENOUGH = 0.03
"""Speed beyond the target that is not worth another measurement."""
LEAST_SHARE = 0.05
"""Share of the MACs below which nothing more is tried for the sake of a speed-up."""

_ROUNDS, _RUNS, _WARM_UP_SECONDS, _LIMIT_SECONDS = 7, 20, 1.0, 300


@dataclass(frozen=True)
class Stopwatch:
    """Measures one smaller model after the other, in turn with the whole one in fp32.

    Of the smaller one's precisions the quickest counts, as in the benchmark that follows. The batch has the target's
    size; rounds go on for `least_seconds`.
    """

    whole: InferenceModel
    batch: Mapping[str, Array]
    target: Target
    engine: EngineName
    precisions: Sequence[RuntimePrecision] = ("fp32",)
    least_seconds: float = 4.0

    def __call__(self, smaller: InferenceModel) -> float:
        """Return how many times as fast the smaller model is, both in rounds that nothing disturbed.

        Raises:
            EngineFailure: the engine cannot run one of them.
        """
        with ExitStack() as stack:
            models = []
            in_fp32: Sequence[RuntimePrecision] = ("fp32",)
            for model, precisions in ((self.whole, in_fp32), (smaller, self.precisions)):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                written = export_variants("model", model, self.batch, self.engine, precisions, folder)
                for precision in precisions:
                    file = written.files[precision]
                    process = EngineProcess(self.engine, file, precision, self.target.threads, _LIMIT_SECONDS)
                    models.append(TimedModel(stack.enter_context(process), written.samples, self.target.batch, _RUNS))
            for each in models:
                each.process.load()
                each.warm_up(_WARM_UP_SECONDS)
            time_in_rounds(models, _ROUNDS, least_seconds=self.least_seconds)
            for each in models:
                if each.failure is not None:
                    raise each.failure
            whole, *rest = (each.typical_seconds for each in models)
        return whole / min(rest)

    def __str__(self) -> str:
        return f"{self.engine} in {' or '.join(self.precisions)}"


def find_stopwatch(
    whole: InferenceModel, samples: Samples, target: Target, search: SpeedupSearch | None, engine: EngineName
) -> Stopwatch | None:
    """Return what measures speed-ups where the strategy says, else in fp32 on an engine; None where that cannot run."""
    precisions = cast("list[RuntimePrecision]", search.precisions if search else ["fp32"])
    stopwatch = Stopwatch(whole, samples.first(target.batch), target, search.engine if search else engine, precisions)
    try:
        stopwatch(whole)
    except EngineFailure as failure:
        log.warning("prune: %s cannot be timed: %s", stopwatch, failure)
        return None
    return stopwatch


@dataclass(frozen=True)
class Measured:
    """A smaller model, as it was measured: what went, the share of the MACs that is left, the speed-up."""

    gone: Gone
    share: float
    speedup: float
    measurements: int = 1

    def describe(self, target: float, where: str) -> str:
        """Return what was reached, for people."""
        asked = f"{target:g} is asked for"
        outcome = f" ({asked})" if self.speedup >= target else f", the most that was found, where {asked}"
        return f"measured {self.speedup:.2f} times as fast{outcome} after {self.measurements} measurements on {where}"


def choose_for_speedup(
    target: float,
    gone_for: Callable[[float], Gone],
    speedup_of: Callable[[Gone], float],
    first_share: float | None,
) -> Measured:
    """Return the least that must go for a speed-up; the fastest that was measured, where none is fast enough.

    Args:
        gone_for: tells how many units go for a share of the MACs.
        first_share: to begin with; None: as if all latency were MACs.
    """
    whole = gone_for(1.0)
    slow = Measured(whole, 1.0, speedup_of(whole))
    if slow.speedup >= target:
        return slow
    share = min(0.95, slow.speedup / target) if first_share is None else first_share
    reached: Measured | None = None
    tried: list[Measured] = []
    for _ in range(MEASUREMENTS - 1):
        gone = gone_for(share)
        if gone in (each.gone for each in tried):
            break
        latest = Measured(gone, share, speedup_of(gone))
        tried.append(latest)
        if latest.speedup >= target:
            reached = latest if reached is None or latest.share > reached.share else reached
            if latest.speedup <= target * (1 + NEAR_ENOUGH):
                break
        elif latest.share < slow.share:
            slow = latest
        if reached is not None and slow.share <= reached.share:
            break  # what is slower has less to do: they differ by no more than what is uncertain
        share = _next_share(target, reached, slow)
    fastest = max(tried, key=lambda each: each.speedup)
    return replace(reached or fastest, measurements=1 + len(tried))


def _next_share(target: float, fast: Measured | None, slow: Measured) -> float:
    """Return a share between what is fast enough and what is not, as if latency grew with the share on a line; else a
    little less than as if it were in proportion to it."""
    if fast is None:
        return max(LEAST_SHARE, slow.share * slow.speedup / target * 0.95)
    aim = 1 / (target * (1 + NEAR_ENOUGH / 2))
    part = (aim - 1 / fast.speedup) / (1 / slow.speedup - 1 / fast.speedup)
    return fast.share + (slow.share - fast.share) * min(max(part, 0.1), 0.9)
