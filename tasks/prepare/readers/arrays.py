"""The user's own samples from `calibration.npz` and `evaluation.npz`: one array a feed, the first axis counts samples.

An array named `label` that is not an input of the model holds the labels of the evaluation samples.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from act.errors import InputError
from act.params import Arrays
from act.samples import LABEL, Ragged, Samples


def read(settings: Arrays, feeds: Collection[str]) -> tuple[Samples, Samples]:
    """The calibration and the evaluation samples.

    Raises:
        InputError: a file is missing, damaged, or holds objects instead of numbers.
    """
    folder = Path(settings.path)
    return _read(folder / "calibration.npz", feeds, False), _read(folder / "evaluation.npz", feeds, True)


def _read(path: Path, feeds: Collection[str], labelled: bool) -> Samples:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the reader `arrays` needs it") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: not a NumPy .npz file of plain numbers: {error}") from None
    except AttributeError:
        raise InputError(f"{path}: holds one bare array; save it with numpy.savez(path, FEED=array)") from None
    for name, array in arrays.items():
        if array.ndim == 0:
            raise InputError(f"{path}: `{name}` is a single number; its first axis must count the samples")
    label = arrays.pop(LABEL, None) if LABEL not in feeds else None
    ragged = {name: _rows(array) for name, array in arrays.items()}
    labels = _rows(label.reshape(len(label), -1).astype(np.int64)) if labelled and label is not None else None
    return Samples(ragged, labels)


def _rows(array: np.ndarray) -> Ragged:
    shapes = np.tile(np.array(array.shape[1:], dtype=np.int64), (len(array), 1))
    return Ragged(np.ascontiguousarray(array).reshape(-1), shapes)
