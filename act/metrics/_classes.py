"""Classes that a model gives, one for a sample or one for each part of it, and how they agree with the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from act.errors import InputError
from act.metrics import Figure, Scorer
from act.samples.dataset import PADDING, Array

Counts = Callable[[Array], tuple[Array, Array, Array]]


@dataclass(frozen=True)
class OutputSettings:
    """What a metric of classes may be told.

    Attributes:
        output: place of the output that has the classes, counted from 0.
    """

    output: int = 0


class ClassScorer(Scorer):
    """Counts pairs of found and true classes of the parts (samples, tokens), each of which counts the same."""

    labels = ("class", "classes")
    Settings: ClassVar[type] = OutputSettings

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[list[int]]:
        return agreement(predicted(outputs, self.settings.output), truth[0])


def predicted(outputs: Sequence[Array], place: int) -> Array:
    """Return the class of each part, int [parts], from values by class, float [..., classes], or from classes."""
    values = output_at(outputs, place)
    if values.dtype.kind in "iub":
        return values.reshape(-1)
    classes: Array = np.argmax(values.reshape(-1, values.shape[-1]), axis=1)
    return classes


def output_at(outputs: Sequence[Array], place: int) -> Array:
    """Return one output; `InputError` where there is none at that place."""
    if not 0 <= place < len(outputs):
        raise InputError(f"`metric.output` is {place}, but the model has {len(outputs)} outputs, counted from 0")
    return outputs[place]


def agreement(found: Array, wanted: Array) -> list[list[int]]:
    """Return the pairs of classes, [wanted, found, how often], of the parts of one sample that count."""
    labels = wanted.reshape(-1)
    if len(labels) != len(found):
        told = f"the model gives {len(found)} classes for a sample, and its label has {len(labels)}"
        raise InputError(f"{told}; give a label for each, {PADDING} where none counts")
    counted = labels != PADDING
    pairs, counts = np.unique(np.stack([labels[counted], found[counted]]), axis=1, return_counts=True)
    return [[int(left), int(right), int(count)] for (left, right), count in zip(pairs.T, counts)]


def counts_of(statistics: Sequence[list[list[int]]]) -> Counts:
    """Return what counts for selections of samples, by class, float64 [selections, classes] each: parts that were found
    rightly, parts found, parts there are."""
    rows = np.array([[index, *pair] for index, pairs in enumerate(statistics) for pair in pairs], dtype=np.int64)
    samples, wanted, found, times = rows.reshape(-1, 4).T
    classes = int(max(wanted.max(initial=0), found.max(initial=0))) + 1

    def count(weights: Array) -> tuple[Array, Array, Array]:
        parts = weights[:, samples] * times

        def by_class(numbers: Array, counted: Array) -> Array:
            return np.stack([np.bincount(numbers[counted], row[counted], classes) for row in parts])

        right = by_class(wanted, (wanted == found) & (wanted >= 0))
        return right, by_class(found, found >= 0), by_class(wanted, wanted >= 0)

    return count


def over(numerator: Array, denominator: Array) -> Array:
    """Return quotients, 0 where there is nothing to divide by."""
    quotient: Array = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return quotient


def mean_of_those_there(values: Array, there: Array) -> Array:
    """Return the mean along the last axis of those values that count; 0 where none does."""
    return over(np.where(there, values, 0.0).sum(axis=-1), there.sum(axis=-1).astype(np.float64))


def figure_of(statistics: Sequence[list[list[int]]], combine: Callable[[Array, Array, Array], Array]) -> Figure:
    """Return what gives a figure of right, found and wanted parts by class."""
    count = counts_of(statistics)
    return lambda weights: combine(*count(weights))
