"""`similarity`: the share of the fp32 model's outputs that is kept, part by part; needs no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from act.comparison import Comparison, Floats, MeanErrors, parts_from_json
from act.metrics import WORST_PART, Figure, Quality, Scorer
from act.samples.dataset import Array, Samples

Statistics = Sequence[Sequence[Sequence[float | None]]]
"""Of each sample, for each output, the errors of its parts; None of what the sample has not."""

# Errors that are kept of all samples, for each output, and the largest one.
_MOST_ERRORS, _LARGEST = 2**20, 1e9
_PARTS = "parts"


class Metric(Scorer):
    """Scores each part 1 - mean squared error / variance, at least 0, and takes the mean over parts and outputs.

    `act.comparison` tells what a part is. Of very many parts those in a row go together. `worst_part` is the least
    score of one.
    """

    title = "similarity to the fp32 outputs"
    labels = None
    may_lose = 0.05
    by_parts = True

    def __init__(self, samples: Samples, reference: Samples | None = None, settings: Any = None) -> None:
        super().__init__(samples, reference, settings)
        known = reference.known.get(_PARTS) if reference is not None else None
        parts = None if known is None else [parts_from_json(each) for each in known]
        self._comparison = Comparison(self._truth, list(reference.feeds) if reference is not None else None, parts)
        self._most = max(1, _MOST_ERRORS // max(1, len(samples)))
        self._mean = MeanErrors()

    @classmethod
    def learn(cls, reference: Samples) -> dict[str, Any]:
        """Return the parts of the outputs."""
        return {_PARTS: [parts.to_json() for parts in Comparison(list(reference.feeds.values())).parts]}

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[list[float | None]]:
        errors = [np.minimum(each, _LARGEST) for each in self._comparison.errors(outputs, truth)]
        self._mean.add(errors)
        return [_pooled(each, self._most) for each in errors]

    def quality(self) -> Quality:
        """Return the quality; `notes` has the name of the worst part."""
        return replace(super().quality(), notes={WORST_PART: self._comparison.worst(self._mean.errors)[1]})

    @staticmethod
    def figure(statistics: Statistics) -> Figure:
        by_output = list(map(_by_output, zip(*statistics)))
        return lambda weights: np.mean([_mean(_scores(*each, weights)) for each in by_output], axis=0)

    @classmethod
    def beside(cls, statistics: Statistics) -> dict[str, float]:
        weights = np.ones((1, len(statistics)))
        least = [np.nanmin(_scores(*_by_output(each), weights), initial=1) for each in zip(*statistics)]
        return {WORST_PART: float(min(least))}


def _pooled(errors: Floats, most: int) -> list[float | None]:
    """Return the errors of one output's parts, the means of those in a row where there are more than `most`."""
    if len(errors) > most:
        errors = np.array([_mean(each[None])[0] for each in np.array_split(errors, most)])
    return [None if np.isnan(each) else float(each) for each in errors]


def _by_output(errors: Sequence[Sequence[float | None]]) -> tuple[Array, Array]:
    """Return the errors of one output's parts, 0 for what is not there, and whether it is; both [samples, parts]."""
    values = np.array(errors, dtype=np.float64)
    return np.nan_to_num(values, posinf=_LARGEST), ~np.isnan(values)


def _scores(errors: Array, there: Array, weights: Array) -> Array:
    """Return the scores of parts over weighted samples, float64 [selections, parts]; NaN for what is in none."""
    counts = weights @ there
    return np.where(counts > 0, np.clip(1 - (weights @ errors) / np.maximum(counts, 1), 0, 1), np.nan)


def _mean(values: Array) -> Array:
    """Return the mean of what is there along the last axis; 1 where nothing is."""
    there = ~np.isnan(values)
    sums = np.where(there, values, 0).sum(axis=-1)
    return np.where(there.any(axis=-1), sums / np.maximum(there.sum(axis=-1), 1), 1.0)
