"""Whole models of Keras 2 and 3: a `.keras` archive or an HDF5 file."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from act.environments import TENSORFLOW as ENVIRONMENT
from act.formats._tensorflow import HDF5_SIGNATURE, KERAS_CONFIG, WORKER, only_file

__all__ = ["ENVIRONMENT", "WORKER", "find", "recognises"]


def recognises(path: Path) -> bool:
    """Tell whether a file is HDF5, or an archive that holds the configuration of a model."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
            return True
    try:
        with zipfile.ZipFile(path) as archive:
            return KERAS_CONFIG in archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return False


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> Sequence[Path]:
    """Return the file."""
    return only_file(path, model_filename, params_filename)
