"""Statistics of an activation that serve all threshold rules, collected in one pass over the samples.

Each activation keeps its extremes, the sums of its batches' extremes, its channels' sums and a histogram of its values.
The histogram spans a power of two and doubles when a value exceeds it (as PyTorch's `HistogramObserver` widens its
own); its bins then merge in pairs, so that the order of the batches does not change a count.
"""

import copy
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from act.errors import InputError
from act.quantization.ranges import Range
from act.samples.dataset import Array

STATISTICS_FILE = "statistics.npz"
BINS = 4096
"""Bins on each side of zero; the larger side uses more than half of its own."""

# 2**-100: below every value that matters, and far enough up that `1 / bin_width` is a float32.
_LEAST_EXPONENT = -100
# Values counted at a time: their scratch copies stay in the processor's cache.
_CHUNK = 1 << 16

_NUMBERS = ("low", "high", "sum_of_minima", "sum_of_maxima", "sum_of_absolute_maxima")
_INTEGERS = ("batches", "exponent", "channel_values")

Reader = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Snapshots = dict[int, dict[str, "TensorStatistics"]]


def _no_counts() -> npt.NDArray[np.int64]:
    return np.zeros(2 * BINS, dtype=np.int64)


@dataclass(eq=False)
class TensorStatistics:
    """One activation, over all batches seen; its size depends on the number of channels alone."""

    batches: int = 0
    low: float = math.inf
    high: float = -math.inf
    sum_of_minima: float = 0.0
    sum_of_maxima: float = 0.0
    sum_of_absolute_maxima: float = 0.0
    exponent: int = _LEAST_EXPONENT  # the histogram spans [-2**exponent, 2**exponent), which holds all values
    # How many values fell into each bin of equal width, [2 * BINS]; bin BINS starts at zero.
    counts: npt.NDArray[np.int64] = field(default_factory=_no_counts)
    # The channels' values added up, [channels]: along axis 1 at rank 4, else the last. None where there is no such axis
    # (rank 1), or its length differs between batches.
    channel_sums: npt.NDArray[np.float64] | None = None
    channel_values: int = 0  # how many each channel's sum holds

    @property
    def extremes(self) -> Range:
        """The values seen, widened to hold zero."""
        return Range(min(self.low, 0.0), max(self.high, 0.0))

    @property
    def largest(self) -> float:
        """The largest absolute value seen."""
        return max(-self.low, self.high, 0.0)

    @property
    def bin_width(self) -> float:
        """The width of each bin, a power of two."""
        return math.ldexp(1.0, self.exponent) / BINS

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The middle of each bin, float64 [2 * BINS]."""
        return (np.arange(-BINS, BINS) + 0.5) * self.bin_width

    @property
    def magnitudes(self) -> npt.NDArray[np.int64]:
        """Histogram of the absolute values, int64 [BINS]."""
        return self.counts[BINS:] + self.counts[BINS - 1 :: -1]

    @property
    def channel_means(self) -> npt.NDArray[np.float64] | None:
        """Mean of each channel, float64 [channels], or None; see `channel_sums`."""
        return None if self.channel_sums is None else self.channel_sums / self.channel_values

    def clipped(self, threshold: float, symmetric: bool) -> Range:
        """Return the range of a clipping threshold >= 0: around zero, or else what was seen of it, with zero."""
        if symmetric:
            return Range.around_zero(threshold)
        return self.extremes.within(Range.around_zero(threshold))

    def add(self, *parts: Array) -> None:
        """Count one batch's values, in parts of any shape and any real dtype; no values count as no batch.

        A value that is NaN, or infinite as a float32, is a `FloatingPointError`.
        """
        with np.errstate(over="ignore"):
            batch = [np.ascontiguousarray(part, dtype=np.float32).reshape(part.shape) for part in parts if part.size]
        if not batch:
            return
        extremes = np.array([(values.min(), values.max()) for values in batch])
        if not np.isfinite(extremes).all():
            raise FloatingPointError("holds NaN or infinity")
        low, high = float(extremes.min()), float(extremes.max())
        largest = max(-low, high)
        self._widen(math.frexp(largest)[1] if largest > 0 else _LEAST_EXPONENT)
        for values in batch:
            self.counts += _histogram(values.reshape(-1), 1 / self.bin_width)
            self._add_channels(values, self.batches == 0 and values is batch[0])
        self.batches += 1
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.sum_of_minima += low
        self.sum_of_maxima += high
        self.sum_of_absolute_maxima += largest

    def _add_channels(self, values: npt.NDArray[np.float32], are_first: bool) -> None:
        sums, before = _channel_sums(values), self.channel_sums
        if sums is None or (before is None and not are_first) or (before is not None and before.shape != sums.shape):
            self.channel_sums, self.channel_values = None, 0
        else:
            self.channel_sums = sums if before is None else before + sums
            self.channel_values += values.size // sums.size

    def _widen(self, exponent: int) -> None:
        # After log2(BINS) doublings only the two bins beside zero are in use, and they merge into themselves.
        for _ in range(min(exponent - self.exponent, BINS.bit_length())):
            merged = _no_counts()
            merged[BINS // 2 : BINS + BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = merged
        self.exponent = max(self.exponent, exponent)


def collect(
    read: Reader, batches: Iterable[Iterable[Mapping[str, Array]]], total: int, snapshots: Collection[int] = ()
) -> Snapshots:
    """Gather the statistics of every activation that `read` gives, by name, by the number of batches seen.

    Args:
        batches: each in parts that the model takes at a time.
        total: number of batches, for the progress bar.
        snapshots: numbers of batches after which to keep a copy, where they are reached; after all there always is one.

    Raises:
        FloatingPointError: an activation is NaN or infinite; the message names it.
        ValueError: there are no batches.
    """
    statistics: dict[str, TensorStatistics] = {}
    collected: Snapshots = {}
    seen = 0
    for seen, batch in enumerate(tqdm(batches, total=total, desc="calibration", unit="batch", leave=False), start=1):
        parts = [read(part) for part in batch]
        for name in parts[0]:
            try:
                statistics.setdefault(name, TensorStatistics()).add(*(part[name] for part in parts))
            except FloatingPointError as error:
                raise FloatingPointError(f"the activation `{name}` of the fp32 model {error}") from None
        if seen in snapshots:
            collected[seen] = copy.deepcopy(_with_values(statistics))
    if seen == 0:
        raise ValueError("there are no batches to collect statistics from")
    collected[seen] = _with_values(statistics)
    return collected


def _with_values(statistics: Mapping[str, TensorStatistics]) -> dict[str, TensorStatistics]:
    """Return the statistics, those of a zero for what was empty in all batches, which no range rounds wrongly."""
    zero = TensorStatistics()
    zero.add(np.zeros(1, np.float32))
    return {name: each if each.batches else zero for name, each in statistics.items()}


def save(path: Path, snapshots: Mapping[int, Mapping[str, TensorStatistics]]) -> None:
    """Write statistics as one .npz without pickled objects; equal statistics in equal order give equal bytes."""
    seen = [number for number, by_name in snapshots.items() for _ in by_name]
    names = [name for by_name in snapshots.values() for name in by_name]
    tensors = [each for by_name in snapshots.values() for each in by_name.values()]
    used = [np.flatnonzero(each.counts) for each in tensors]
    spans = [(int(bins[0]), int(bins[-1]) + 1) if bins.size else (0, 0) for bins in used]
    counts = [each.counts[start:stop] for each, (start, stop) in zip(tensors, spans)]
    packed = np.concatenate([_no_counts()[:0], *counts])
    channels = [each.channel_sums for each in tensors]
    arrays: dict[str, npt.NDArray[Any]] = {
        "seen": np.array(seen, dtype=np.int64),
        "names": np.array(names, dtype=np.str_),
        "numbers": np.array([[getattr(each, key) for key in _NUMBERS] for each in tensors], dtype=np.float64),
        "integers": np.array([[getattr(each, key) for key in _INTEGERS] for each in tensors], dtype=np.int64),
        "spans": np.array(spans, dtype=np.int64),
        "counts": packed.astype(np.min_scalar_type(int(packed.max(initial=0)))),
        "channels": np.array([-1 if sums is None else sums.size for sums in channels], dtype=np.int64),
        "channel_sums": np.concatenate([np.zeros(0), *(sums for sums in channels if sums is not None)]),
    }
    with path.open("wb") as file:
        np.savez(file, **arrays)


def load(path: Path) -> Snapshots:
    """Read what `save` wrote; `InputError` where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return _unpack({key: file[key] for key in file.files})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it, or `dvc repro`") from None
    except Exception as error:  # a damaged zip archive raises almost anything, depending on the byte
        raise InputError(f"{path}: damaged statistics: {error}; remove the file and run its stage again") from None


def _unpack(arrays: Mapping[str, npt.NDArray[Any]]) -> Snapshots:
    snapshots: Snapshots = {}
    spans, channels = arrays["spans"].reshape(-1, 2), arrays["channels"]
    counts = _split(arrays["counts"], spans[:, 1] - spans[:, 0])
    sums = _split(arrays["channel_sums"], np.maximum(channels, 0))
    for row, (seen, name) in enumerate(zip(arrays["seen"].tolist(), arrays["names"].tolist())):
        each = TensorStatistics(
            **dict(zip(_NUMBERS, arrays["numbers"][row].tolist(), strict=True)),
            **dict(zip(_INTEGERS, arrays["integers"][row].tolist(), strict=True)),
            channel_sums=sums[row].copy() if channels[row] >= 0 else None,
        )
        each.counts[slice(*spans[row])] = counts[row]
        snapshots.setdefault(seen, {})[name] = each
    return snapshots


def _split(values: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
    if lengths.sum() != values.size:
        raise ValueError("the arrays' lengths do not fit together")
    return np.split(values, np.cumsum(lengths)[:-1])


def _histogram(values: npt.NDArray[np.float32], bins_per_unit: float) -> npt.NDArray[np.int64]:
    """Return the counts of flat values, int64 [2 * BINS]; they are exact, as `bins_per_unit` is a power of two."""
    counts = _no_counts()
    scaled = np.empty(min(values.size, _CHUNK), dtype=np.float32)
    bins = np.empty(scaled.size, dtype=np.intp)  # the one dtype that `bincount` does not copy
    for start in range(0, values.size, _CHUNK):
        chunk = values[start : start + _CHUNK]
        part, index = scaled[: chunk.size], bins[: chunk.size]
        np.multiply(chunk, np.float32(bins_per_unit), out=part)
        np.floor(part, out=part)
        np.add(part, np.float32(BINS), out=part)
        np.copyto(index, part, casting="unsafe")
        counts += np.bincount(index, minlength=2 * BINS)
    return counts


def _channel_sums(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
    """Return the sums over all axes but the channels'; each sample's in float32, so that no float64 copy is made."""
    if values.ndim < 2:
        return None
    if values.ndim == 4:
        return values.reshape(*values.shape[:2], -1).sum(axis=2).sum(axis=0, dtype=np.float64)
    samples = values.reshape(values.shape[0], -1, values.shape[-1])
    return samples.sum(axis=1).sum(axis=0, dtype=np.float64)
