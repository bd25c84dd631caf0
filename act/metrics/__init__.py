"""Quality: one figure for how good a model's outputs are, higher is better, and how sure it is.

A metric is a module of this package with a class `Metric`. With labels it is the task's metric, without labels it
compares with the outputs of the fp32 model. Outputs are scored sample by sample, so that large ones are never kept: of
each sample stay the statistics that the figure is made of, a score where it is a mean of scores. They give the figure
of any selection of the samples, and so its interval by resampling (a paired bootstrap; Efron, 1979).

The engines' processes import all of this, maybe where there is nothing but NumPy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from act.errors import InputError
from act.registry import METRICS
from act.samples.dataset import PADDING, Array, FeedSpec, Ragged, Samples

Choice = str | Mapping[str, Any]
"""A metric as a job names it: by its name, or by a mapping with its `name` and its settings."""
Figure = Callable[[Array], Array]
"""Gives the figure of samples that are weighted by how often each counts: float64 [selections, samples] to float64
[selections]"""

Runner = Callable[[dict[str, Array]], Sequence[Array]]
"""Runs a model on one batch: arrays by input, and the outputs in the model's order"""
ANY = "any"
WORST_PART = "worst_part"
"""The figure beside a metric that judges outputs part by part: the least score of one."""
# Weights held at once: bounds the memory for many samples.
_WEIGHTS = 4_000_000


@dataclass(frozen=True)
class NoSettings:
    """A metric that has none."""


class Figures:
    """How figures are made of the statistics of samples: here, the mean of their scores."""

    resamples: ClassVar[int] = 2000  # that an interval is made of
    of_selections: ClassVar[bool] = True  # whether the figure of some of the samples is known, too

    @staticmethod
    def figure(statistics: Sequence[Any]) -> Figure:
        """Return what gives the figure of a selection of samples."""
        scores = np.asarray(statistics, dtype=np.float64)
        return lambda weights: weights @ scores / weights.sum(axis=1)

    @classmethod
    def alone(cls, statistics: Any) -> float:
        """Return a figure of one sample, to look at."""
        return float(cls.figure([statistics])(np.ones((1, 1)))[0])

    @classmethod
    def beside(cls, statistics: Sequence[Any]) -> dict[str, float]:
        """Return other figures of all samples that are worth showing, by name."""
        return {}


@dataclass(frozen=True)
class Quality:
    """The quality of a model on some samples."""

    value: float
    statistics: list[Any]  # of each sample, all that the figure needs of it: its score, where that is a mean of scores
    beside: dict[str, float] = field(default_factory=dict)  # other figures worth showing
    kind: type[Figures] = Figures  # which makes the figure of them
    notes: dict[str, str] = field(default_factory=dict)  # what figures beside it are of, by their names

    def __len__(self) -> int:
        return len(self.statistics)

    @property
    def scores(self) -> list[float]:
        """A figure of each sample by itself."""
        return [self.kind.alone(each) for each in self.statistics]

    def head(self, count: int) -> Quality:
        """Return the quality on the first samples."""
        return quality_of(self.kind, self.statistics[:count])


def quality_of(kind: type[Figures], statistics: Sequence[Any]) -> Quality:
    """Return the quality that the statistics of some samples amount to; 0 of none."""
    if not len(statistics):
        return Quality(0.0, [], {}, kind)
    value = float(kind.figure(statistics)(np.ones((1, len(statistics))))[0])
    return Quality(value, list(statistics), kind.beside(statistics), kind)


def resampled(qualities: Sequence[Quality], seed: int) -> Array:
    """Return the figures of models on many selections of the same samples, float64 [models, resamples].

    A selection draws as many samples as there are, with replacement, and is the same for all models: what is common to
    them cancels in a difference.
    """
    count, resamples = len(qualities[0]), qualities[0].kind.resamples
    figures = [each.kind.figure(each.statistics) for each in qualities]
    rng, size = np.random.default_rng(seed), max(1, _WEIGHTS // count)
    found = []
    for start in range(0, resamples, size):
        weights = _selections(rng, min(size, resamples - start), count)
        found.append(np.stack([figure(weights) for figure in figures]))
    return np.concatenate(found, axis=1)


def _selections(rng: np.random.Generator, selections: int, samples: int) -> Array:
    """Draw how often each sample counts, float64 [selections, samples]."""
    drawn = rng.integers(samples, size=(selections, samples)) + samples * np.arange(selections)[:, None]
    counts = np.bincount(drawn.reshape(-1), minlength=selections * samples)
    return counts.reshape(selections, samples).astype(np.float64)


class Scorer(Figures, ABC):
    """Scores outputs against what they should be. Samples are added in order, each once.

    Args:
        samples: those that the outputs are of, with their labels.
        reference: the outputs of the fp32 model as feeds; None where the metric compares with labels.
    """

    title: ClassVar[str]  # what people call the figure
    labels: ClassVar[str | tuple[str, ...] | None]
    """what a label may be; None: the fp32 outputs are compared. `class`: one class; `sequence`: classes, filled up with
    `PADDING`; `classes`: the class of each part (pixel, token), `PADDING` where none counts; `boxes`: as
    `act.metrics.coco_map` has them; `score`: a number; `any`: whatever there is, if only nothing"""
    first_class: ClassVar[int] = 0  # the least that a label may name
    may_lose: ClassVar[float] = 0.01  # how much of the figure, where a budget does not say
    by_parts: ClassVar[bool] = False  # whether `WORST_PART` stands beside the figure
    Settings: ClassVar[type] = NoSettings  # a dataclass of what may stand beside the name

    def __init__(self, samples: Samples, reference: Samples | None = None, settings: Any = None) -> None:
        self.samples, self.settings = samples, settings if settings is not None else self.Settings()
        labels = [samples.labels] if samples.labels is not None else []
        self._truth = list(reference.feeds.values()) if reference is not None else labels
        self._statistics: list[Any] = []

    def add(self, outputs: Sequence[Array]) -> None:
        """Score the next sample; `outputs` has the model's outputs without the batch axis."""
        index = len(self._statistics)
        self._statistics.append(self.score(outputs, [each[index] for each in self._truth]))

    def of_model(self, run: Runner) -> Quality | None:
        """Return the quality of a model that the metric runs itself; None where it is shown the outputs instead."""
        return None

    @classmethod
    def learn(cls, reference: Samples) -> dict[str, Any]:
        """Return what a scorer needs to know of the fp32 outputs and finds in `reference.known`, as JSON values."""
        return {}

    @classmethod
    def reading(cls, outputs: Sequence[FeedSpec], inputs: Sequence[FeedSpec], settings: Any) -> str | None:
        """Tell how the outputs of a model are read, where that is found by their shapes; `InputError` where it cannot
        be."""
        return None

    @property
    def index(self) -> int:
        """The number of the sample that is scored."""
        return len(self._statistics)

    @abstractmethod
    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> Any:
        """Return what the figure needs of one sample, in numbers and lists of them: here, its score.

        `truth` has its label alone, or the fp32 model's outputs for it.
        """

    def quality(self) -> Quality:
        """Return the quality over all samples added so far."""
        return quality_of(type(self), self._statistics)


def name_of(metric: Choice) -> str:
    """Return the name of a metric."""
    return metric if isinstance(metric, str) else str(metric["name"])


def find(metric: Choice) -> type[Scorer]:
    """Return the class of a metric."""
    found: type[Scorer] = METRICS.load(name_of(metric)).Metric
    return found


def needs_reference(metric: Choice) -> bool:
    """Tell whether a metric compares with the fp32 model's outputs, rather than with labels."""
    return find(metric).labels is None


def scorer(metric: Choice, samples: Samples, reference: Samples | None = None) -> Scorer:
    """Return a scorer for some samples; raises InputError where what the metric compares with is missing."""
    kind, name = find(metric), name_of(metric)
    if kind.labels is None and reference is None:
        raise InputError(f"metric `{name}` needs the fp32 model's outputs; run `prepare` again")
    if kind.labels not in (None, ANY) and samples.labels is None:
        raise InputError(f"metric `{name}` needs labels, but the samples have none; use `similarity`")
    return kind(samples, reference if kind.labels is None else None, _settings(metric))


def reading(metric: Choice, outputs: Sequence[FeedSpec], inputs: Sequence[FeedSpec]) -> str | None:
    """Tell how a metric reads a model's outputs, where that is found by their shapes; `InputError` where it cannot."""
    return find(metric).reading(outputs, inputs, _settings(metric))


def _settings(metric: Choice) -> Any:
    given = {} if isinstance(metric, str) else {key: value for key, value in metric.items() if key != "name"}
    return find(metric).Settings(**given)


def with_known(metric: Choice, reference: Samples) -> Samples:
    """Return the fp32 outputs with what a metric's scorers need to know of them, found out once for all."""
    return replace(reference, known=find(metric).learn(reference))


def check_labels(metric: Choice, labels: Ragged | None, classes: int, origin: str) -> None:
    """Refuse labels, from `origin`, that a metric cannot compare with the model's outputs, by `InputError`.

    Args:
        classes: how many the model's first output tells apart; -1 when it does not say.
    """
    kind, name = find(metric), name_of(metric)
    if kind.labels in (None, ANY):
        return
    if labels is None:
        cure = "add an array `label`, or set `metric: similarity`"
        raise InputError(f"{origin}: metric `{name}` needs labels, but the evaluation samples have none; {cure}")
    if kind.labels == "class" and (labels.shapes.prod(axis=1) != 1).any():
        found = f"the labels of a sample have shape {labels.shapes[0].tolist()}"
        raise InputError(f"{origin}: metric `{name}` needs one class number a sample, but {found}")
    if kind.labels == "boxes" and (labels.shapes.shape[1] != 2 or not np.isin(labels.shapes[:, 1], (5, 6)).all()):
        found = f"the labels of a sample have shape {labels.shapes[0].tolist()}"
        raise InputError(f"{origin}: metric `{name}` needs rows of a class and a box, [boxes, 5], but {found}")
    if kind.labels in ("class", "sequence"):
        _check_classes(kind, labels, classes, origin)


def _check_classes(kind: type[Scorer], labels: Ragged, classes: int, origin: str) -> None:
    numbers = labels.flat if kind.labels == "class" else labels.flat[labels.flat != PADDING]
    if len(broken := numbers[numbers != np.rint(numbers)]):
        raise InputError(f"{origin}: there is a label {broken[0]}; class numbers are whole numbers")
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


def mean(values: Sequence[float]) -> float:
    """Return the mean of scores; 0 of none."""
    return float(np.mean(values)) if values else 0.0
