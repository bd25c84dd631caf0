"""How many times as fast a smaller model is as the whole one in fp32, measured before it is trained.

Training moves weights and not latency, and neither do the ranges of int8: so how much must go for a speed-up is known
within seconds of each guess.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from act.engines.base import RuntimePrecision
from act.engines.process import EngineProcess
from act.engines.quiet import patience
from act.engines.turns import Turn
from act.model import InferenceModel
from act.params import EngineName, Target
from act.samples import Array
from act.written import Written, write

# Rounds go on for some seconds: those of models that take less than a millisecond would all fall into one moment of
# what else the machine does.
FEWEST_ROUNDS, LEAST_SECONDS, RUNS, WARM_UP_SECONDS, LIMIT_SECONDS = 7, 4.0, 20, 1.0, 300
# How long disturbed turns are taken again, times the user's patience.
AGAIN_SECONDS = 20.0


@dataclass(frozen=True)
class Stopwatch:
    """Measures one smaller model after the other.

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

    def __call__(self, smaller: InferenceModel) -> float:
        """Over the whole model, both measured in turn because the machine may be faster or slower than a minute ago.

        Raises:
            EngineFailure: the engine cannot run one of them.
        """
        with ExitStack() as stack:
            one, other = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
            slow = write("whole", self.whole, self.batch, self.engine, ["fp32"], one)
            fast = write("smaller", smaller, self.batch, self.engine, self.precisions, other)
            pairs = [
                (stack.enter_context(self._running(written, precision)), written)
                for written, precision in ((slow, "fp32"), *((fast, each) for each in self.precisions))
            ]
            for process, written in pairs:
                process.load()
                process.warm_up(written.samples, self.target.batch, WARM_UP_SECONDS)
            rounds: list[list[Turn]] = []
            began = time.monotonic()
            while len(rounds) < FEWEST_ROUNDS or time.monotonic() < began + LEAST_SECONDS:
                rounds.append([Turn(process, each.samples, self.target.batch, RUNS) for process, each in pairs])
                for turn in rounds[-1]:
                    turn.take()
            until = time.monotonic() + AGAIN_SECONDS * patience()
            while time.monotonic() < until and (left := [turn for turns in rounds for turn in turns if turn.disturbed]):
                for turn in left:
                    if time.monotonic() < until:
                        turn.take()
        # As the benchmark compares them: medians over all rounds, in which what else the machine does falls on all.
        whole, *rest = np.median([[turn.seconds for turn in turns] for turns in rounds], axis=(0, 2))
        return float(whole / min(rest))

    def __str__(self) -> str:
        return f"{self.engine} in {' or '.join(self.precisions)}"

    def _running(self, written: Written, precision: RuntimePrecision) -> EngineProcess:
        return EngineProcess(self.engine, written.files[precision], precision, self.target.threads, LIMIT_SECONDS)
