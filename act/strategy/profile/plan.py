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


def planned_networks(count: int, seed: int, measured: Mapping[str, Sequence[Measured]]) -> Iterator[Network]:
    """Yield so many networks; each is drawn when it is asked for, and those before must be measured by then.

    Args:
        measured: what was measured of each network so far, in all precisions and numbers of threads.
    """
    drawn: list[Network] = []
    weights: Mapping[str, float] = {}
    for number in range(count):
        if number and number % ROUND == 0:
            weights = family_weights(drawn, measured)
        drawn.append(draw(number, seed, weights))
        yield drawn[-1]


def family_weights(drawn: Sequence[Network], measured: Mapping[str, Sequence[Measured]]) -> Mapping[str, float]:
    """Return how often each kind of block is drawn, from the errors of the networks that have it."""
    wrong: dict[str, list[float]] = defaultdict(list)
    for each, prediction in cross_predict([each for network in drawn for each in measured.get(network.name, ())]):
        wrong[each.name].append(abs(float(np.log(prediction.seconds / each.seconds))))
    usual = float(np.mean([error for errors in wrong.values() for error in errors])) if wrong else 0.0
    if usual <= 0:
        return {}
    weights = dict.fromkeys(FAMILIES, 1.0)
    for family in FAMILIES:
        having = [network.name for network in drawn if family in map(family_of, network.blocks)]
        if errors := [error for name in having for error in wrong[name]]:
            weights[family] = float(np.clip(np.mean(errors) / usual, RAREST, MOST_OFTEN))
    return weights
