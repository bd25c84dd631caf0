"""Samples: feed dictionaries for the model, with optional labels, on disk as plain NumPy arrays.

Each feed is one flat array and one table of shapes, so that samples of different lengths need no padding and an
engine's process can map the file. A sample has no batch axis.
"""

from __future__ import annotations

import itertools
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from act.artifacts import read_json, write_json
from act.errors import InputError, quoted

Array = npt.NDArray[Any]
LABEL = "label"
PADDING = -1
"""Fills up a sequence of class numbers."""
# How much of a mapped file is gone through before its memory is given back: values, and samples.
_PIECE, _CHECKED_AT_ONCE = 2**22, 16


class Ragged:
    """A sequence of arrays of one dtype and rank: `flat` has all values, `shapes` that of each, int64 [count, rank]."""

    def __init__(self, flat: Array, shapes: npt.NDArray[np.int64]) -> None:
        self.flat, self.shapes = flat, shapes
        self._starts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1, dtype=np.int64))])
        if self._starts[-1] != flat.size:
            raise ValueError(f"{flat.size} values do not fill shapes that ask for {self._starts[-1]}")

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Ragged:
        """Gather arrays of one dtype and rank."""
        rank = arrays[0].ndim
        if any(array.ndim != rank or array.dtype != arrays[0].dtype for array in arrays):
            raise ValueError("arrays differ in rank or dtype")
        shapes = np.array([array.shape for array in arrays], dtype=np.int64).reshape(len(arrays), rank)
        return cls(np.concatenate([array.reshape(-1) for array in arrays]), shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Array:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.flat[self._starts[index] : self._starts[index + 1]].reshape(self.shapes[index])

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.flat.dtype

    def head(self, count: int) -> Ragged:
        """Return the first `count` arrays, sharing memory."""
        return Ragged(self.flat[: self._starts[min(count, len(self))]], self.shapes[:count])


class Gathering:
    """Arrays of one dtype and rank, added one by one to a file without a name, which goes with the last of them."""

    def __init__(self, folder: Path) -> None:
        # Not in a `with`: it lives as long as this object.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._shapes: list[tuple[int, ...]] = []
        self._dtype = np.dtype(np.float32)

    def add(self, array: Array) -> None:
        if not self._shapes:
            self._dtype = array.dtype
        elif array.dtype != self._dtype or array.ndim != len(self._shapes[0]):
            raise ValueError("arrays differ in rank or dtype")
        self._shapes.append(array.shape)
        self._file.write(np.ascontiguousarray(array).tobytes())

    def ragged(self) -> Ragged:
        """Return all arrays, mapped from the file; nothing can be added afterwards."""
        shapes = np.array(self._shapes, dtype=np.int64).reshape(len(self._shapes), -1)
        with self._file:
            self._file.flush()
            return Ragged(np.memmap(self._file, self._dtype, "r", shape=(int(shapes.prod(axis=1).sum()),)), shapes)


@dataclass(frozen=True)
class Samples:
    """Feeds by name, all of one length, and labels when there are any."""

    feeds: Mapping[str, Ragged]  # by input of the model, one array a sample, without the batch axis
    labels: Ragged | None = None  # the truth of each sample: a class number, or a sequence of them
    largest_batch: int | None = None  # as many as the model takes at a time; None: any number
    # What was found out of them once, for those who read them again and again: JSON values.
    known: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    def head(self, count: int) -> Samples:
        """Return the first `count` samples."""
        labels = self.labels.head(count) if self.labels is not None else None
        return Samples({name: feed.head(count) for name, feed in self.feeds.items()}, labels, self.largest_batch)

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Stack consecutive samples of equal shapes along a new first axis, at most `size` and `largest_batch` at a
        time."""
        return (self.stack(group) for group in self.groups(size))

    def batches_in_parts(self, size: int) -> Iterator[Iterator[dict[str, Array]]]:
        """Give `size` consecutive samples at a time, whatever their shapes: each batch in parts of equal shapes, of at
        most `largest_batch`."""
        for start in range(0, len(self), size):
            indices = range(start, min(start + size, len(self)))
            yield (self.stack(part) for group in self._alike(indices) for part in self.parts(group))

    def first(self, size: int) -> dict[str, Array]:
        """Return the first batch, filled up to `size` samples by repetition."""
        found = next(self.batches(size))
        return {name: np.ascontiguousarray(np.resize(each, (size, *each.shape[1:]))) for name, each in found.items()}

    def groups(self, size: int) -> list[list[int]]:
        """Return which samples are in each of the batches."""
        return self.uncapped_groups(min(size, self.largest_batch or size))

    def uncapped_groups(self, size: int) -> list[list[int]]:
        """Return consecutive samples of equal shapes in groups of at most `size`, which may be more than
        `largest_batch`."""
        groups = self._alike(range(len(self)))
        return [group[start : start + size] for group in groups for start in range(0, len(group), size)]

    def _alike(self, indices: Iterable[int]) -> list[list[int]]:
        """Return consecutive samples of equal shapes in groups."""
        alike = itertools.groupby(indices, lambda n: [tuple(feed.shapes[n]) for feed in self.feeds.values()])
        return [list(group) for _, group in alike]

    def parts(self, group: Sequence[int]) -> list[Sequence[int]]:
        """Return a group of samples in parts that the model takes at a time."""
        size = self.largest_batch or len(group)
        return [group[start : start + size] for start in range(0, len(group), size)]

    def stack(self, indices: Sequence[int]) -> dict[str, Array]:
        """Stack samples of equal shapes along a new first axis."""
        return {name: np.stack([feed[index] for index in indices]) for name, feed in self.feeds.items()}

    def release(self) -> None:
        """Let the system take back the memory of what was read of mapped files, so that a pass over them costs none."""
        for feed in self.feeds.values():
            _release(feed.flat)

    def save(self, folder: Path) -> None:
        """Write to a folder that does not exist yet."""
        folder.mkdir(parents=True)
        named = dict(self.feeds) if self.labels is None else {**self.feeds, LABEL: self.labels}
        for position, ragged in enumerate(named.values()):
            save_flat(folder / f"{position}.values.npy", ragged.flat)
            np.save(folder / f"{position}.shapes.npy", ragged.shapes, allow_pickle=False)
        meta: dict[str, Any] = {"count": len(self), "feeds": list(self.feeds), "labelled": self.labels is not None}
        if self.largest_batch is not None:
            meta["largest_batch"] = self.largest_batch
        if self.known:
            meta["known"] = dict(self.known)
        write_json(folder / "samples.json", meta)

    @classmethod
    def load(cls, folder: Path) -> Samples:
        """Map samples that `save` wrote; `InputError` where a file is missing or does not fit the others."""
        meta = read_json(folder / "samples.json")
        names = [*meta["feeds"], *([LABEL] if meta["labelled"] else [])]
        try:
            ragged = {
                name: Ragged(
                    np.load(folder / f"{position}.values.npy", mmap_mode="r", allow_pickle=False),
                    np.load(folder / f"{position}.shapes.npy", allow_pickle=False),
                )
                for position, name in enumerate(names)
            }
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: damaged samples: {error}; remove the folder and run `prepare` again") from None
        labels = ragged.pop(LABEL) if meta["labelled"] else None
        return cls(ragged, labels, meta.get("largest_batch"), meta.get("known", {}))


def save_flat(path: Path, flat: Array) -> None:
    """Write what `numpy.save` writes, in pieces: a file that is mapped never is in memory as a whole."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(flat.dtype), "fortran_order": False, "shape": flat.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(flat), _PIECE):
            file.write(np.ascontiguousarray(flat[start : start + _PIECE]).tobytes())
            _release(flat)


def _release(flat: Array) -> None:
    mapped = getattr(flat, "_mmap", None)
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class FeedSpec:
    """What the model wants for one input: name, dtype, and shape with the batch axis first (-1: any length)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def check_samples(samples: Samples, feeds: Sequence[FeedSpec], origin: str) -> None:
    """Refuse samples that the model cannot take; `InputError` names the feed, the sample and what the model wants."""
    if not samples.feeds or len(samples) == 0:
        raise InputError(f"{origin}: no samples; at least one is needed")
    wanted = {feed.name: feed for feed in feeds}
    if set(samples.feeds) != set(wanted):
        have = f"the samples feed {quoted(samples.feeds)}"
        raise InputError(f"{origin}: {have}, but the model's inputs are {quoted(wanted)}")
    for name, ragged in samples.feeds.items():
        feed, axes = wanted[name], wanted[name].shape[1:]
        if len(ragged) != len(samples):
            raise InputError(f"{origin}: the feeds have different numbers of samples: {len(ragged)} and {len(samples)}")
        if ragged.dtype != np.dtype(feed.dtype):
            raise InputError(f"{origin}: feed `{name}` has dtype {ragged.dtype}, but the model wants {feed.dtype}")
        for index, (shape, array) in enumerate(zip(ragged.shapes.tolist(), ragged)):
            where = f"{origin}: feed `{name}`, sample {index}"
            if len(shape) != len(axes) or any(have == 0 or axis not in (-1, have) for have, axis in zip(shape, axes)):
                wants = ", ".join("any" if axis == -1 else str(axis) for axis in axes)
                raise InputError(f"{where} has shape {shape}, but the model wants [{wants}]")
            if index % _CHECKED_AT_ONCE == 0:
                samples.release()
            if not np.isfinite(array).all():
                raise InputError(f"{where} holds NaN or infinity; mend or leave out that sample")
    if samples.labels is not None and len(samples.labels) != len(samples):
        raise InputError(f"{origin}: {len(samples.labels)} labels for {len(samples)} samples")
