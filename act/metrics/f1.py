"""`f1`: the harmonic mean of precision and recall, of one class or as the mean over all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from act.metrics import Figure
from act.metrics._classes import ClassScorer, OutputSettings, figure_of, mean_of_those_there, over
from act.samples.dataset import Array

# Stands for every class that is not asked for.
_OTHER = -2


@dataclass(frozen=True)
class Settings(OutputSettings):
    """What may be told.

    Attributes:
        positive: the one class that counts, as in GLUE's tasks of two classes; None: the mean over all (macro).
    """

    positive: int | None = None


class Metric(ClassScorer):
    """Counts of each class how many parts (samples, tokens) are found rightly, found, and there.

    A class that is neither found nor there does not count.
    """

    title = "F1"
    Settings = Settings

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[list[int]]:
        pairs = super().score(outputs, truth)
        positive = self.settings.positive
        if positive is None:
            return pairs
        return [[*(each if each == positive else _OTHER for each in pair[:2]), pair[2]] for pair in pairs]

    @staticmethod
    def figure(statistics: Sequence[list[list[int]]]) -> Figure:
        def combine(right: Array, found: Array, wanted: Array) -> Array:
            return mean_of_those_there(over(2 * right, found + wanted), np.asarray(found + wanted > 0))

        return figure_of(statistics, combine)
