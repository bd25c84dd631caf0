"""The parts of a model's outputs, and how much of each another model keeps: what every comparison of outputs goes by.

An output may hold values of several kinds, such as boxes that reach 640 beside scores that reach 1, of which one figure
over all would see the largest alone. So the places along the channel axis are parts, each with a score of its own: the
coefficient of determination, 1 - mean squared error / variance, where the variance is that of the fp32 values over
samples and positions. It is 1 for equal values and 0 for what is no better than the part's mean, less than which
counts as 0. Probabilities of classes that exclude each other are of one kind, and one part: most classes of many hardly
occur, and what little they vary by says nothing. Class numbers, which have no distance, count by agreement, and each
class is a part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from act.samples.dataset import Array

Floats = npt.NDArray[np.float64]


class Arrays(Protocol):
    """Arrays of one dtype and rank, one a sample: a list of them, `Ragged`, or one array with the samples first."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Array: ...


# Values that a variance is taken over, at most, and samples, at least.
_MOST_VALUES, _FEWEST_SAMPLES = 2**28, 16
_AXIS_SAMPLES = 8
# Values that a place along the only axis must have to be a part.
_FEWEST_IN_PART = 4
# An axis that tells less apart has no meaning: the output is one part.
_LEAST_CONTRAST = 0.01
_RESOLUTION = 1e-4  # of variances that are compared, as a share of the whole one
# A part that varies by less than this share of its size counts as constant: it may be wrong by so much.
_CONSTANT = 1e-3
_MOST_CLASSES = 256
_OFF_ONE = 1e-3  # by which a sum of probabilities may be off


@dataclass(frozen=True)
class RealParts:
    """The parts of an output of real numbers.

    Attributes:
        axis: the channel axis, not counting that of the batch; None: the output is one part.
        variance: of the fp32 values of each part, float64 [parts], > 0.
    """

    axis: int | None
    variance: Floats

    def errors(self, found: Array, wanted: Array) -> Floats:
        """Return the mean squared error of each part as a share of its variance, for one sample, float64 [parts].

        Infinity where shapes differ or values are not finite.
        """
        if found.shape != wanted.shape:
            return np.full(len(self.variance), np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            differences = _by_part(np.subtract(found, wanted, dtype=np.float64), self.axis)
            positions = max(1, differences.size // len(self.variance))
            errors = np.einsum("ijk,ijk->j", differences, differences) / (positions * self.variance)
        return np.where(np.isfinite(errors), errors, np.inf)

    def name(self, index: int) -> str:
        """Return what to call a part, within its output."""
        return "" if self.axis is None else f"axis {self.axis + 1}, index {index}"

    def to_json(self) -> dict[str, Any]:
        """Return what `parts_from_json` reads."""
        return {"axis": self.axis, "variance": self.variance.tolist()}


@dataclass(frozen=True)
class ClassParts:
    """The parts of an output of integers: the class numbers that occur; where those are too many, all together.

    Attributes:
        classes: ascending, int64 [parts]; None where there is one part.
    """

    classes: npt.NDArray[np.int64] | None

    def errors(self, found: Array, wanted: Array) -> Floats:
        """Return the share of each class's places that have another one, for one sample, float64 [parts].

        NaN for a class that the sample has not; 1 for all where shapes differ.
        """
        count = 1 if self.classes is None else len(self.classes)
        if found.shape != wanted.shape:
            return np.ones(count)
        wrong = (found != wanted).reshape(-1)
        if self.classes is None:
            return np.array([wrong.mean() if wrong.size else 0.0])
        flat = wanted.reshape(-1).astype(np.int64)
        index = np.minimum(np.searchsorted(self.classes, flat), count - 1)
        known = self.classes[index] == flat
        places = np.bincount(index[known], minlength=count)
        errors = np.bincount(index[known], wrong[known], minlength=count)
        return np.where(places > 0, errors / np.maximum(places, 1), np.nan)

    def name(self, index: int) -> str:
        """Return what to call a part, within its output."""
        return "" if self.classes is None else f"class {self.classes[index]}"

    def to_json(self) -> dict[str, Any]:
        """Return what `parts_from_json` reads."""
        return {"classes": None if self.classes is None else self.classes.tolist()}


Parts = RealParts | ClassParts


def parts_from_json(written: Mapping[str, Any]) -> Parts:
    """Return the parts of an output as their `to_json` gave them."""
    if "variance" in written:
        return RealParts(written["axis"], np.array(written["variance"], dtype=np.float64))
    classes = written["classes"]
    return ClassParts(None if classes is None else np.array(classes, dtype=np.int64))


class Comparison:
    """Compares a model's outputs with the fp32 model's, part by part.

    Args:
        reference: of each output the fp32 values, one array a sample, without the batch axis.
        names: of the outputs; by default their numbers.
        parts: of each output, where they are known; finding them takes seconds where there are many values.
    """

    def __init__(
        self, reference: Sequence[Arrays], names: Sequence[str] | None = None, parts: Sequence[Parts] | None = None
    ) -> None:
        self.names = [str(number) for number in range(len(reference))] if names is None else list(names)
        self.parts = [parts_of(values) for values in reference] if parts is None else list(parts)

    def errors(self, found: Sequence[Array], wanted: Sequence[Array]) -> list[Floats]:
        """Return the errors of the parts of each output for one sample, as `RealParts` and `ClassParts` have them."""
        return [parts.errors(*pair) for parts, *pair in zip(self.parts, found, wanted, strict=True)]

    def mean_errors(self, found: Sequence[Array], wanted: Sequence[Array]) -> list[Floats]:
        """Return the mean errors over the samples of a batch, which is the first axis of all arrays."""
        return mean_errors(self.errors(*pair) for pair in zip(zip(*found), zip(*wanted), strict=True))

    def similarity(self, found: Sequence[Array], wanted: Sequence[Array]) -> float:
        """Return the similarity over the samples of a batch, which is the first axis of all arrays."""
        return over_outputs(scores(self.mean_errors(found, wanted)))

    def relative_error(self, found: Sequence[Array], wanted: Sequence[Array]) -> float:
        """Return the mean error over outputs, their parts and the samples of a batch, which may exceed 1."""
        return over_outputs(self.mean_errors(found, wanted))

    def worst(self, errors: Sequence[Floats]) -> tuple[float, str]:
        """Return the least score of a part, and what to call that part."""
        largest = [(float(np.nanmax(each)), number) for number, each in enumerate(errors) if not np.isnan(each).all()]
        if not largest:
            return 1.0, ""
        error, number = max(largest, key=lambda each: each[0])
        part = self.parts[number].name(int(np.nanargmax(errors[number])))
        return max(0.0, 1 - error), ", ".join(filter(None, [f"output `{self.names[number]}`", part]))


def scores(errors: Sequence[Floats]) -> list[Floats]:
    """Return the scores of the parts of each output, in [0, 1], for their mean errors."""
    return [np.clip(1 - each, 0, 1) for each in errors]


class MeanErrors:
    """The means over samples of the errors of the parts of each output; NaN counts for nothing."""

    def __init__(self) -> None:
        self._sums: list[Floats] = []
        self._counts: list[Floats] = []

    def add(self, errors: Sequence[Floats]) -> None:
        """Add the errors of a sample."""
        known = [~np.isnan(each) for each in errors]
        if not self._sums:
            self._sums, self._counts = ([np.zeros(len(each)) for each in errors] for _ in range(2))
        for place, (each, there) in enumerate(zip(errors, known)):
            self._sums[place] += np.where(there, each, 0)
            self._counts[place] += there

    @property
    def errors(self) -> list[Floats]:
        """The means, float64 [parts] for each output."""
        pairs = zip(self._sums, self._counts)
        return [np.where(counts > 0, sums / np.maximum(counts, 1), np.nan) for sums, counts in pairs]


def mean_errors(samples: Iterable[Sequence[Floats]]) -> list[Floats]:
    """Return the means over samples of the errors of the parts of each output; NaN counts for nothing."""
    mean = MeanErrors()
    for errors in samples:
        mean.add(errors)
    return mean.errors


def over_outputs(figures: Sequence[Floats]) -> float:
    """Return the mean over outputs of the mean over their parts; NaN counts for nothing, 1 where there is nothing."""
    means = [float(np.nanmean(each)) for each in figures if not np.isnan(each).all()]
    return float(np.mean(means)) if means else 1.0


def similarity(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Return the similarity of a batch's outputs to those wanted, the only ones known; the first axis is the batch."""
    return Comparison(wanted).similarity(found, wanted)


def parts_of(samples: Arrays) -> Parts:
    """Return the parts of an output from the fp32 values of some samples, one array each, without the batch axis."""
    size = max(1, *(each.size for each in _evenly(samples, _FEWEST_SAMPLES)))
    chosen = _evenly(samples, max(_FEWEST_SAMPLES, _MOST_VALUES // size))
    if not np.issubdtype(chosen[0].dtype, np.floating):
        classes = np.unique(np.concatenate([np.unique(each) for each in chosen])).astype(np.int64)
        return ClassParts(classes if 0 < len(classes) <= _MOST_CLASSES else None)
    axis = channel_axis(chosen)
    if axis is not None and _are_distributions(chosen, axis):
        axis = None
    filled = [each for each in chosen if each.size]
    if not filled:
        return RealParts(None, np.ones(1))
    mean, variance = _moments(filled, axis)
    constant = _CONSTANT**2 * (np.square(mean) + variance)
    variance = np.maximum(variance, constant)
    smallest = variance[variance > 0].min(initial=np.inf)
    return RealParts(axis, np.where(variance > 0, variance, smallest if np.isfinite(smallest) else _CONSTANT**2))


def channel_axis(samples: Sequence[Array]) -> int | None:
    """Return the axis whose places hold values of different kinds, or None, for an output of real numbers.

    Values vary less within a place than over all, and neighbours differ as much as any two places do; of an axis of
    positions neighbours are alike. The only axis needs no such proof, but enough samples to tell a spread by.
    """
    lengths = np.array([each.shape for each in samples])
    if lengths.shape[1] <= 1:
        enough = len(samples) >= _FEWEST_IN_PART and lengths.shape[1] == 1
        return 0 if enough and (lengths == lengths[0]).all() and lengths[0, 0] > 1 else None
    some = [each for each in _evenly(samples, _AXIS_SAMPLES) if each.size]
    whole = float(_moments(some, None)[1][0]) if some else 0.0
    contrasts = {
        axis: _contrast(*_moments(some, axis), whole)
        for axis, length in enumerate(lengths[0])
        if length > 1 and (lengths[:, axis] == length).all() and whole > 0
    }
    best = max(contrasts, key=contrasts.__getitem__, default=None)
    return best if best is not None and contrasts[best] >= _LEAST_CONTRAST else None


def _are_distributions(samples: Sequence[Array], axis: int) -> bool:
    """Tell whether values along an axis are never negative, and their sum is 1."""
    return all(
        bool((each >= 0).all()) and bool((np.abs(each.sum(axis=axis, dtype=np.float64) - 1) < _OFF_ONE).all())
        for each in samples
    )


def _contrast(mean: Floats, variance: Floats, whole: float) -> float:
    """Return how well an axis tells kinds of values apart, from 0 to about 1: the share by which the geometric mean of
    its places' variances is less than the whole one, times the von Neumann ratio of the places, which is about 1 where
    neighbours are unlike and 0 along a smooth curve."""
    logs = np.log(variance / whole + _RESOLUTION)
    return float(max(0.0, 1 - np.exp(logs.mean())) * (_roughness(mean) + _roughness(logs)) / 2)


def _roughness(values: Floats) -> float:
    total = 2 * float(np.square(values - values.mean()).sum())
    return float(np.square(np.diff(values)).sum()) / total if total > 0 else 0.0


def _moments(samples: Sequence[Array], axis: int | None) -> tuple[Floats, Floats]:
    """Return the mean and the variance of the places along an axis, float64 [places]; each sample counts the same."""
    means, squares = [], []
    offset = float(samples[0].mean(dtype=np.float64))
    for sample in samples:
        values = _by_part(np.subtract(sample, offset, dtype=np.float64), axis)
        positions = values.size // values.shape[1]
        means.append(np.einsum("ijk->j", values) / positions)
        squares.append(np.einsum("ijk,ijk->j", values, values) / positions)
    mean = np.mean(means, axis=0)
    return mean + offset, np.maximum(np.mean(squares, axis=0) - np.square(mean), 0)


def _by_part(values: Array, axis: int | None) -> Array:
    """Return values with the places along an axis second of three axes, without copying them."""
    if axis is None:
        return values.reshape(1, 1, -1)
    shape = values.shape
    return values.reshape(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


def _evenly(samples: Arrays, most: int) -> list[Array]:
    """Return at most so many samples, evenly over all."""
    count = len(samples)
    return [samples[count * number // min(most, count)] for number in range(min(most, count))]
