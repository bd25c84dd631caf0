"""`coco_map`: the mean average precision of boxes over classes and over overlaps of .50 to .95, as COCO has it.

Boxes are compared in pixels of the model's input: intersection over union is the same in the picture, because fitting
scales each axis by one factor. A label is a table [rows, 6] or [rows, 5]: class, left, top, right, bottom, and whether
it is a crowd. A row of class -1 is where the picture lies in the input, to which boxes are cut; below that it fills up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.errors import InputError, quoted
from act.metrics import Figure, Scorer
from act.metrics.coco_map.decoders import DECODERS, Found, Size, guess
from act.metrics.coco_map.matching import average_precisions, matched
from act.samples.dataset import PADDING, Array, FeedSpec

# Boxes of one picture that are looked at, and that are kept.
_MOST, _KEPT = 3000, 300


@dataclass(frozen=True)
class Settings:
    """What may be told.

    Attributes:
        decoder: what the outputs mean (`act.metrics.coco_map.decoders`); None: found by their shapes.
        background: the class of the model that stands for nothing, such as 0 of SSD; others move up. None: there is
            none.
        score: boxes of a lower score are left out.
        overlap: boxes of a class that overlap a likelier one by more are left out, unless the model does so itself.
    """

    decoder: str | None = None
    background: int | None = None
    score: float = 0.001
    overlap: float = 0.65

    def __post_init__(self) -> None:
        if self.decoder not in (None, *DECODERS):
            raise ValueError(f"`decoder` is {self.decoder!r:.40}: must be one of {quoted(DECODERS)}")
        if not 0 <= self.score < 1 or not 0 < self.overlap <= 1:
            raise ValueError("`score` must be from 0 to 1, and `overlap` above 0 to 1")


class Metric(Scorer):
    """Counts of each picture which boxes are right at which overlaps; the figure follows from all pictures at once."""

    title = "mean average precision (COCO, .50 to .95)"
    labels = "boxes"
    resamples = 400
    Settings = Settings

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[list[list[float]]]:
        size = self._size()
        decoder = self.settings.decoder or guess([output.shape for output in outputs], size)
        rows = suppressed(DECODERS[decoder](outputs, size), self.settings)
        label = np.zeros((len(truth[0]), 6))
        label[:, : truth[0].shape[1]] = truth[0]
        for _, left, top, right, bottom, _ in label[label[:, 0] == PADDING]:
            rows[:, 2:] = rows[:, 2:].clip([left, top, left, top], [right, bottom, right, bottom])
        return matched(rows, label[label[:, 0] >= 0])

    @classmethod
    def reading(cls, outputs: Sequence[FeedSpec], inputs: Sequence[FeedSpec], settings: Any) -> str | None:
        shapes = [each.shape[1:] for each in outputs]
        size = next((_plane(each.shape[1:]) for each in inputs if len(each.shape) == 4), None)
        if settings.decoder is not None or size is None or -1 in (*size, *(each for shape in shapes for each in shape)):
            return None
        return f"the outputs are read as those of `{guess(shapes, size)}`"

    def _size(self) -> Size:
        """Return the height and width of the model's input for the sample at hand."""
        for feed in self.samples.feeds.values():
            shape = feed.shapes[self.index].tolist()
            if len(shape) == 3:
                return _plane(shape)
        raise InputError("the model has no input that is a picture, so that its outputs are no boxes in one")

    @staticmethod
    def figure(statistics: Sequence[Any]) -> Figure:
        precisions = average_precisions(statistics)
        return lambda weights: precisions(weights).mean(axis=1)

    @classmethod
    def beside(cls, statistics: Sequence[Any]) -> dict[str, float]:
        """Return the mean average precision at an overlap of .50."""
        return {"ap50": float(average_precisions(statistics)(np.ones((1, len(statistics))))[0, 0])}


def _plane(shape: Sequence[int]) -> Size:
    """Return the height and width of a picture, channels first or last."""
    return (shape[0], shape[1]) if shape[2] in (1, 3) else (shape[1], shape[2])


def suppressed(found: Found, settings: Settings) -> Array:
    """Return the boxes that count, likeliest first, float64 [n, 6]: class, score, left, top, right, bottom.

    A box stands once for each class whose score is high enough. Of those of one class that overlap too much the
    likeliest stays (greedy NMS), unless the model has seen to that.
    """
    if found.classes is not None:
        classes, scores, boxes = found.classes, found.scores, found.boxes
    else:
        rows, classes = np.nonzero(found.scores > settings.score)
        scores, boxes = found.scores[rows, classes], found.boxes[rows]
    kept = np.flatnonzero((scores > settings.score) & (classes != settings.background))
    kept = kept[np.argsort(-scores[kept], kind="stable")][:_MOST]
    classes, scores, boxes = classes[kept], scores[kept], boxes[kept]
    if found.classes is None:
        kept = _greedy_nms(boxes, classes, settings.overlap)
        classes, scores, boxes = classes[kept], scores[kept], boxes[kept]
    if settings.background is not None:
        classes = classes - (classes > settings.background)
    return np.concatenate([classes[:, None], scores[:, None], boxes], axis=1).astype(np.float64)


def _greedy_nms(boxes: Array, classes: Array, largest: float) -> Array:
    """Return which boxes stay, in their order, which is by score; int [n]."""
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    left, kept = np.arange(len(boxes)), list[int]()
    while len(left) and len(kept) < _KEPT:
        first, left = left[0], left[1:]
        kept.append(int(first))
        near = np.minimum(boxes[first, 2:], boxes[left, 2:]) - np.maximum(boxes[first, :2], boxes[left, :2])
        both = np.clip(near, 0, None).prod(axis=1)
        union = areas[first] + areas[left] - both
        left = left[(both <= largest * union) | (classes[left] != classes[first])]
    return np.array(kept, dtype=np.int64)
