"""Which networks are measured next: more of the blocks in whose networks the learned model was most wrong so far.

After each round the model is cross-validated on what was measured. All is computed from the table, so that a profile
that was stopped goes on with the very networks that it would have measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from act.strategy.latency.model import Measured, cross_predict
from act.strategy.profile.networks import FAMILIES, Network, draw, family_of

ROUND = 16
# How many times as often as usual a kind of block is drawn, at least and at most.
RAREST, MOST_OFTEN = 0.4, 3.0


class Plan:
    """The networks in order.

    Args:
        seed: of all draws.
        measured: gives what was measured of the networks so far, of all precisions and numbers of threads.
    """

    def __init__(self, seed: int, measured: Mapping[str, Sequence[Measured]]) -> None:
        self._seed = seed
        self._measured = measured

    def networks(self, count: int) -> Iterator[Network]:
        """The first so many; each is drawn when it is asked for, and those before must be measured by then."""
        drawn: list[Network] = []
        weights: Mapping[str, float] = {}
        for number in range(count):
            if number and number % ROUND == 0:
                weights = self._weights(drawn)
            drawn.append(draw(number, self._seed, weights))
            yield drawn[-1]

    def _weights(self, drawn: Sequence[Network]) -> Mapping[str, float]:
        """How often each kind of block is drawn, from the errors of the networks that have it."""
        found = [each for network in drawn for each in self._measured.get(network.name, ())]
        wrong: dict[str, list[float]] = defaultdict(list)
        for each, prediction in cross_predict(found):
            wrong[each.name].append(abs(float(np.log(prediction.seconds / each.seconds))))
        usual = float(np.mean([error for errors in wrong.values() for error in errors])) if wrong else 0.0
        if usual <= 0:
            return {}
        of_family: dict[str, list[float]] = defaultdict(list)
        for network in drawn:
            for family in {family_of(block) for block in network.blocks}:
                of_family[family] += wrong[network.name]
        return {
            family: float(np.clip(np.mean(of_family[family]) / usual, RAREST, MOST_OFTEN)) if of_family[family] else 1.0
            for family in FAMILIES
        }
