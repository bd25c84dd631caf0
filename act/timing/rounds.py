"""Rounds in which models take turns at being timed, each round in a new random order.

Every model stays loaded in an engine process of its own to the end, so that a slow minute of the machine falls on all
of them alike.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from act.engines.process import EngineFailure, EngineProcess, WarmUp
from act.timing.statistics import Floats, typical


@dataclass
class TimedModel:
    """A model that takes turns at being timed, with inputs of one shape."""

    process: EngineProcess  # with the model loaded
    samples: Path  # folder that `Samples.save` wrote
    batch: int  # samples in each run
    runs: int  # that make a turn
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)  # shapes, batch axis first, to be reported
    warmed_up: WarmUp | None = None
    rounds: list[list[float]] = field(default_factory=list)  # seconds of the runs of each turn, all of the same inputs
    failure: EngineFailure | None = None  # why it takes no further turns

    @property
    def seconds(self) -> Floats:
        """Return the seconds of single runs, float [rounds, runs]."""
        return np.array(self.rounds)

    @property
    def typical_seconds(self) -> float:
        return typical(self.seconds)

    def warm_up(self, seconds: float = 3.0) -> None:
        """Run until the latency is steady, for about so many seconds at most."""
        try:
            self.warmed_up = self.process.warm_up(self.samples, self.batch, seconds)
        except EngineFailure as failure:
            self.failure = failure

    def take_turn(self) -> None:
        """Time the runs of a round."""
        try:
            self.rounds.append(self.process.time(self.samples, self.batch, self.runs))
        except EngineFailure as failure:
            self.failure = failure


def time_in_rounds(
    models: Sequence[TimedModel],
    rounds: int,
    seed: int = 0,
    least_seconds: float = 0.0,
    most_seconds: float = math.inf,
    after_round: Callable[[int], None] = lambda number: None,
) -> None:
    """Let all models that have not failed take a turn in each round.

    Args:
        models: loaded and warmed up.
        rounds: how many at least.
        seed: of the order in each round.
        least_seconds: how long rounds go on at least; those of small models would all fall into one moment of what else
            the machine does.
        most_seconds: a model whose runs took so long in all takes no further turns.
        after_round: told the number of rounds so far.
    """
    order = random.Random(seed)
    began, number = time.monotonic(), 0
    while number < rounds or time.monotonic() < began + least_seconds:
        running = [model for model in models if model.failure is None and sum(map(sum, model.rounds)) < most_seconds]
        if not running:
            return
        for model in order.sample(running, len(running)):
            model.take_turn()
        number += 1
        after_round(number)
