"""Scores that a model gives, itself or by how like two of its embeddings are, and how they go with the labels.

The two texts of a pair are two samples, one after the other, both with the pair's score: the first has no statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from act.errors import InputError, quoted
from act.metrics import Figure, Scorer, cosine
from act.metrics._classes import output_at, over
from act.samples.dataset import Array

Statistics = Sequence[list[float] | None]


@dataclass(frozen=True)
class Settings:
    """What a correlation may be told.

    Attributes:
        output: place of the output that has the score or the embedding, counted from 0.
        pooling: how the embeddings of tokens become one: their mean where the mask is 1, or that of the first.
        mask: the input that masks tokens; None: that with `mask` in its name, where there is one.
    """

    output: int = 0
    pooling: Literal["mean", "first"] = "mean"
    mask: str | None = None


class Correlation(Scorer):
    """Compares what the model gives with the labels' numbers over all samples.

    An output of one number is the score; any other is an embedding, and the score of a pair is their cosine.
    """

    labels = "score"
    Settings = Settings
    _first: Array | None = None

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[float] | None:
        output, wanted = output_at(outputs, self.settings.output), float(truth[0].reshape(-1)[0])
        if output.size == 1:
            return [float(output.reshape(-1)[0]), wanted]
        embedding = self._pooled(output)
        if self._first is None:
            self._first = embedding
            return None
        found, self._first = cosine(self._first, embedding), None
        return [found, wanted]

    def _pooled(self, output: Array) -> Array:
        """Return one embedding, float [size], of one or of [tokens, size]."""
        if output.ndim < 2:
            return output
        if self.settings.pooling == "first":
            first: Array = output[0]
            return first
        feeds = self.samples.feeds
        name: str | None = self.settings.mask or next((each for each in feeds if "mask" in each.lower()), None)
        if name is not None and name not in feeds:
            raise InputError(f"`metric.mask` is {name!r:.80}; the model's inputs are {quoted(feeds)}")
        mask = np.ones(len(output)) if name is None else feeds[name][self.index]
        pooled: Array = np.average(output, axis=0, weights=mask.reshape(-1)[: len(output)] + 1e-12)
        return pooled

    @classmethod
    def alone(cls, statistics: Any) -> float:
        """Return the score that the model gives; the first text of a pair has none."""
        return float("nan") if statistics is None else float(statistics[0])


def correlation(statistics: Statistics, places: Callable[[Array], Callable[[Array], Array]]) -> Figure:
    """Return what gives the correlation of found and wanted numbers, once each has its place in a selection."""
    kept = [index for index, each in enumerate(statistics) if each is not None]
    numbers = np.array([statistics[index] for index in kept], dtype=np.float64).reshape(-1, 2)
    place = [places(column) for column in numbers.T]

    def figure(weights: Array) -> Array:
        counts = weights[:, kept]
        total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        found, wanted = (each(counts) for each in place)
        found, wanted = (each - (counts * each).sum(axis=1, keepdims=True) / total for each in (found, wanted))
        spread = np.sqrt((counts * found**2).sum(axis=1) * (counts * wanted**2).sum(axis=1))
        return over((counts * found * wanted).sum(axis=1), spread)

    return figure
