"""Quality: one figure for how good a model's outputs are, higher is better, with the score of every sample beside it.

A metric is a module of this package with a class `Metric`. With labels it is the task's metric, without labels it
compares with the outputs of the fp32 model. Outputs are scored sample by sample, so that large ones are never kept.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from act.errors import InputError
from act.registry import METRICS
from act.samples.dataset import PADDING, Array, Ragged


@dataclass(frozen=True)
class Quality:
    """The quality of a model on some samples."""

    value: float  # mean of `scores`
    scores: list[float]  # one figure a sample, in [0, 1] (cosine similarity: in [-1, 1])
    beside: dict[str, float] = field(default_factory=dict)  # other figures worth showing


class Scorer(ABC):
    """Scores outputs against what they should be. Samples are added in order, each once.

    Args:
        truth: the labels, or each output of the fp32 model.
    """

    title: ClassVar[str]  # what people call the figure
    labels: ClassVar[Literal["class", "sequence"] | None]
    """what a label must be: one class, or a sequence filled up with `PADDING`; None: the fp32 outputs are compared"""
    first_class: ClassVar[int] = 0  # the least that a label may name

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
    """Refuse labels, from `origin`, that a metric cannot compare with the model's first output, by `InputError`.

    Args:
        classes: how many the model tells apart; -1 when it does not say.
    """
    kind = find(metric)
    if kind.labels is None:
        return
    if labels is None:
        cure = "add an array `label`, or set `metric: similarity`"
        raise InputError(f"{origin}: metric `{metric}` needs labels, but the evaluation samples have none; {cure}")
    if kind.labels == "class" and (labels.shapes.prod(axis=1) != 1).any():
        found = f"the labels of a sample have shape {labels.shapes[0].tolist()}"
        raise InputError(f"{origin}: metric `{metric}` needs one class number a sample, but {found}")
    numbers = labels.flat if kind.labels == "class" else labels.flat[labels.flat != PADDING]
    wrong = numbers[(numbers < kind.first_class) | ((numbers >= classes) & (classes != -1))]
    if len(wrong):
        last = f"the model's classes go from {kind.first_class} to {classes - 1}"
        known = f"classes are counted from {kind.first_class}" if classes == -1 else last
        raise InputError(f"{origin}: there is a label {wrong[0]}, but {known}")


def cosine(first: Array, second: Array) -> float:
    """Return the cosine similarity of two arrays; 0 when their shapes differ or one is not finite."""
    if first.shape != second.shape:
        return 0.0
    a, b = first.astype(np.float64).reshape(-1), second.astype(np.float64).reshape(-1)
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
