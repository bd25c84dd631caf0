"""Quality: one figure for how good a model's outputs are, higher is better, with the score of every sample beside it.

With labels it is the task's metric, without labels the similarity to the fp32 model's outputs. A scorer takes the
outputs sample by sample, so that large outputs need never be kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.samples.dataset import Array, Ragged

if TYPE_CHECKING:  # engines of other environments measure quality too, where there may be no pydantic
    from act.settings import Metric

CTC_BLANK = 0
PADDING = -1


@dataclass(frozen=True)
class Quality:
    """The quality of a model on some samples.

    Attributes:
        value: mean of `scores`.
        scores: one figure a sample, in [0, 1] (`similarity`: in [-1, 1]).
        beside: other figures worth showing, by name.
    """

    value: float
    scores: list[float]
    beside: dict[str, float] = field(default_factory=dict)


class Scorer(ABC):
    """Scores outputs against what they should be. Samples are added in order, each once."""

    @abstractmethod
    def add(self, outputs: Sequence[Array]) -> None:
        """Score the next sample; `outputs` has the model's outputs without the batch axis."""

    @abstractmethod
    def quality(self) -> Quality:
        """The quality over all samples added so far."""


class CtcLines(Scorer):
    """Share of lines read exactly, with the mean similarity of their characters beside it.

    The first output holds, for each position, the probability of each class, float [positions, classes]; class 0 is
    the blank. Reading is greedy: the likeliest class at each position, repeats merged, blanks dropped (Graves et al.,
    2006). Character similarity is 1 - edit distance / length of the longer line.
    """

    def __init__(self, labels: Ragged) -> None:
        self._labels = labels
        self._exact: list[float] = []
        self._similar: list[float] = []

    def add(self, outputs: Sequence[Array]) -> None:
        truth = self._labels[len(self._exact)]
        wanted = truth[truth != PADDING].tolist()
        found = read_ctc(outputs[0])
        longest = max(len(wanted), len(found), 1)
        self._exact.append(float(found == wanted))
        self._similar.append(1 - edit_distance(found, wanted) / longest)

    def quality(self) -> Quality:
        return Quality(_mean(self._exact), self._exact, {"character_similarity": _mean(self._similar)})


class Top1(Scorer):
    """Share of samples whose likeliest class is the label. The first output is float [classes]."""

    def __init__(self, labels: Ragged) -> None:
        self._labels = labels
        self._right: list[float] = []

    def add(self, outputs: Sequence[Array]) -> None:
        label = int(self._labels[len(self._right)].reshape(-1)[0])
        self._right.append(float(int(np.argmax(outputs[0])) == label))

    def quality(self) -> Quality:
        return Quality(_mean(self._right), self._right)


class Similarity(Scorer):
    """Mean cosine similarity of the outputs to the fp32 model's outputs of the same sample."""

    def __init__(self, reference: Sequence[Ragged]) -> None:
        self._reference = reference
        self._scores: list[float] = []

    def add(self, outputs: Sequence[Array]) -> None:
        index = len(self._scores)
        each = [cosine(output, wanted[index]) for output, wanted in zip(outputs, self._reference, strict=True)]
        self._scores.append(_mean(each))

    def quality(self) -> Quality:
        return Quality(_mean(self._scores), self._scores)


def scorer(metric: Metric, labels: Ragged | None, reference: Sequence[Ragged] | None = None) -> Scorer:
    """The scorer for a metric.

    Raises:
        InputError: the metric needs labels and there are none, or the other way round.
    """
    if metric == "similarity":
        if reference is None:
            raise InputError("metric `similarity` needs the fp32 model's outputs; run `prepare` again")
        return Similarity(reference)
    if labels is None:
        raise InputError(f"metric `{metric}` needs labels, but the samples have none; use `similarity`")
    return CtcLines(labels) if metric == "ctc_exact" else Top1(labels)


def read_ctc(probabilities: Array) -> list[int]:
    """Greedy CTC reading: class numbers without blanks and merged repeats, from float [positions, classes]."""
    best = np.argmax(probabilities, axis=-1)
    changed = np.concatenate([[True], best[1:] != best[:-1]])
    return [int(label) for label in best[changed & (best != CTC_BLANK)]]


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Least number of insertions, deletions and substitutions (Levenshtein, 1966)."""
    previous = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (left != right)))
        previous = current
    return previous[-1]


def cosine(first: Array, second: Array) -> float:
    """Cosine similarity of two arrays of one shape; 0 when the shapes differ or an output is not finite."""
    if first.shape != second.shape:
        return 0.0
    a: npt.NDArray[np.float64] = first.astype(np.float64).reshape(-1)
    b: npt.NDArray[np.float64] = second.astype(np.float64).reshape(-1)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0:
        return float(np.array_equal(a, b))
    similarity = float(a @ b) / norms
    return similarity if np.isfinite(similarity) else 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
