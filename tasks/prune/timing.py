"""How many times as fast a smaller model is as the whole one in fp32, measured before it is trained.

Training moves weights and not latency, and neither do the ranges of int8: so how much must go for a speed-up is known
within seconds of each guess.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from act.engines.base import RuntimePrecision
from act.engines.process import EngineProcess
from act.engines.quiet import LONGER, patience
from act.engines.turns import FEWEST, undisturbed
from act.model import InferenceModel
from act.params import EngineName, Target
from act.samples import Array
from act.written import Written, write

# Rounds go on for some seconds: those of models that take less than a millisecond would all fall into one moment of
# what else the machine does.
FEWEST_ROUNDS, LEAST_SECONDS, RUNS, WARM_UP_SECONDS, LIMIT_SECONDS = 7, 4.0, 20, 1.0, 300
# How long more turns are taken where too few were not disturbed, times the user's patience.
MORE_SECONDS = 20.0

# Seconds of the runs of each turn, all on the same inputs.
Turns = list[list[float]]


@dataclass(frozen=True)
class Stopwatch:
    """Measures one smaller model after the other, in turn with the whole one.

    What the whole one took in undisturbed turns is remembered from one to the next.

    Args:
        whole: the model that all are compared with.
        batch: samples of the target's batch size, batch axis first.
        engine, precisions: what the smaller ones run on and in, where the quickest counts, as in the benchmark that
            follows; the whole one is in fp32.
    """

    whole: InferenceModel
    batch: Mapping[str, Array]
    target: Target
    engine: EngineName
    precisions: Sequence[RuntimePrecision] = ("fp32",)
    _whole: Turns = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(self, smaller: InferenceModel) -> float:
        """Over the whole model, both by the median of what nobody disturbed, as the benchmark compares them.

        Raises:
            EngineFailure: the engine cannot run one of them.
        """
        with ExitStack() as stack:
            one, other = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
            slow = write("whole", self.whole, self.batch, self.engine, ["fp32"], one)
            fast = write("smaller", smaller, self.batch, self.engine, self.precisions, other)
            models = [
                (stack.enter_context(self._running(written, precision)), written, turns)
                for written, precision, turns in (
                    (slow, "fp32", self._whole),
                    *((fast, each, Turns()) for each in self.precisions),
                )
            ]
            for process, written, _ in models:
                process.load()
                process.warm_up(written.samples, self.target.batch, WARM_UP_SECONDS)
            rounds, began = 0, time.monotonic()
            while rounds < FEWEST_ROUNDS or time.monotonic() < began + LEAST_SECONDS:
                rounds += 1
                for process, written, turns in models:
                    turns.append(process.time(written.samples, self.target.batch, RUNS))
            until = time.monotonic() + MORE_SECONDS * patience()
            while time.monotonic() < until and (left := [each for each in models if not _is_enough(each[2])]):
                for process, written, turns in left:
                    turns.append(process.time(written.samples, self.target.batch, RUNS))
        whole, *rest = (_median(turns) for _, _, turns in models)
        return whole / min(rest)

    def __str__(self) -> str:
        return f"{self.engine} in {' or '.join(self.precisions)}"

    def _running(self, written: Written, precision: RuntimePrecision) -> EngineProcess:
        return EngineProcess(self.engine, written.files[precision], precision, self.target.threads, LIMIT_SECONDS)


def _slowed(turns: Turns) -> list[float]:
    """How many times longer each turn took than if all its runs had been as quick as the quickest of all."""
    quickest = min(map(min, turns))
    return [sum(turn) / (len(turn) * quickest) for turn in turns]


def _is_enough(turns: Turns) -> bool:
    return sum(each <= LONGER for each in _slowed(turns)) >= FEWEST


def _median(turns: Turns) -> float:
    return float(np.median([turns[place] for place in undisturbed(_slowed(turns))]))
