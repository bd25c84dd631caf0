"""TensorFlow's SavedModels: a folder with `saved_model.pb` and its variables."""

import mmap
from collections.abc import Sequence
from pathlib import Path

from act.environments import TENSORFLOW as ENVIRONMENT
from act.errors import InputError
from act.formats._tensorflow import WORKER, only_file

__all__ = ["ENVIRONMENT", "GIVEN_FOLDER", "WORKER", "engines_load", "find", "recognises"]

GIVEN_FOLDER = True
_SIGNATURE = b"serving_default"
_FILE = "saved_model.pb"
_BESIDE = ("variables", "assets", "assets.extra")


def recognises(path: Path) -> bool:
    """Tell whether a folder holds a SavedModel, or a file is the program of one."""
    return path.name == _FILE and path.is_file() if not path.is_dir() else (path / _FILE).is_file()


def engines_load(files: Sequence[Path]) -> bool:
    """Tell whether the model has the signature by which engines find its inputs and outputs."""
    with files[0].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_SIGNATURE) >= 0


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> Sequence[Path]:
    """Return the program, and the files of its variables and assets."""
    (path,) = only_file(path, model_filename, params_filename)
    folder = path if path.is_dir() else path.parent
    beside = [file for name in _BESIDE for file in sorted((folder / name).rglob("*")) if file.is_file()]
    if not any(file.name.endswith(".index") for file in beside) and (folder / "variables").exists():
        raise InputError(f"{folder / 'variables'}: no `variables.index` in it; copy the whole folder of the model")
    return [folder / _FILE, *beside]
