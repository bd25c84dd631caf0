"""TensorFlow Lite's models in floating point: a `.tflite` file."""

from collections.abc import Sequence
from pathlib import Path

from act.environments import TENSORFLOW as ENVIRONMENT
from act.formats._tensorflow import WORKER, only_file

__all__ = ["ENVIRONMENT", "WORKER", "find", "recognises"]

_IDENTIFIER = b"TFL3"  # of the flatbuffer's schema, behind the offset of its root


def recognises(path: Path) -> bool:
    """Tell whether a file has the identifier of TensorFlow Lite's flatbuffers."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8)[4:] == _IDENTIFIER


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> Sequence[Path]:
    """Return the file."""
    return only_file(path, model_filename, params_filename)
