"""A sampler that leaves all to chance, beside which the search's own is judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from act.results.ptq_search import TrialSettings
from act.search.sampler import ForestSampler, Observation, draw


class RandomSampler(ForestSampler):
    """Suggests at random, every parameter uniform over its choices."""

    def next_setting(self, history: Sequence[Observation], rng: np.random.Generator) -> TrialSettings | None:
        return draw(self.space, {observation.setting for observation in history}, rng)
