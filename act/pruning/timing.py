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
from act.engines.variants import Written, write
from act.program.model import InferenceModel
from act.samples.dataset import Array
from act.settings import EngineName, Target

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
                _Timed(
                    stack.enter_context(self._running(written, precision)), written.samples, self.target.batch, turns
                )
                for written, precision, turns in (
                    (slow, "fp32", self._whole),
                    *((fast, each, Turns()) for each in self.precisions),
                )
            ]
            for model in models:
                model.process.load()
                model.process.warm_up(model.samples, model.batch, WARM_UP_SECONDS)
            rounds, began = 0, time.monotonic()
            while rounds < FEWEST_ROUNDS or time.monotonic() < began + LEAST_SECONDS:
                rounds += 1
                for model in models:
                    model.take_turn()
            until = time.monotonic() + MORE_SECONDS * patience()
            while time.monotonic() < until and (left := [model for model in models if not model.is_enough()]):
                for model in left:
                    model.take_turn()
            whole, *rest = (model.median() for model in models)
        return whole / min(rest)

    def __str__(self) -> str:
        return f"{self.engine} in {' or '.join(self.precisions)}"

    def _running(self, written: Written, precision: RuntimePrecision) -> EngineProcess:
        return EngineProcess(self.engine, written.files[precision], precision, self.target.threads, LIMIT_SECONDS)


@dataclass(frozen=True)
class _Timed:
    """A model that takes turns at being timed, all on the same inputs."""

    process: EngineProcess
    samples: Path
    batch: int
    turns: Turns

    def take_turn(self) -> None:
        self.turns.append(self.process.time(self.samples, self.batch, RUNS))

    def is_enough(self) -> bool:
        return sum(each <= LONGER for each in self._slowed()) >= FEWEST

    def median(self) -> float:
        return float(np.median([self.turns[place] for place in undisturbed(self._slowed())]))

    def _slowed(self) -> list[float]:
        """How many times longer each turn took than if all its runs had been as quick as any that is known of."""
        quickest = min(*self.process.quickest(self.samples, self.batch), *map(min, self.turns))
        return [sum(turn) / (len(turn) * quickest) for turn in self.turns]
