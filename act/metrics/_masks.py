"""Masks that a model gives, and how far they overlap with the labels: sums over all samples for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from act.errors import InputError
from act.metrics import Figure, Scorer
from act.metrics._classes import mean_of_those_there, output_at
from act.samples.dataset import PADDING, Array


@dataclass(frozen=True)
class Settings:
    """What a metric of masks may be told.

    Attributes:
        output: place of the output that has the mask, counted from 0.
        only: the one class that counts; None: the mean over all that are there.
        threshold: from which value on a pixel is of class 1, for an output of one channel.
    """

    output: int = 0
    only: int | None = None
    threshold: float = 0.5


class MaskScorer(Scorer):
    """Sums each class's pixels over all samples first, so that a class counts the same however often it is seen."""

    labels = "classes"
    Settings = Settings

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[list[int]]:
        return overlaps(outputs, truth[0], self.settings)


def overlaps(outputs: Sequence[Array], truth: Array, settings: Settings) -> list[list[int]]:
    """Return of one sample, for each class: [class, pixels in both masks, pixels found, pixels there]."""
    found = _classes(output_at(outputs, settings.output), truth.shape, settings.threshold)
    counted = truth != PADDING
    found, wanted = found[counted].astype(np.int64), truth[counted].astype(np.int64)
    classes = int(max(found.max(initial=0), wanted.max(initial=0))) + 1
    right, there, seen = (np.bincount(each, minlength=classes) for each in (wanted[found == wanted], wanted, found))
    kept = range(classes) if settings.only is None else [settings.only] * (settings.only < classes)
    return [[each, int(right[each]), int(seen[each]), int(there[each])] for each in kept if seen[each] or there[each]]


def figure_of(statistics: Sequence[list[list[int]]], combine: Callable[[Array, Array, Array], Array]) -> Figure:
    """Return what gives the mean over classes of a figure of pixels in both masks, found, and there."""
    classes = max((row[0] for rows in statistics for row in rows), default=0) + 1
    pixels = np.zeros((3, len(statistics), classes))
    for sample, rows in enumerate(statistics):
        for kind, *counts in rows:
            pixels[:, sample, kind] = counts

    def figure(weights: Array) -> Array:
        both, found, there = (weights @ each for each in pixels)
        return mean_of_those_there(combine(both, found, there), np.asarray(found + there > 0))

    return figure


def _classes(values: Array, shape: tuple[int, ...], threshold: float) -> Array:
    """Return the class of each pixel, int [height, width] as the label has them, from an output of one of the usual
    forms: values by class, first or last, one value, or the class itself."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim == 3:
        first = values.shape[1:] == shape or (values.shape[:2] != shape and values.shape[0] < values.shape[2])
        values = np.argmax(values, axis=0 if first else 2)
    elif values.ndim == 2 and values.dtype.kind == "f":
        values = values > threshold
    if values.ndim != 2 or len(shape) != 2:
        told = f"an output of shape {list(values.shape)} for a label of shape {list(shape)}"
        raise InputError(f"{told} is no mask; say with `metric.output` which output has it")
    # Where the model gives fewer pixels than the label has, each stands for those around it.
    rows, columns = ((np.arange(wide) + 0.5) * has / wide for wide, has in zip(shape, values.shape))
    return values[rows.astype(np.int64)[:, None], columns.astype(np.int64)]
