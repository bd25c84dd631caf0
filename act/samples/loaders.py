"""Samples from a loader: any iterable of batches, such as a `paddle.io.DataLoader`, taken one by one onto the disk.

A batch is a dictionary of arrays by input (or a list that holds just that, as Paddle's loader gives it with a feed
list), with or without `label`, other keys being left; or a list of arrays in the order of the inputs, with or without
the labels at its end; or a list of two, one of these and the labels. The first axis of each array counts the samples.
Only as many batches are asked for as are needed.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError, quoted
from act.samples.dataset import LABEL, Array, FeedSpec, Gathering, Ragged, Samples

log = logging.getLogger(__name__)

Loader = Iterable[Any] | Callable[[], Iterable[Any]]
Sample = tuple[dict[str, Array], Array | None]


def take(
    loader: Loader, feeds: Sequence[FeedSpec], count: int, scratch: Path, origin: str, labelled: bool = True
) -> Samples:
    """Take the first samples that a loader gives, `count` at most.

    Args:
        labelled: whether labels are taken, too; else they may be anything.
        scratch: folder for what is too large for the memory; nothing in it has a name.
        origin: where the loader comes from, for the `InputError` where it gives no batches for these inputs.
    """
    gathered = _Gathered(feeds, scratch, origin)
    for values, label in itertools.islice(_samples(loader, feeds, origin, labelled), count):
        gathered.add((values, label))
    return gathered.samples()


def deal_out(
    loader: Loader, feeds: Sequence[FeedSpec], counts: tuple[int, int], scratch: Path, origin: str
) -> tuple[Samples, Samples]:
    """Take calibration samples (no labels) and evaluation samples in turns, so that they never share one.

    A loader with fewer than `counts` of them is dealt out in this ratio. Otherwise as `take`.
    """
    calibration, evaluation = _Gathered(feeds, scratch, origin), _Gathered(feeds, scratch, origin)
    for sample in _samples(loader, feeds, origin):
        if len(calibration) / counts[0] <= len(evaluation) / counts[1]:
            calibration.add((sample[0], None))
        else:
            evaluation.add(sample)
        if counts == (len(calibration), len(evaluation)):
            break
    if not len(evaluation):
        cause = "it takes two, to calibrate on one and judge by another"
        raise InputError(f"{origin}: gives {len(calibration)} samples; {cause}")
    return calibration.samples(), evaluation.samples()


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


def _samples(loader: Loader, feeds: Sequence[FeedSpec], origin: str, labelled: bool = True) -> Iterator[Sample]:
    """Yield sample by sample, without the batch axis, in the dtypes that the model wants."""
    for number, batch in enumerate(_batches(loader, origin)):
        where = f"{origin}: batch {number}"
        named = _named(batch, feeds, where)
        labels = named.pop(LABEL, None) if labelled and all(feed.name != LABEL for feed in feeds) else None
        arrays = {}
        for feed in feeds:
            wanted = f", but the model wants {feed.dtype}"
            arrays[feed.name] = _array(named[feed.name], feed.dtype, f"{where}: `{feed.name}`", wanted)
        labels = None if labels is None else _labels(labels, where, number == 0)
        if labels is not None:
            arrays[LABEL] = labels
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
    parts = list(batch) if isinstance(batch, (list, tuple)) else [batch]
    if len(parts) in (1, 2) and (isinstance(parts[0], Mapping) or _are_inputs(parts[0], feeds)):
        labels = dict(zip([LABEL], parts[1:]))
        if not isinstance(parts[0], Mapping):
            return {**dict(zip(inputs, parts[0])), **labels}
        if not {*inputs} <= {*parts[0]}:
            raise InputError(
                f"{where} holds {quoted(parts[0])}, but the model's inputs are {quoted(inputs)}; give these"
            )
        return {**labels, **parts[0]}
    if len(parts) - len(inputs) not in (0, 1):
        found = f"is a list of {len(parts)}, but the model has {len(inputs)} inputs: {quoted(inputs)}"
        raise InputError(f"{where} {found}; give one array for each, and the labels last if there are any")
    return dict(zip([*inputs, LABEL], parts))


def _are_inputs(part: Any, feeds: Sequence[FeedSpec]) -> bool:
    """Tell whether a part of a batch is a list of all inputs, and not one input as a list of samples."""
    if not isinstance(part, (list, tuple)) or len(part) != len(feeds):
        return False
    ranks = [getattr(each, "ndim", None) for each in part]
    return ranks == [len(feed.shape) for feed in feeds]


def _labels(labels: Any, where: str, is_first: bool) -> Array | None:
    """Return labels as int64 or float64, at least [samples, 1]; None where they are no numbers."""
    try:
        array: Array = np.asarray(labels)
    except Exception:  # whatever the user's objects raise
        array = np.array(None)
    if array.ndim == 0 or array.dtype.kind not in "iufb":
        if is_first:
            log.warning(f"warning: {where}: `{LABEL}` is no array of numbers, and left aside")
        return None
    wide = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    return wide[:, None] if wide.ndim == 1 else wide


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
