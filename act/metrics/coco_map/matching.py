"""Which boxes found are right, and the average precision that follows, as COCO's own evaluation counts them.

Held by a test against `pycocotools`, which keeps whole pictures where we keep what a resampled figure takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from act.samples.dataset import Array

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the intersection over union, from which on a box is right
MOST_OF_A_CLASS = 100  # boxes of one class in one picture that count
_RECALLS = np.linspace(0, 1, 101)
_BITS = 1 << np.arange(len(THRESHOLDS))


def overlap(found: Array, wanted: Array, crowds: Array) -> Array:
    """Return the intersection over union of boxes [n, 4] and [m, 4] as left, top, right, bottom, float64 [n, m].

    With a crowd it is the share of the found box that lies inside.
    """
    corners = np.minimum(found[:, None, 2:], wanted[None, :, 2:]) - np.maximum(found[:, None, :2], wanted[None, :, :2])
    both = np.clip(corners, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, wanted)]
    union = areas[0][:, None] + np.where(crowds, 0, areas[1])[None] - np.where(crowds, 0, both)
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def matched(found: Array, wanted: Array) -> list[list[list[float]]]:
    """Return what average precision takes of one picture.

    Args:
        found: float [n, 6]: class, score, and the box as left, top, right, bottom.
        wanted: float [m, 6]: class, the box, and whether it is a crowd, in which any number of boxes is no mistake.

    Returns:
        for each box that counts [class, score, bits of the thresholds at which it is right, bits of those at which it
        lies in a crowd]; and for each class [class, number of boxes there].
    """
    rows: list[list[float]] = []
    for kind in np.unique(found[:, 0]):
        boxes = found[found[:, 0] == kind]
        boxes = boxes[np.argsort(-boxes[:, 1], kind="stable")][:MOST_OF_A_CLASS]
        truths = wanted[wanted[:, 0] == kind]
        if not len(truths):
            rows += [[int(kind), float(score), 0, 0] for score in boxes[:, 1]]
            continue
        right, ignored = _greedy(overlap(boxes[:, 2:], truths[:, 1:5], truths[:, 5] > 0), truths[:, 5] > 0)
        bits = ((right @ _BITS).tolist(), (ignored @ _BITS).tolist())
        rows += [[int(kind), float(score), *pair] for score, *pair in zip(boxes[:, 1], *bits)]
    kinds, counts = np.unique(wanted[wanted[:, 5] == 0, 0], return_counts=True)
    return [rows, [[int(kind), int(count)] for kind, count in zip(kinds, counts)]]


def _greedy(overlaps: Array, crowds: Array) -> tuple[Array, Array]:
    """Return at which thresholds each box is right, and at which it lies in a crowd, bool [boxes, thresholds].

    The boxes, likeliest first, each take the one that is still free and that they overlap most.
    """
    right, ignored = (np.zeros((len(overlaps), len(THRESHOLDS)), dtype=bool) for _ in range(2))
    free = np.tile(~crowds, (len(THRESHOLDS), 1))
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for box, shares in enumerate(overlaps):
        if not len(shares) or shares.max() < THRESHOLDS[0]:
            continue
        reached = np.where(free & (shares >= least), shares, -1.0)
        # Of equal ones the last, as COCO has it.
        best = len(shares) - 1 - np.argmax(reached[:, ::-1], axis=1)
        taken = reached[np.arange(len(best)), best] >= 0
        right[box] = taken
        free[taken, best[taken]] = False
        ignored[box] = ~taken & ((shares >= least) & crowds).any(axis=1)
    return right, ignored


def average_precisions(statistics: Sequence[Any]) -> Callable[[Array], Array]:
    """Return what gives the mean over classes of the average precision at each threshold, float64 [selections,
    thresholds], of selections of pictures that `matched` has counted.

    A class that no picture of a selection has does not count.
    """
    classes = [_Class(*each) for each in _by_class(statistics)]

    def precisions(weights: Array) -> Array:
        total, there = np.zeros((len(weights), len(THRESHOLDS))), np.zeros((len(weights), 1))
        for each in classes:
            count = weights @ each.counts
            total += each.precisions(weights, count)
            there[:, 0] += count > 0
        return total / np.maximum(there, 1)

    return precisions


def _by_class(statistics: Sequence[Any]) -> list[tuple[Array, Array]]:
    """Return for each class that is there its boxes, likeliest first, float64 [boxes, 4] (picture, score, bits), and
    how many there are in each picture, float64 [pictures]."""
    found = np.array([[index, *row] for index, (rows, _) in enumerate(statistics) for row in rows], dtype=np.float64)
    found = found.reshape(-1, 5)
    counts: dict[int, Array] = {}
    for index, (_, rows) in enumerate(statistics):
        for kind, count in rows:
            counts.setdefault(int(kind), np.zeros(len(statistics)))[index] = count
    found = found[np.argsort(-found[:, 2], kind="stable")]
    return [(found[found[:, 1] == kind][:, [0, 2, 3, 4]], counts[kind]) for kind in sorted(counts)]


class _Class:
    """Boxes of one class over all pictures."""

    def __init__(self, found: Array, counts: Array) -> None:
        self.counts = counts
        bits = found[:, 2:].astype(np.int64)
        right, ignored = ((bits[:, column, None] & _BITS) > 0 for column in (0, 1))
        # What comes behind the last box that is right at any threshold changes no precision that counts.
        last = int(np.flatnonzero(right.any(axis=1)).max(initial=-1)) + 1
        self._pictures = found[:last, 0].astype(np.int64)
        self._right, self._counted = right[:last], right[:last] | ~ignored[:last]

    def precisions(self, weights: Array, count: Array) -> Array:
        """Return the average precision at each threshold, 0 where nothing is there."""
        times, result = weights[:, self._pictures], np.zeros((len(weights), len(THRESHOLDS)))
        if not len(self._pictures):
            return result
        everything = np.cumsum(times, axis=1)
        for place in range(len(THRESHOLDS)):
            # Precision matters where a box is right; the others count only in sums.
            kept = np.flatnonzero(self._right[:, place])
            if not len(kept):
                continue
            right, counted = np.cumsum(times[:, kept], axis=1), self._counted[:, place]
            found = (everything if counted.all() else np.cumsum(times * counted, axis=1))[:, kept]
            recall = right / np.maximum(count, 1)[:, None]
            precision = np.divide(right, found, out=np.zeros_like(right), where=found > 0)
            highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            padded = np.concatenate([highest, np.zeros((len(weights), 1))], axis=1)
            result[:, place] = np.take_along_axis(padded, _first_at_least(recall, _RECALLS), axis=1).mean(axis=1)
        return result


def _first_at_least(rising: Array, values: Array) -> Array:
    """Return where in each row, which rises from 0 to 1, each value is reached, int64 [rows, values]; its length where
    it is not."""
    # Rows behind one another, each moved above all before it, are one that rises.
    rows = np.arange(len(rising))[:, None]
    found = np.searchsorted((rising + 2.0 * rows).reshape(-1), (values + 2.0 * rows).reshape(-1))
    return found.reshape(len(rising), -1) - rows * rising.shape[1]
