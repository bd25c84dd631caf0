"""The user's own samples, from .npz files or from folders of .npy files."""

import math
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from act.errors import InputError
from act.machine import memory_bytes
from act.samples.dataset import LABEL, Array, FeedSpec, Ragged, Samples
from act.settings.base import Text
from act.settings.data import Data

LARGEST_MEMORY_SHARE = 0.25
SHAPES = ".shapes"


class Settings(Data):
    """The user's own samples: one array a feed, first axis = samples, with or without an array `label`.

    Either `calibration.npz` and `evaluation.npz`, or the folders `calibration/` and `evaluation/` with a file
    `FEED.npy` for each feed, which is mapped and so may be larger than the memory. Samples of different shapes: all
    values one after another, and `FEED.shapes`, the shape of each sample. The file of a feed with slashes in its name
    lies in folders of these names, or has `%2F` for each.
    """

    path: Text
    """folder with calibration.npz and evaluation.npz, or with the folders calibration/ and evaluation/"""


def read(settings: Settings, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Map or load the calibration and the evaluation samples; a reader's `read`."""
    folder, names = Path(settings.path), [feed.name for feed in feeds]
    return _read(folder / "calibration", names, False), _read(folder / "evaluation", names, True)


def _read(place: Path, feeds: Collection[str], labelled: bool) -> Samples:
    """Read the samples of `PLACE.npz`, or of the folder `PLACE/`."""
    path = place.with_suffix(".npz")
    if place.is_dir():
        if path.exists():
            raise InputError(f"{place}: there are both this folder and {path.name}; remove one of them")
        path, arrays = place, _map(place, feeds)
    else:
        arrays = _load(path)
    shapes = {name: arrays.pop(f"{name}{SHAPES}") for name in (*feeds, LABEL) if f"{name}{SHAPES}" in arrays}
    for name, array in arrays.items():
        if array.ndim == 0:
            raise InputError(f"{path}: `{name}` is a single number; its first axis must count the samples")
    label = arrays.pop(LABEL, None) if LABEL not in feeds else None
    ragged = {name: _ragged(path, name, array, shapes.get(name)) for name, array in arrays.items()}
    if label is None or not labelled:
        return Samples(ragged)
    return Samples(ragged, _labels(path, label, shapes.get(LABEL)))


def _labels(path: Path, label: Array, shapes: Array | None) -> Ragged:
    """Return labels as int64 or float64, at least one axis each; a picture without boxes has none of their values."""
    if label.dtype.kind not in "iubf":
        raise InputError(f"{path}: `{LABEL}` has dtype {label.dtype}; labels are numbers")
    wide = label.astype(np.float64 if label.dtype.kind == "f" else np.int64)
    return _ragged(path, LABEL, wide[:, None] if wide.ndim == 1 and shapes is None else wide, shapes, least=0)


def _map(folder: Path, feeds: Collection[str]) -> dict[str, Array]:
    """Map the arrays of a folder, by the names of their files; none of it is in memory."""
    arrays: dict[str, Array] = {}
    written = {file_name(name): name for feed in feeds for name in (feed, f"{feed}{SHAPES}")}
    for path in sorted(folder.rglob("*.npy")):
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy's header parser raises a dozen kinds on damaged files
            raise _not_numpy(path, error, "numpy.save(path, array)") from None
        if mapped.size and not mapped.flags.c_contiguous:
            cure = "save it with numpy.save(path, numpy.ascontiguousarray(array))"
            raise InputError(f"{path}: in Fortran's order; {cure}")
        name = path.relative_to(folder).as_posix().removesuffix(".npy")
        arrays[written.get(name, name)] = mapped
    if not arrays:
        raise InputError(f"{folder}: no .npy files in it; the reader `arrays` wants one for each input, FEED.npy")
    return arrays


def file_name(feed: str) -> str:
    """Return a feed's name as one part of a path: what may not stand in it is written as in an address."""
    return quote(feed, safe="")


def _load(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        # What cannot be held must not be unpacked: a small file can promise any size.
        if size > memory_bytes() * LARGEST_MEMORY_SHARE:
            raise InputError(f"{path}: unpacks to {size / 1e9:.1f} GB, too much for this machine; give fewer samples")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        there = f"no such file, and no folder {path.stem}/ with .npy files"
        raise InputError(f"{path}: {there}; the reader `arrays` needs one of them") from None
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy's header parser raise a dozen kinds on damaged files
        raise _not_numpy(path, error, "numpy.savez(path, FEED=array)") from None


def _not_numpy(path: Path, error: Exception, cure: str) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path}: not a NumPy {path.suffix} file of plain numbers: {reason}; save it with {cure}")


def _ragged(path: Path, name: str, values: Array, shapes: Array | None, least: int = 1) -> Ragged:
    """Return samples from an array with one in each row, or from all values one after another and their shapes, of
    which none may have less than the least length."""
    # What is mapped must stay so: NumPy's function would forget that it is.
    flat = (values if values.flags.c_contiguous else np.ascontiguousarray(values)).reshape(-1)
    if shapes is None:
        return Ragged(flat, np.tile(np.array(values.shape[1:], dtype=np.int64), (len(values), 1)))
    key = f"{path}: `{name}{SHAPES}`"
    if shapes.ndim != 2 or shapes.dtype.kind not in "iu":
        cure = "it must hold whole numbers, one row a sample with the length of each axis"
        raise InputError(f"{key} is {shapes.dtype} of shape {list(shapes.shape)}; {cure}")
    if shapes.size and int(shapes.min()) < least:
        raise InputError(f"{key} has a length of {shapes.min()}; a sample has at least {least} values along each axis")
    wanted = sum(math.prod(row) for row in shapes.tolist())
    if wanted != values.size:
        raise InputError(f"{key} asks for {wanted} values, but `{name}` holds {values.size}; save them all, flattened")
    return Ragged(flat, shapes.astype(np.int64))
