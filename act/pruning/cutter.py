"""Smaller models of one model, in which the channels that stay do the work of those that went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from act.program.model import InferenceModel
from act.pruning.compensate import compensate
from act.pruning.groups import Plan
from act.pruning.input_statistics import Floats, InputStatistics
from act.pruning.shrink import shrink

# How many units of each group go, by its key.
Gone = dict[str, int]


@dataclass(frozen=True)
class Cutter:
    """Cuts the units that matter least.

    Attributes:
        model: the whole one.
        plan: of its groups.
        scores: importance of each group's units, by its key.
        statistics: of the inputs of layers that read them, by weight.
    """

    model: InferenceModel
    plan: Plan
    scores: Mapping[str, Floats]
    statistics: Mapping[str, InputStatistics]

    def cut(self, gone: Gone) -> InferenceModel:
        """Return a smaller model, fitted to do without what went."""
        removed = {name: _least_important(self.scores[name], count) for name, count in gone.items() if count}
        filled = compensate(self.model, self.plan, removed, self.statistics)
        result = shrink(filled, self.plan, removed)
        filled.discard()
        return result


def _least_important(scores: Floats, count: int) -> list[int]:
    return sorted(int(number) for number in np.argsort(scores, kind="stable")[:count])
