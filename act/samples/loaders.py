"""Samples from a loader: any iterable of batches, such as a `paddle.io.DataLoader`, taken one by one onto the disk.

A batch is a dictionary of arrays by input (or a list that holds just that, as Paddle's loader gives it with a feed
list), with or without `label`; or a list of arrays in the order of the inputs, with or without the labels at its end.
The first axis of each array counts the samples. Only as many batches are asked for as are needed.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError, quoted
from act.samples.dataset import LABEL, Array, FeedSpec, Gathering, Ragged, Samples

Loader = Iterable[Any] | Callable[[], Iterable[Any]]
Sample = tuple[dict[str, Array], Array | None]


def take(loader: Loader, feeds: Sequence[FeedSpec], count: int, scratch: Path, origin: str) -> Samples:
    """Take the first samples that a loader gives, `count` at most.

    Args:
        scratch: folder for what is too large for the memory; nothing in it has a name.
        origin: where the loader comes from, for the `InputError` where it gives no batches for these inputs.
    """
    gathered = _Gathered(feeds, scratch, origin)
    for sample in itertools.islice(_samples(loader, feeds, origin), count):
        gathered.add(sample)
    return gathered.samples()


def deal_out(
    loader: Loader, feeds: Sequence[FeedSpec], counts: tuple[int, int], scratch: Path, origin: str
) -> tuple[Samples, Samples]:
    """Take calibration samples (no labels) and evaluation samples in turns, so that they never share one.

    A loader with fewer than `counts` of them is dealt out in this ratio. Otherwise as `take`.
    """
    calibration, evaluation = _Gathered(feeds, scratch, origin), _Gathered(feeds, scratch, origin)
    for sample in _samples(loader, feeds, origin):
        next_is_first = len(calibration) / counts[0] <= len(evaluation) / counts[1]
        (calibration if next_is_first else evaluation).add(sample)
        if counts == (len(calibration), len(evaluation)):
            break
    if not len(evaluation):
        cause = "it takes two, to calibrate on one and judge by another"
        raise InputError(f"{origin}: gives {len(calibration)} samples; {cause}")
    return Samples(calibration.samples().feeds), evaluation.samples()


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
                found = f"sample {len(self)} has for `{name}` {array.dtype} of {array.ndim} axes"
                raise InputError(f"{self._origin}: {found}, unlike those before it; give all samples alike") from None
        self._labels.append(label)

    def samples(self) -> Samples:
        if not self._labels:
            raise InputError(f"{self._origin}: gives no samples; at least one is needed")
        labels = [label for label in self._labels if label is not None]
        if labels and len(labels) != len(self):
            found = f"only {len(labels)} of {len(self)} samples have a label"
            raise InputError(f"{self._origin}: {found}; give all or none")
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
        arrays = {}
        for feed in feeds:
            wanted = f", but the model wants {feed.dtype}"
            arrays[feed.name] = _array(named[feed.name], feed.dtype, f"{where}: `{feed.name}`", wanted)
        if labels is not None:
            numbers = _array(labels, np.int64, f"{where}: `{LABEL}`", "; class numbers are whole numbers")
            arrays[LABEL] = numbers.reshape(len(numbers), math.prod(numbers.shape[1:]))
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) != 1:
            told = ", ".join(f"`{name}` {size}" for name, size in sizes.items())
            raise InputError(f"{where} has different numbers of samples: {told}; the first axis must count them")
        for row in range(next(iter(sizes.values()))):
            values = {name: array[row] for name, array in arrays.items()}
            yield values, None if labels is None else values.pop(LABEL)


def _batches(loader: Loader, origin: str) -> Iterator[Any]:
    # Paddle's loaders can be called as well as gone through, generator functions only called.
    batches = loader() if callable(loader) else loader
    try:
        return iter(batches)
    except TypeError:
        cure = "give an iterable of batches, or a function for one"
        raise InputError(f"{origin}: {type(batches).__name__} is no loader; {cure}") from None


def _named(batch: Any, feeds: Sequence[FeedSpec], where: str) -> dict[str, Any]:
    """Return what a batch holds, by the name of the input, or `label`."""
    inputs = [feed.name for feed in feeds]
    if isinstance(batch, (list, tuple)) and len(batch) == 1 and isinstance(batch[0], Mapping):
        batch = batch[0]
    if isinstance(batch, Mapping):
        if {*batch} - {LABEL} != {*inputs} - {LABEL} or not {*inputs} <= {*batch}:
            found = f"holds {quoted(batch)}, but the model's inputs are {quoted(inputs)}"
            raise InputError(f"{where} {found}; give these and no others")
        return dict(batch)
    parts = list(batch) if isinstance(batch, (list, tuple)) else [batch]
    if len(parts) - len(inputs) not in (0, 1):
        found = f"is a list of {len(parts)}, but the model has {len(inputs)} inputs: {quoted(inputs)}"
        raise InputError(f"{where} {found}; give one array for each, and the labels last if there are any")
    return dict(zip([*inputs, LABEL], parts))


def _array(values: Any, dtype: Any, what: str, wanted: str) -> Array:
    """Return the values of a batch in a dtype, where nothing but precision can be lost by that."""
    try:
        array: Array = np.asarray(values)  # of Paddle's tensors, too
    except Exception as error:  # whatever the user's objects raise
        raise InputError(f"{what} cannot be made an array: {error}; give arrays of numbers") from None
    if array.ndim == 0 or array.dtype.kind not in "iufb":
        found = f"is {array.dtype} of shape {list(array.shape)}"
        raise InputError(f"{what} {found}; give arrays of numbers whose first axis counts the samples")
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InputError(f"{what} has dtype {array.dtype}{wanted}")
    return array.astype(dtype, copy=False)
