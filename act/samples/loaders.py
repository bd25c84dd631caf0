"""Samples from a loader: any iterable of batches, such as a `paddle.io.DataLoader`, taken one by one onto the disk.

A batch is a dictionary of arrays by input (or a list that holds just that, as Paddle's loader gives it with a feed
list), with or without `label`; or a list of arrays in the order of the inputs, with or without the labels at its end.
The first axis of each array counts the samples. Only as many batches are asked for as are needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError
from act.samples.dataset import LABEL, Array, FeedSpec, Gathering, Ragged, Samples, names

Loader = Iterable[Any] | Callable[[], Iterable[Any]]
Sample = tuple[dict[str, Array], Array | None]


def take(loader: Loader, feeds: Sequence[FeedSpec], count: int, scratch: Path, origin: str) -> Samples:
    """Take the first samples that a loader gives.

    Args:
        count: how many at most.
        scratch: folder for what is too large for the memory; nothing in it has a name.
        origin: where the loader comes from, for the message.

    Raises:
        InputError: the loader gives nothing, or something else than batches for these inputs.
    """
    gathered = _Gathered(feeds, scratch, origin)
    for sample in itertools.islice(_samples(loader, feeds, origin), count):
        gathered.add(sample)
    return gathered.samples()


def deal_out(
    loader: Loader, feeds: Sequence[FeedSpec], counts: tuple[int, int], scratch: Path, origin: str
) -> tuple[Samples, Samples]:
    """Take calibration samples (no labels) and evaluation samples in turns, so that they never share one.

    Args:
        counts: how many of each at most; a loader with fewer is dealt out in this ratio.

    Otherwise as `take`.
    """
    both = (_Gathered(feeds, scratch, origin), _Gathered(feeds, scratch, origin))
    for sample in _samples(loader, feeds, origin):
        filled = [len(gathered) / count for gathered, count in zip(both, counts)]
        both[0 if filled[0] <= filled[1] else 1].add(sample)
        if counts == (len(both[0]), len(both[1])):
            break
    if not len(both[1]):
        cause = "it takes two, to calibrate on one and judge by another"
        raise InputError(f"{origin}: gives {len(both[0])} samples; {cause}")
    return Samples(both[0].samples().feeds), both[1].samples()


def peek(loader: Loader, feeds: Sequence[FeedSpec], origin: str) -> tuple[int, int, Iterable[Any]]:
    """Return how many samples the first batch has, how many bytes one takes, and all batches, the first among them."""
    batches = _batches(loader, origin)
    first = list(itertools.islice(batches, 1))
    rows = [values for values, _ in _samples(first, feeds, origin)]
    if not rows:
        where = " in its first batch" if first else ""
        raise InputError(f"{origin}: gives no samples{where}; at least one is needed")
    return len(rows), sum(array.nbytes for array in rows[0].values()), itertools.chain(first, batches)


class _Gathered:
    def __init__(self, feeds: Sequence[FeedSpec], scratch: Path, origin: str) -> None:
        self._feeds = {feed.name: Gathering(scratch) for feed in feeds}
        self._labels: list[Array | None] = []
        self._origin = origin

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, sample: Sample) -> None:
        values, label = sample
        for name, array in values.items():
            try:
                self._feeds[name].add(array)
            except ValueError:
                raise InputError(
                    f"{self._origin}: sample {len(self)} has for `{name}` {array.dtype} of {array.ndim} axes, unlike "
                    "those before it; give all samples alike"
                ) from None
        self._labels.append(label)

    def samples(self) -> Samples:
        if not self._labels:
            raise InputError(f"{self._origin}: gives no samples; at least one is needed")
        labels = [label for label in self._labels if label is not None]
        if labels and len(labels) != len(self):
            counts = f"only {len(labels)} of {len(self)} samples"
            raise InputError(f"{self._origin}: {counts} have a label; give all or none")
        try:
            ragged = Ragged.of(labels) if labels else None
        except ValueError:
            raise InputError(f"{self._origin}: the labels differ in their number of axes; give all alike") from None
        return Samples({name: gathering.ragged() for name, gathering in self._feeds.items()}, ragged)


def _samples(loader: Loader, feeds: Sequence[FeedSpec], origin: str) -> Iterator[Sample]:
    """Yield sample by sample, without the batch axis, in the dtypes that the model wants."""
    for number, batch in enumerate(_batches(loader, origin)):
        where = f"{origin}: batch {number}"
        named = _named(batch, feeds, where)
        labels = named.pop(LABEL, None) if all(feed.name != LABEL for feed in feeds) else None
        arrays = {feed.name: _converted(named[feed.name], feed, where) for feed in feeds}
        sizes = {name: len(array) for name, array in arrays.items()}
        numbers = None if labels is None else _class_numbers(labels, where)
        if numbers is not None:
            sizes[LABEL] = len(numbers)
        if len(set(sizes.values())) != 1:
            told = ", ".join(f"`{name}` {size}" for name, size in sizes.items())
            raise InputError(f"{where} has different numbers of samples: {told}; the first axis must count them")
        for row in range(next(iter(sizes.values()))):
            yield {name: array[row] for name, array in arrays.items()}, None if numbers is None else numbers[row]


def _batches(loader: Loader, origin: str) -> Iterator[Any]:
    # Paddle's loaders can be called as well as gone through, generator functions only called.
    batches = loader() if callable(loader) else loader
    try:
        return iter(batches)
    except TypeError:
        raise InputError(
            f"{origin}: {type(batches).__name__} is no loader; give an iterable of batches, or a function for one"
        ) from None


def _named(batch: Any, feeds: Sequence[FeedSpec], where: str) -> dict[str, Any]:
    """Return what a batch holds, by the name of the input, or `label`."""
    inputs = [feed.name for feed in feeds]
    if isinstance(batch, (list, tuple)) and len(batch) == 1 and isinstance(batch[0], Mapping):
        batch = batch[0]
    if isinstance(batch, Mapping):
        if {*batch} - {LABEL} != {*inputs} - {LABEL} or not {*inputs} <= {*batch}:
            there = f"holds {names(batch)}, but the model's inputs are {names(inputs)}"
            raise InputError(f"{where} {there}; give these and no others")
        return dict(batch)
    parts = list(batch) if isinstance(batch, (list, tuple)) else [batch]
    if len(parts) - len(inputs) not in (0, 1):
        raise InputError(
            f"{where} is a list of {len(parts)}, but the model has {len(inputs)} inputs: {names(inputs)}; give one "
            "array for each, and the labels last if there are any"
        )
    return dict(zip([*inputs, LABEL], parts))


def _converted(values: Any, feed: FeedSpec, where: str) -> Array:
    """Return the values of a batch in the input's dtype, where nothing but precision can be lost by that."""
    array = _array(values, f"{where}: `{feed.name}`")
    if not np.can_cast(array.dtype, feed.dtype, "same_kind"):
        raise InputError(f"{where}: `{feed.name}` has dtype {array.dtype}, but the model wants {feed.dtype}")
    return array.astype(feed.dtype, copy=False)


def _class_numbers(values: Any, where: str) -> Array:
    """Return class numbers, int64 [samples, numbers of a sample]."""
    array = _array(values, f"{where}: `{LABEL}`")
    if array.dtype.kind not in "iub":
        raise InputError(f"{where}: `{LABEL}` has dtype {array.dtype}; class numbers are whole numbers")
    return array.reshape(len(array), -1).astype(np.int64) if array.size else array.reshape(len(array), 0)


def _array(values: Any, what: str) -> Array:
    try:
        array: Array = np.asarray(values)  # of Paddle's tensors, too
    except Exception as error:  # whatever the user's objects raise
        raise InputError(f"{what} cannot be made an array: {error}; give arrays of numbers") from None
    if array.ndim == 0 or array.dtype.kind not in "iufb":
        raise InputError(
            f"{what} is {array.dtype} of shape {list(array.shape)}; give arrays of numbers whose first axis counts the "
            "samples"
        )
    return array
