"""Quality: one figure for how good a model's outputs are, higher is better, with the score of every sample beside it.

A metric is a module of this package with a class `Metric`. With labels it is the task's metric, without labels it
compares with the outputs of the fp32 model. Outputs are scored sample by sample, so that large ones are never kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.registry import METRICS
from act.samples.dataset import PADDING, Array, Ragged


@dataclass(frozen=True)
class Quality:
    """The quality of a model on some samples.

    Attributes:
        value: mean of `scores`.
        scores: one figure a sample, in [0, 1] (cosine similarity: in [-1, 1]).
        beside: other figures worth showing.
    """

    value: float
    scores: list[float]
    beside: dict[str, float] = field(default_factory=dict)


class Scorer(ABC):
    """Scores outputs against what they should be. Samples are added in order, each once.

    Args:
        truth: the labels, or each output of the fp32 model.

    Attributes:
        title: what people call the figure.
        labels: what a sample's label must be: one class, or a sequence of classes filled up with `PADDING`; None:
            the metric compares with the fp32 model's outputs instead.
        first_class: the least class that a label may name.
    """

    title: ClassVar[str]
    labels: ClassVar[Literal["class", "sequence"] | None]
    first_class: ClassVar[int] = 0

    def __init__(self, truth: Sequence[Ragged]) -> None:
        self._truth = truth
        self._scores: list[float] = []

    def add(self, outputs: Sequence[Array]) -> None:
        """Score the next sample; `outputs` has the model's outputs without the batch axis."""
        index = len(self._scores)
        self._scores.append(self.score(outputs, [each[index] for each in self._truth]))

    @abstractmethod
    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> float:
        """Return the score of one sample; `truth` has its label alone, or the fp32 model's outputs for it."""

    def quality(self) -> Quality:
        """Return the quality over all samples added so far."""
        return Quality(mean(self._scores), self._scores)


def find(metric: str) -> type[Scorer]:
    """Return the class of a metric."""
    found: type[Scorer] = METRICS.load(metric).Metric
    return found


def needs_reference(metric: str) -> bool:
    """Tell whether a metric compares with the fp32 model's outputs, rather than with labels."""
    return find(metric).labels is None


def scorer(metric: str, labels: Ragged | None, reference: Sequence[Ragged] | None = None) -> Scorer:
    """Return a scorer for some samples; raises InputError where what the metric compares with is missing."""
    if needs_reference(metric):
        if reference is None:
            raise InputError(f"metric `{metric}` needs the fp32 model's outputs; run `prepare` again")
        return find(metric)(reference)
    if labels is None:
        raise InputError(f"metric `{metric}` needs labels, but the samples have none; use `similarity`")
    return find(metric)([labels])


def check_labels(metric: str, labels: Ragged | None, classes: int, origin: str) -> None:
    """Refuse labels that a metric cannot compare with the model's first output.

    Args:
        classes: how many the model tells apart; -1 when it does not say.
        origin: where the labels come from, for the message.

    Raises:
        InputError: there are none, they have another shape, or name a class that the model has not.
    """
    kind = find(metric)
    if kind.labels is None:
        return
    if labels is None:
        raise InputError(
            f"{origin}: metric `{metric}` needs labels, but the evaluation samples have none; add an array `label`, "
            "or set `metric: similarity`"
        )
    if kind.labels == "class" and any(int(shape.prod()) != 1 for shape in labels.shapes):
        raise InputError(
            f"{origin}: metric `{metric}` needs one class number a sample, but the labels of a sample have shape "
            f"{labels.shapes[0].tolist()}"
        )
    numbers = labels.flat if kind.labels == "class" else labels.flat[labels.flat != PADDING]
    wrong = numbers[(numbers < kind.first_class) | ((numbers >= classes) & (classes != -1))]
    if len(wrong):
        known = f"the model's classes go from {kind.first_class} to {classes - 1}"
        if classes == -1:
            known = f"classes are counted from {kind.first_class}"
        raise InputError(f"{origin}: there is a label {wrong[0]}, but {known}")


def cosine(first: Array, second: Array) -> float:
    """Return the cosine similarity of two arrays; 0 when their shapes differ or one is not finite."""
    if first.shape != second.shape:
        return 0.0
    a: npt.NDArray[np.float64] = first.astype(np.float64).reshape(-1)
    b: npt.NDArray[np.float64] = second.astype(np.float64).reshape(-1)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0:
        return float(np.array_equal(a, b))
    similarity = float(a @ b) / norms
    return similarity if np.isfinite(similarity) else 0.0


def squared_error(values: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Return the sum over the outputs of their mean squared error, each as a share of the mean square wanted."""
    total = 0.0
    for value, want in zip(values, wanted):
        scale = float(np.mean(want.astype(np.float64) ** 2)) + float(np.finfo(np.float64).tiny)
        total += float(np.mean((value.astype(np.float64) - want) ** 2) / scale)
    return total


def mean(values: Sequence[float]) -> float:
    """Return the mean of scores; 0 of none."""
    return float(np.mean(values)) if values else 0.0
